"""The contrastive term of a training: views of one image should have like features, those of other images others."""

from typing import Any

import torch
from torch import Tensor, nn

from lungseg.errors import UserError
from lungseg.models.losses import Term, contrastive_term
from lungseg.models.network import LungNetwork, LungOutput


class Contrast(nn.Module):
    """Compares what the classifier reads, pooled over the image, by 128 numbers that two layers make of it.

    Chen et al. (see `contrastive_term`) find that what is compared had better not be what is used. These layers are
    trained along, and are no part of the network: nothing but training needs them.
    """

    def __init__(self, network: LungNetwork):
        super().__init__()
        classifier, stages = network.classifier, network.segmenter.encoder.out_channels
        channels = int(stages[-1]) if classifier is None else classifier.project.in_channels
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 128))

    def forward(self, output: LungOutput, batch: dict[str, Any]) -> Term:
        """`contrastive_term` of a batch, whose `view_of` says which of its items are views of one image.

        Raises:
            UserError: It does not say so.
        """
        if "view_of" not in batch:
            raise UserError("loss.contrastive_weight: needs views of each image; give the data AugmentConfig(views=2)")
        embeddings: Tensor = self.layers(output.features.mean(dim=(2, 3)))
        whole = batch["share"] == 1 if "share" in batch else torch.ones_like(batch["view_of"], dtype=torch.bool)
        return contrastive_term(embeddings, batch["view_of"], whole)
