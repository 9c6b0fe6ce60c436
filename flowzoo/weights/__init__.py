"""From a name to a verified file to a loaded flow: the Hub, the cache, checkpoints, fingerprints."""
