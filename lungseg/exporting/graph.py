"""The network with all that surrounds it as one module: grey images of any size in, masks, classes and maps out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lungseg.cam.lung import evidence_in_lungs, mask_to_lung, resize_map
from lungseg.exporting.resampling import letterbox_matrices
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo

INPUT = "image"


class GraphOutputs(NamedTuple):
    """What an exported file gives for B images of H x W pixels; S is the network's size, C the number of classes."""

    mask_probs: Tensor
    """(B, S, S) float32 in [0, 1]: probability of lung."""
    class_probs: Tensor
    """(B, C) float32, rows summing to 1, calibrated by the temperature."""
    class_maps: Tensor
    """(B, C, h, w) float32 raw maps, any sign."""
    label: Tensor
    """(B,) int64: index of the predicted class."""
    lung_map: Tensor
    """(B, S, S) float32 in [0, 1]: map of the predicted class inside the lungs, by its maximum there."""
    evidence_in_lungs: Tensor
    """(B,) float32 in [0, 1]: share of the map's positive evidence in the lungs, before the crop; NaN without any."""
    mask_probs_full: Tensor
    """(B, H, W) float32: `mask_probs` at the image's own size."""
    lung_map_full: Tensor
    """(B, H, W) float32: `lung_map` at the image's own size."""
    square: Tensor
    """(B, S, S) uint8: what the network saw."""


class DeployedNetwork(nn.Module):
    """Pre-processing as `images.read_image` and `geometry.Letterbox` do it, the network, and what is made of its maps.

    Args:
        network: In evaluation mode.
        info: Its square, its letterbox, its temperature.
    """

    def __init__(self, network: LungNetwork, info: ModelInfo):
        super().__init__()
        self.network, self.info = network, info

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run images (B, H, W) uint16, 8-bit ones as they are, deeper ones by their full scale, each by itself.

        The result is `GraphOutputs` as a dictionary, which is what a .pt2 file can hold.
        """
        info = self.info
        size = (info.image_size, info.image_size)
        fit = letterbox_matrices((image.shape[1], image.shape[2]), info.image_size, info.keep_aspect)
        exact = fit.rows @ to_8bit(image) @ fit.columns.T
        square = torch.where(fit.halves, (exact + 0.5).floor(), exact.round()).clamp(0, 255)
        output = self.network(square[:, None] / 255)
        mask_probs = output.mask_logits[:, 0].sigmoid()
        lung = mask_probs > 0.5
        label = output.class_logits.argmax(dim=1)
        chosen = label[:, None] == torch.arange(output.class_maps.shape[1])
        cam = resize_map((output.class_maps * chosen[:, :, None, None]).sum(dim=1), info.map_stride, size)
        lung_map = mask_to_lung(cam, lung)
        found = GraphOutputs(
            mask_probs=mask_probs,
            class_probs=(output.class_logits / info.temperature).softmax(dim=1),
            class_maps=output.class_maps,
            label=label,
            lung_map=lung_map,
            evidence_in_lungs=evidence_in_lungs(cam, lung),
            mask_probs_full=fit.rows_back @ mask_probs @ fit.columns_back.T,
            lung_map_full=fit.rows_back @ lung_map @ fit.columns_back.T,
            square=square.to(torch.uint8),
        )
        return found._asdict()


def to_8bit(image: Tensor) -> Tensor:
    """Scale images (B, H, W) to 0..255 whole numbers, float32, each by the full scale of `dicom.full_scale`.

    Exact: up to 16 bit, neither a product nor a quotient comes near a tie that float32 would miss.
    """
    grey = image.float()
    top = grey.amax(dim=(1, 2), keepdim=True)
    scale = torch.full_like(top, 255.0)
    for bits in (8, 10, 12, 14):
        scale = torch.where(top >= 2**bits, 2.0 ** (bits + 2) - 1, scale)
    return (grey * 255 / scale).round()
