"""Images that should not be classified: flags from the picture and from the predicted mask."""
