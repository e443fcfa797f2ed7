"""A plain U-Net from scratch, as the paper trains it, with the parts of a segmentation_models_pytorch network.

`architecture: PlainUNet` and `encoder: plain` name it; the U-Nets of smp take encoders of image classifiers, which
begin at half of the image's size.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lungseg.config import ModelConfig
from lungseg.errors import check

NAME, ENCODER = "PlainUNet", "plain"
_WIDTH = 32


class PlainUNet(nn.Module):
    """Ronneberger, Fischer, Brox, MICCAI 2015, with padded convolutions and BatchNorm.

    Args:
        config: The section `model`: `encoder_depth` halvings (null: 4), `decoder_channels` one a level, deepest first
            (null: doubling from 32 at the image's size), below which the deepest level has twice the first; `dropout`
            of whole channels in the two deepest levels; `infection` for a second mask.

    Raises:
        UserError: An encoder of another name, or not one number of channels a level.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        check(config.encoder == ENCODER, "model.encoder", f"{ENCODER!r} with architecture {NAME}", config.encoder)
        check(config.drop_path == 0, "model.drop_path", f"0 with architecture {NAME}", config.drop_path)
        depth = config.encoder_depth or 4
        channels = config.decoder_channels or [_WIDTH * 2**level for level in reversed(range(depth))]
        check(len(channels) == depth, "model.decoder_channels", f"a list of {depth} (model.encoder_depth)", channels)
        self.encoder = PlainEncoder([*reversed(channels), 2 * channels[0]], config.dropout)
        self.decoder = PlainDecoder([2 * channels[0], *channels])
        self.segmentation_head = nn.Conv2d(channels[-1], 2 if config.infection else 1, kernel_size=1)


class PlainEncoder(nn.Module):
    """Two 3x3 convolutions a level, then a maximum over 2x2 pixels; gives every level, (B, C_i, H / 2^i, W / 2^i)."""

    def __init__(self, channels: Sequence[int], dropout: float):
        super().__init__()
        self.out_channels, self.output_stride = tuple(channels), 2 ** (len(channels) - 1)
        self.levels = nn.ModuleList()
        for level, (inner, outer) in enumerate(zip([1, *channels], channels, strict=False)):
            halve: list[nn.Module] = [nn.MaxPool2d(2)] if level else []
            drop: list[nn.Module] = [nn.Dropout2d(dropout)] if level >= len(channels) - 2 else []
            self.levels.append(nn.Sequential(*halve, *_convolutions(inner, outer), *drop))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 1, H, W), sides multiples of `output_stride` -> levels, finest first."""
        features = [image]
        for level in self.levels:
            features.append(level(features[-1]))
        return features[1:]


class PlainDecoder(nn.Module):
    """A transposed 2x2 convolution a level, joined with the encoder's level of that size, then two convolutions."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.blocks = nn.ModuleList(_Up(inner, outer) for inner, outer in pairwise(channels))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Levels, finest first -> (B, C_0, H, W)."""
        decoded, *skips = reversed(features)
        for block, skip in zip(self.blocks, skips, strict=True):
            decoded = block(decoded, skip)
        return decoded


class _Up(nn.Module):
    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inner, outer, kernel_size=2, stride=2)
        self.convolutions = nn.Sequential(*_convolutions(2 * outer, outer))

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.convolutions(torch.cat([self.up(decoded), skip], dim=1))
        return joined


def _convolutions(inner: int, outer: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
    return layers
