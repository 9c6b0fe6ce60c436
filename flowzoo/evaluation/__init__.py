"""Likelihood, protocol, verdict and audit of a trained flow."""
