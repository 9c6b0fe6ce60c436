"""Elementwise flows for flowzoo."""
