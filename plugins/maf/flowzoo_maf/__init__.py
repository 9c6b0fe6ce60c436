"""Masked autoregressive flows for flowzoo."""
