"""Measurements of flowzoo's speed and memory beside its floor and its peers: ``python -m benchmarks``."""
