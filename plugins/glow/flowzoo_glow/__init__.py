"""Glow for flowzoo."""
