"""Recipes, the training loop, checkpoints, runs."""
