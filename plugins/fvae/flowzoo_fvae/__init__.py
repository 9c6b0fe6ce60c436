"""f-VAE for flowzoo."""
