"""flowzoo: the model zoo for normalizing flows."""
