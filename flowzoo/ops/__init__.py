"""Tensor functions with a custom backward: the arithmetic of the engine. They know no module.

Every one of them computes what a few plain torch operations would, with fewer passes over memory. Where the custom
backward does not suffice (second derivatives, many gradients at once) they differentiate those plain operations.
"""
