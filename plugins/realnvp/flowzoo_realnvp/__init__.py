"""RealNVP for flowzoo (Dinh et al. 2017, arXiv 1605.08803)."""
