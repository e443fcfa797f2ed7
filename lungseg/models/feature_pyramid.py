"""Finer class maps: encoder stages merged from the deepest up to the stride that the maps shall have."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.errors import UserError


class FeatureMerge(nn.Module):
    """Merges encoder features of several strides, finest first, into one map of `channels` at the finest of them.

    `relu(sum_s up(bn_s(w_s * f_s)))` over the stages: a 1x1 convolution and BatchNorm for each, bilinear upsampling of
    the coarser ones. The lateral connections of Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
    without their 3x3 convolutions, which would blur again what was sharpened.

    What it does not do: features of a fine stride still see far beyond their own pixel.
    """

    def __init__(self, in_channels: Sequence[int], channels: int):
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)) for inner in in_channels
        )

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """(B, K_s, h_s, w_s) of each stage, finest first -> (B, channels, h_0, w_0)."""
        finest, *coarser = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        for stage in coarser:
            finest = finest + F.interpolate(stage, finest.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(finest)


def stages_to_merge(out_channels: Sequence[int], encoder_stride: int, map_stride: int) -> list[int]:
    """Positions of the encoder's stages from `map_stride` to the deepest, finest first; strides are in pixels.

    A UserError where the encoder is no pyramid of halvings (stage i 2**i times smaller than the image), or has no such
    stage.
    """
    deepest = len(out_channels) - 1
    # Encoders with a dilated or a patch-sized stage have no feature map at the strides between.
    if encoder_stride != 2**deepest:
        raise UserError(f"model.map_stride: this encoder is no pyramid of halvings (got {map_stride}); set it to null")
    first = map_stride.bit_length() - 1
    if first > deepest or any(out_channels[i] == 0 for i in range(first, deepest + 1)):
        raise UserError(f"model.map_stride: the encoder's deepest stride is {encoder_stride}, got {map_stride}")
    return list(range(first, deepest + 1))
