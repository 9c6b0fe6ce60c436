"""Continuous normalizing flows for flowzoo."""
