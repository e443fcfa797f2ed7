"""A trained network at work on new images: no Lightning, no W&B, and no torch unless the model needs it."""
