"""Class maps and lungs: bringing a map to the image, keeping it inside the lungs, and saying what that hid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_map(cam: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bring a map of the network to its image, undoing the padding.

    Args:
        cam: (B, h, w) float32; each of its pixels covers `stride` x `stride` input pixels.
        stride: `LungNetwork.stride`.
        size: Height and width of the image, pixels.

    Returns:
        (B, H, W) float32, bilinear between the centres of the map's pixels.
    """
    padded = (cam.shape[-2] * stride, cam.shape[-1] * stride)
    full = F.interpolate(cam[:, None].float(), padded, mode="bilinear", align_corners=False)
    return full[:, 0, : size[0], : size[1]]


def evidence_in_lungs(cam: Tensor, lung: Tensor) -> Tensor:
    """Share of the positive evidence that lies inside the lungs, before any crop.

    `sum(max(cam, 0) * lung) / sum(max(cam, 0))`

    Args:
        cam: (B, H, W) float32 raw map at the lung mask's size, any range.
        lung: (B, H, W) bool.

    Returns:
        (B,) float32 in [0, 1]; NaN where the map holds no positive evidence at all.
    """
    positive = cam.float().clamp_min(0)
    total = positive.sum(dim=(1, 2))
    share = (positive * lung).sum(dim=(1, 2)) / total
    return torch.where(total > 0, share, torch.full_like(share, torch.nan))


def mask_to_lung(cam: Tensor, lung: Tensor) -> Tensor:
    """Keep a map inside the lungs and rescale it to [0, 1] by its maximum there.

    Args:
        cam: (B, H, W) float32 raw map at the lung mask's size, any range; negative evidence is clipped to 0.
        lung: (B, H, W) bool.

    Returns:
        (B, H, W) float32. All zero where the lung is empty or holds no positive evidence.
    """
    inside = cam.float().clamp_min(0) * lung
    peak = inside.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, inside / peak.clamp_min(1e-12), torch.zeros_like(inside))
