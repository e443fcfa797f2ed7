"""Ways to a class activation map, each a function `(network, images, target) -> (B, h, w)`."""

from __future__ import annotations

from torch import Tensor

from lungseg.models.network import LungOutput


def class_map_of(output: LungOutput, target: Tensor) -> Tensor:
    """Closed-form CAM: the class map itself, exact and in the same pass.

    `M_c(x, y) = sum_k (w_ck - mean_c w_ck) f_k(x, y)`, whose pooled value plus bias is the class logit.
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

    Args:
        output: What the network gave for a batch.
        target: (B,) int64 class of each image.

    Returns:
        (B, h, w) float32, any sign.
    """
    index = target.view(-1, 1, 1, 1).expand(-1, 1, *output.class_maps.shape[-2:])
    return output.class_maps.gather(1, index)[:, 0]
