"""The network, its losses and scores, and the LightningModule around it."""
