"""Pictures of flows and of their training."""
