"""Class maps and lungs: bringing a map to the image, keeping it inside the lungs, and saying what that hid.

`inference.preprocess` has the NumPy forms of `resize_map` and `evidence_in_lungs`, which predict without torch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_map(cam: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bring maps of the network to their images, undoing the padding.

    Each pixel of the maps (B, h, w) covers `stride` x `stride` of the image, whose height and width are `size` pixels.
    The result is (B, H, W) float32, bilinear between the centres of the map's pixels.
    """
    padded = (cam.shape[-2] * stride, cam.shape[-1] * stride)
    full = F.interpolate(cam[:, None].float(), padded, mode="bilinear", align_corners=False)
    return full[:, 0, : size[0], : size[1]]


def evidence_in_lungs(cam: Tensor, lung: Tensor) -> Tensor:
    """Share of the positive evidence of raw maps (B, H, W) that lies inside the lungs (B, H, W) bool, before any crop.

    `sum(max(cam, 0) * lung) / sum(max(cam, 0))`: (B,) float32 in [0, 1]; NaN where a map holds no positive evidence.
    """
    positive = cam.float().clamp_min(0)
    total = positive.sum(dim=(1, 2))
    share = (positive * lung).sum(dim=(1, 2)) / total
    return torch.where(total > 0, share, torch.full_like(share, torch.nan))


def mask_to_lung(cam: Tensor, lung: Tensor) -> Tensor:
    """Keep raw maps (B, H, W) inside the lungs (B, H, W) bool and rescale them to [0, 1] by their maximum there.

    Negative evidence is clipped to 0. (B, H, W) float32, all zero where the lung is empty or holds no evidence.
    """
    inside = cam.float().clamp_min(0) * lung
    peak = inside.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, inside / peak.clamp_min(1e-12), torch.zeros_like(inside))


MOSTLY_OUTSIDE = 0.5  # Below this share of evidence inside the lungs a cropped map carries a warning.


class Evidence(NamedTuple):
    """Account of a batch of maps, each field (B,). Only evidence above zero counts.

    Without any (or if a map is not finite) shares and peak are NaN and both flags false. An empty lung mask holds
    nothing: share 0, area 0, sides NaN, `evidence_outside` true. "Left" and "right" are those of the image as it is
    drawn: in a frontal view its left is the patient's right.
    """

    evidence_in_lungs: Tensor  # float32 in [0, 1]: evidence inside the lungs over all evidence, before any crop.
    evidence_outside: Tensor  # bool: `evidence_in_lungs` lies below `MOSTLY_OUTSIDE`.
    lung_area: Tensor
    """float32 in [0, 1]: lung pixels over all pixels, which is also a uniform map's `evidence_in_lungs`. Never NaN."""
    peak_row_px: Tensor  # float32: row of the maximum, from 0 at the top; of several maxima the first in reading order.
    peak_column_px: Tensor  # float32: its column, from 0 at the image's left.
    peak_in_lungs: Tensor  # bool: that pixel belongs to the lungs.
    evidence_image_left: Tensor
    """float32 in [0, 1]: share of the evidence inside the lungs left of the vertical line through the lung mask's
    centroid; a column on that very line counts half to each side. NaN without evidence inside the lungs."""
    evidence_image_right: Tensor  # float32 in [0, 1]: the rest of it.


def describe_evidence(cam: Tensor, lung: Tensor, known: Tensor | None = None) -> Evidence:
    """Say how much of the evidence of raw maps (B, H, W) float32 lies in the lungs (B, H, W) bool, and where.

    Where the lungs are not `known` (B,), neither true ones nor predicted ones, nothing is said: as without evidence.
    """
    positive = cam.float().clamp_min(0)
    if known is not None:
        positive = positive * known.view(-1, 1, 1)
    share = evidence_in_lungs(positive, lung)
    found = share.isfinite()
    peak = positive.flatten(1).argmax(1)
    width = cam.shape[-1]
    left = _share_left(positive, lung)
    return Evidence(
        evidence_in_lungs=share,
        evidence_outside=share < MOSTLY_OUTSIDE,
        lung_area=lung.float().mean(dim=(1, 2)),
        peak_row_px=torch.where(found, peak // width, torch.nan),
        peak_column_px=torch.where(found, peak % width, torch.nan),
        peak_in_lungs=lung.flatten(1).gather(1, peak[:, None])[:, 0] & found,
        evidence_image_left=left,
        evidence_image_right=1 - left,
    )


def _share_left(positive: Tensor, lung: Tensor) -> Tensor:
    """Share (B,) float32 of the evidence in the lungs left of the mask's centroid, NaN without any."""
    column = torch.arange(lung.shape[-1], device=lung.device)
    area = lung.sum(dim=1)  # (B, W) pixels
    side = ((area * column).sum(1, keepdim=True) - area.sum(1, keepdim=True) * column).sign()  # integers: exact
    evidence = (positive * lung).sum(dim=1)
    return (evidence * (0.5 + 0.5 * side)).sum(dim=1) / evidence.sum(dim=1)
