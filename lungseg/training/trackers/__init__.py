"""Trackers of a run: W&B and TensorBoard, each one module behind the same three methods."""
