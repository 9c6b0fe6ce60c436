"""Everything that a GPU can show, in one command: ``python -m tools.cuda``."""
