"""NICE for flowzoo."""
