"""Trackers of a run: W&B, TensorBoard and MLflow, each one module behind the same three methods."""
