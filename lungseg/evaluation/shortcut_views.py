"""Images with parts hidden, for the hide-and-seek test: the lungs alone, all but the lungs, the border alone.

What is hidden takes one grey, the mean of what is kept of that image: no hidden pixel has a say in what is left. (The
mean of the whole image would: a white lung raises it.) The limit of any fill: the outline of what was hidden stays to
be seen, and with it the lungs' size and shape, and a network has never seen such a picture, so that its accuracy may
fall for that alone. `box` hides the outline too.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lungseg.data.lungs_apart import squared_distance

BORDER_SHARE = 3 / 32  # Width of the border as a share of the side: what the audit's linear probe sees of it.
MARGIN = 0.02
"""Lungs are kept, or blanked, with this much around them, a share of the side: masks are drawn tight, and what lies at
the edge belongs to the lungs. The same for both, so that together the two views show each pixel once."""
NOTHING_KEPT = 0.5  # Grey of an image of which nothing is kept.


def measure_distance(lung: Tensor) -> Tensor:
    """How far each pixel is from the lungs (B, H, W) bool, exactly, between the centres of pixels.

    (B, H, W) float32, a share of the shorter side; 0 in the lungs, infinite where an image has none.
    """
    side = min(lung.shape[-2:])
    distances = [
        np.sqrt(squared_distance(mask)) / np.float32(side) if mask.any() else np.full(mask.shape, np.inf, np.float32)
        for mask in lung.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(distances)).to(lung.device)


def keep(images: Tensor, kept: Tensor) -> Tensor:
    """Fill all but the pixels kept (B, H, W) bool with the mean grey of these: (B, 1, H, W) float32 in [0, 1].

    An image of which nothing is kept is `NOTHING_KEPT` everywhere.
    """
    kept = kept[:, None]
    count = kept.sum(dim=(1, 2, 3), keepdim=True)
    total = torch.where(kept, images, 0).double().sum(dim=(1, 2, 3), keepdim=True)
    grey = torch.where(count > 0, total / count.clamp_min(1), NOTHING_KEPT).to(images)
    return torch.where(kept, images, grey)


def lungs_only(distance: Tensor, margin: float = MARGIN) -> Tensor:
    """(B, H, W) bool: the lungs dilated by a disc of radius `margin`, a share of the side."""
    return distance <= margin


def lungs_blanked(distance: Tensor, margin: float = MARGIN) -> Tensor:
    """(B, H, W) bool: all but the lungs dilated by `margin`."""
    return distance > margin


def box_blanked(distance: Tensor, margin: float = MARGIN) -> Tensor:
    """(B, H, W) bool: all but the smallest upright rectangle around the dilated lungs, heart and spine with it."""
    hidden = distance <= margin
    rows, columns = hidden.any(dim=2), hidden.any(dim=1)
    return ~(_filled(rows)[:, :, None] & _filled(columns)[:, None, :])


def border_only(distance: Tensor, margin: float = MARGIN) -> Tensor:
    """(B, H, W) bool: the frame of width `BORDER_SHARE`, without the dilated lungs where they reach into it."""
    height, width = distance.shape[-2:]
    thick = max(1, round(BORDER_SHARE * min(height, width)))
    frame = torch.ones(height, width, dtype=torch.bool, device=distance.device)
    frame[thick : height - thick, thick : width - thick] = False
    return frame & (distance > margin)


def all_of_it(distance: Tensor) -> Tensor:
    """(B, H, W) bool: everything."""
    return torch.ones_like(distance, dtype=torch.bool)


VIEWS: dict[str, Callable[..., Tensor]] = {
    "full": all_of_it,
    "lungs": lungs_only,
    "blanked": lungs_blanked,
    "box": box_blanked,
    "border": border_only,
}
"""What each view keeps of an image."""


def _filled(line: Tensor) -> Tensor:
    """(B, n) bool: from the first true value to the last one."""
    return (line.cumsum(1) > 0) & (line.flip(1).cumsum(1).flip(1) > 0)
