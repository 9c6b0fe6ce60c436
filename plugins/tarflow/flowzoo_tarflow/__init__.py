"""TarFlow for flowzoo."""
