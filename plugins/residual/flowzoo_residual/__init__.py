"""Invertible residual networks and Residual Flows for flowzoo."""
