"""Score-CAM's passes: the class logit of an image seen through each channel of a layer, in chunks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lungseg.cam.lung import resize_map
from lungseg.cam.state import ordinary, undisturbed

CHUNK = 32
"""Most masked images in one pass."""


def channel_scores(
    network: nn.Module, images: Tensor, activation: Tensor, target: Tensor, stride: int, chunk: int = CHUNK
) -> Tensor:
    """Class logit of each image times each channel's activation, upsampled and scaled to [0, 1] over the image.

    Args:
        network: A `LungNetwork`.
        images: (B, 1, H, W) float32 in [0, 1].
        activation: (B, K, h, w) any dtype and range; a channel that is the same everywhere gives a black image.
        target: (B,) int64 class of each image.
        stride: Input pixels per pixel of the activation.
        chunk: Most masked images in one pass; B * K passes' worth in all.

    Returns:
        (B, K) float32.
    """
    count, channels = activation.shape[:2]
    size = (images.shape[-2], images.shape[-1])
    scores = []
    with undisturbed(network) as plain, torch.no_grad():
        images, target = ordinary(images), ordinary(target)
        for part in torch.split(torch.arange(count * channels, device=images.device), chunk):
            image, channel = part // channels, part % channels
            masks = _to_unit_range(resize_map(activation[image, channel], stride, size))
            class_logits = plain(images[image] * masks[:, None]).class_logits
            scores.append(class_logits.gather(1, target[image, None])[:, 0])
    return torch.cat(scores).view(count, channels)


def _to_unit_range(maps: Tensor) -> Tensor:
    """(N, H, W) float32, each map from its minimum at 0 to its maximum at 1."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + 1e-8)
