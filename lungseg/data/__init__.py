"""From files to batches: index, decoding, phantoms, augmentation, the datamodule."""
