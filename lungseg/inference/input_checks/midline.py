"""What lies between the lungs: in a frontal view heart, great vessels and spine, bright, a third of the width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.evaluation.lungs_apart import Sides


class Midline(NamedTuple):
    """How wide and how bright what lies between the lungs is."""

    width: float
    """Median over the rows that hold both lungs of its share in the width from lung to lung."""
    contrast: float
    """How much brighter it is than the lungs, in [-1, 1]: the difference of mean ranks of the image's pixels."""


def find_midline(image: NDArray[np.uint8], sides: Sides) -> Midline | None:
    """Measure between two lungs of an image (H, W), which no row need part; None where no row holds both."""
    left, right = sides
    rows = left.any(axis=1) & right.any(axis=1)
    if not rows.any():
        return None
    left, right = left[rows], right[rows]
    columns = np.arange(left.shape[1])
    outer_left, outer_right = left.argmax(axis=1), columns[-1] - right[:, ::-1].argmax(axis=1)
    inner_left, inner_right = columns[-1] - left[:, ::-1].argmax(axis=1), right.argmax(axis=1)
    gaps = np.maximum(inner_right - inner_left - 1, 0)
    width = float(np.median(gaps / np.maximum(outer_right - outer_left + 1, 1)))
    between = (columns > inner_left[:, None]) & (columns < inner_right[:, None])
    if not between.any():
        return Midline(width, 0.0)
    counts = np.bincount(image.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - counts / 2) / image.size)[image]
    return Midline(width, float(ranks[rows][between].mean() - ranks[sides.left | sides.right].mean()))
