"""Jet for flowzoo."""
