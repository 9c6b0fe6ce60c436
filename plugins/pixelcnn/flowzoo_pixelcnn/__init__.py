"""PixelCNN as a flow for flowzoo."""
