"""Integer discrete flows for flowzoo (Hoogeboom et al. 2019, arXiv 1905.07376)."""
