"""How much of the lungs is infected: of the whole, of each lung, and of upper, middle and lower zones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.data.lungs_apart import LEAST_LUNG, Flags, Sides


class Severity(NamedTuple):
    """Infected share in [0, 1] of the lungs and of their parts; None where there is no such part.

    Zones are those of the Brixia score without landmarks (Borghesi, Maroldi, La radiologia medica 125 (2020), 509-513,
    doi 10.1007/s11547-020-01200-3): each lung by itself is divided into three zones of equal height. Specks above or
    below a lung, less than `LEAST_LUNG` of it, do not stretch its height; they count to the zone that is nearest.
    """

    lungs: float | None  # Both together.
    left: float | None  # The patient's left: in a frontal view on the right of the image.
    right: float | None
    upper: float | None  # The upper zones of both lungs together.
    middle: float | None
    lower: float | None


def severity_of(lungs: Sides, infection: Flags) -> Severity:
    """Shares of lungs, as `part_lungs` parts them, inside an infection mask (H, W); beside the lungs nothing counts."""
    counts = np.stack([_count_zones(lung, infection) for lung in lungs])  # (side of the image, zone, 2)
    image_left, image_right = counts.sum(axis=1)
    parts = (counts.sum(axis=(0, 1)), image_right, image_left, *counts.sum(axis=0))
    return Severity(*(float(infected / pixels) if pixels else None for pixels, infected in parts))


def _count_zones(lung: Flags, infection: Flags) -> NDArray[np.float64]:
    """(3, 2): pixels of the upper, middle and lower zone of one lung (H, W), and how many of them are infected."""
    widths = lung.sum(axis=1)
    rows = np.flatnonzero(widths)
    if len(rows) == 0:
        return np.zeros((3, 2))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)  # between them are rows without lung
    runs = [run for run in runs if widths[run].sum() >= LEAST_LUNG * widths.sum()] or runs
    top, bottom = runs[0][0], runs[-1][-1] + 1
    zones = np.clip(3 * (np.arange(len(lung)) - top) // (bottom - top), 0, 2)
    by_row = (widths, (lung & infection).sum(axis=1))
    return np.stack([np.bincount(zones, weights=count, minlength=3) for count in by_row], axis=1)
