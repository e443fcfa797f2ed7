"""The letterbox of `data.geometry` as matrices, so that a graph of tensors alone can resize images of any size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Resampling(NamedTuple):
    """Matrices that bring an image (H, W) to the square S, `rows @ image @ columns.T`, and a map of it back."""

    rows: Tensor
    """(S, H) float32; zero where the bars are."""
    columns: Tensor
    """(S, W) float32."""
    rows_back: Tensor
    """(H, S) float32."""
    columns_back: Tensor
    """(W, S) float32."""
    halves: Tensor
    """bool scalar: both sides shrink by exactly 2, which OpenCV rounds half up, and anything else half to even."""


def letterbox_matrices(shape: tuple[int, int], size_px: int, keep_aspect: bool) -> Resampling:
    """The weights that `geometry.Letterbox` gives each pixel.

    Args:
        shape: (H, W) of the image, pixels; may be symbolic, as while a graph is recorded.
        size_px: Side S of the square.
        keep_aspect: The longer side becomes S; false: both do.
    """
    sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in shape]
    longer = torch.maximum(*sides)
    square = torch.arange(size_px)
    there, back, halves = [], [], []
    for length, side in zip(shape, sides, strict=True):
        content = ((2 * side * size_px + longer) // (2 * longer)).clamp_min(1) if keep_aspect else side * 0 + size_px
        position, pixel = square - (size_px - content) // 2, torch.arange(length)
        inside = ((position >= 0) & (position < content)).float()
        there.append(_weights(position, content, pixel, side) * inside[:, None])
        back.append(_weights(pixel, side, position, content) * inside)
        halves.append(side == 2 * content)
    return Resampling(there[0], there[1], back[0], back[1], halves[0] & halves[1])


def _weights(to: Tensor, to_length: Tensor, source: Tensor, source_length: Tensor) -> Tensor:
    """(len(to), len(source)) float32: the share of pixels `source` in pixels `to` of an axis that changes its length.

    With `scale = source_length / to_length` and a pixel's centre `c_i = (i + 0.5) * scale - 0.5`, within the axis:

        w_ij = clamp((max(scale, 1) + 1) / 2 - |c_i - j|, 0, 1) / max(scale, 1)

    which is the overlap of areas (cv2.INTER_AREA) where the axis shrinks and linear interpolation (cv2.INTER_LINEAR)
    where it grows. Whole numbers up to the last division, exact in float32 up to `S * H = 8` million.
    """
    t, s = to_length.float(), source_length.float()
    wider = torch.maximum(s, t)
    centre = torch.minimum(((2 * to.float() + 1) * s - t).clamp_min(0), 2 * t * (s - 1))
    distance = (centre[:, None] - (2 * t * source.float())[None]).abs()
    return torch.minimum((wider + t - distance).clamp_min(0), 2 * t) / (2 * wider)
