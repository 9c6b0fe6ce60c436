"""Flow++ for flowzoo (Ho et al. 2019, arXiv 1902.00275)."""
