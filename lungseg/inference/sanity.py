"""Reasons to doubt an input: whether the predicted mask looks like the two lungs of a frontal chest X-ray."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.data.integrity import LEAST_LUNG
from lungseg.evaluation.lungs_apart import part_lungs
from lungseg.inference.prediction import Flag

LEAST_AREA, MOST_AREA = 0.05, 0.6
"""Share of the image that lungs take: between 0.057 and 0.548 in 800 masks of COVID-QU-Ex."""
NOTHING = 0.005
"""Share of the image below which a mask is specks, no lungs."""


def check(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[Flag, ...]:
    """Say what speaks against an image and the lungs predicted in it; empty where nothing does.

    Args:
        image: (H, W) uint8, as it was read.
        mask: (H, W) bool.
    """
    return _check_mask(mask)


def _check_mask(mask: NDArray[np.bool_]) -> tuple[Flag, ...]:
    share = float(mask.mean())
    if share < NOTHING:
        return (Flag("no_lungs", f"no lungs found: the mask covers {share:.1%} of the image", share),)
    flags = []
    if not LEAST_AREA <= share <= MOST_AREA:
        limits = f"{LEAST_AREA:.0%} to {MOST_AREA:.0%}"
        flags.append(Flag("lung_area", f"the lungs cover {share:.1%} of the image, usual are {limits}", share))
    smaller = min(float(side.sum()) for side in part_lungs(mask)) / float(mask.sum())
    if smaller < LEAST_LUNG:
        flags.append(Flag("one_lung", f"one lung only: the smaller side holds {smaller:.1%} of the mask", smaller))
    return tuple(flags)
