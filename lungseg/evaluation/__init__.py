"""What a trained network is worth on a split: class maps and their evidence, image by image."""
