"""Training: the LightningModule around the network, and one run from config to run folder."""
