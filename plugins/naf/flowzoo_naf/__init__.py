"""Neural autoregressive flows for flowzoo."""
