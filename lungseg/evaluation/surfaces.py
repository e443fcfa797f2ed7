"""How far the outlines of two masks lie apart: 95th percentile Hausdorff and average symmetric surface distance."""

from __future__ import annotations

import math

import cv2
import numpy as np

from lungseg.evaluation.statistics import Flags, Floats

_NEIGHBOURS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def measure_surfaces(predicted: Flags, true: Flags, spacing_mm: tuple[float, float] | None = None) -> dict[str, float]:
    """Distances between the outlines of two masks, each measured from centre to centre of its pixels.

    With d(a, B) the distance from a pixel of outline A to the nearest of outline B:

    - `hd95_px`: the greater of the 95th percentiles of d(a, B) and of d(b, A) (linear interpolation; as in MONAI).
    - `asd_px`: mean of all d(a, B) and d(b, A) together (average symmetric surface distance; Heimann et al., IEEE
      Trans. Med. Imaging 2009).
    - `hd95_mm`, `asd_mm`: the same in millimetres.

    Args:
        predicted: (H, W).
        true: (H, W).
        spacing_mm: Height and width of a pixel of these masks; None if not known.

    Returns:
        Distances of 0 or more. All NaN if either mask is empty; those in mm also without a spacing.
    """
    outlines = outline(predicted), outline(true)
    pixels = _scores(*outlines)
    millimetres = (math.nan, math.nan)
    if spacing_mm is not None and spacing_mm[0] == spacing_mm[1]:
        millimetres = pixels[0] * spacing_mm[0], pixels[1] * spacing_mm[0]
    elif spacing_mm is not None:
        millimetres = _scores(*(points * np.array(spacing_mm) for points in outlines))
    return {"hd95_px": pixels[0], "asd_px": pixels[1], "hd95_mm": millimetres[0], "asd_mm": millimetres[1]}


def outline(mask: Flags) -> Floats:
    """Row and column (P, 2) of the pixels of a mask (H, W) with a neighbour, of four, outside of it or of the image."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    inside = cv2.erode(pixels, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(pixels > inside).astype(np.float64)


def _scores(predicted: Floats, true: Floats) -> tuple[float, float]:
    """HD95 and ASD of two outlines (P, 2), in their unit."""
    if not len(predicted) or not len(true):
        return math.nan, math.nan
    ways = _nearest(predicted, true), _nearest(true, predicted)
    hd95 = max(float(np.quantile(way, 0.95)) for way in ways)
    return hd95, float(np.concatenate(ways).mean())


def _nearest(points: Floats, others: Floats) -> Floats:
    """Distance (P,) from each point to the nearest of the others."""
    from scipy.spatial import cKDTree

    distances: Floats = cKDTree(others, leafsize=32).query(points)[0]
    return distances
