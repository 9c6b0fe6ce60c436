"""Spline flows for flowzoo."""
