"""Scores of predicted masks, image by image, and over all pixels of a set.

Rules for empty masks: both empty scores 1, one empty scores 0, in every score but pixel accuracy, which needs none.
Surface distances are undefined (NaN) where either is empty. `mask_counts` counts the cases.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.evaluation.lungs_apart import count_components, count_holes, part_like, part_lungs
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide

OVERLAP_SCORES = ("dice", "iou", "sensitivity", "precision")
SURFACE_SCORES = ("hd95_px", "asd_px", "hd95_mm", "asd_mm")
SIDES = ("image_left", "image_right")
"""Of the image as it is drawn, not of the patient."""


def measure_masks(
    predicted: Flags, true: Flags, spacing_mm: Floats | None = None, lungs: bool = False
) -> dict[str, NDArray[Any]]:
    """Score masks (B, H, W) against the true ones.

    Args:
        predicted: (B, H, W), one image or more.
        true: (B, H, W).
        spacing_mm: (B, 2) height and width of a pixel of these masks, NaN where unknown; None if all are.
        lungs: Also score the left and the right lung apart (`part_lungs`, `part_like`).

    Returns:
        (B,) each. float64: `OVERLAP_SCORES` and `pixel_accuracy` in [0, 1], `SURFACE_SCORES`; with `lungs` all but the
        pixel accuracy also as `dice_image_left`, ...: int64: `components`, `holes` of the predicted masks,
        `components_true`, `holes_true`; `pixels_overlap`, `pixels_predicted`, `pixels_true`.
    """
    pixels = _count_pixels(predicted, true)
    found: dict[str, NDArray[Any]] = _overlap_scores(pixels)
    found["pixel_accuracy"] = (predicted == true).mean(axis=(1, 2))
    rows = [_shape_of(predicted[i], true[i], _spacing(spacing_mm, i), lungs) for i in range(len(true))]
    found |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found | pixels


def global_scores(found: dict[str, NDArray[Any]]) -> Statistic:
    """`dice_global`, `iou_global`, `sensitivity_global`, `precision_global`: over the pixels of all images together.

    Args:
        found: What `measure_masks` gave, of one batch or of several joined; 1 where there is no pixel to count.
    """
    names = ("pixels_overlap", "pixels_predicted", "pixels_true")
    table = np.stack([found[name] for name in names], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> dict[str, Floats]:
        overlap, predicted, true = (weights @ table).T
        return {f"{name}_global": value for name, value in _ratios(overlap, predicted, true).items()}

    return statistic


def mask_scores(found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Of what `measure_masks` gave, what a mean over images makes sense of: all but the counts of pixels."""
    return {name: values for name, values in found.items() if not name.startswith("pixels_")}


def mask_counts(found: dict[str, NDArray[Any]]) -> dict[str, int]:
    """How many images the rules for empty masks and unknown spacings touched: `images`, `empty_truth`, ..."""
    predicted, true = found["pixels_predicted"], found["pixels_true"]
    flags = {
        "empty_truth": true == 0,
        "empty_prediction": predicted == 0,
        "both_empty": (true == 0) & (predicted == 0),
        "surface_undefined": (true == 0) | (predicted == 0),
        "spacing_unknown": np.isnan(found["hd95_mm"]) & ~np.isnan(found["hd95_px"]),
    }
    return {"images": len(true)} | {name: int(np.count_nonzero(flag)) for name, flag in flags.items()}


def _count_pixels(predicted: Flags, true: Flags) -> dict[str, Integers]:
    counts = {"overlap": predicted & true, "predicted": predicted, "true": true}
    return {f"pixels_{name}": np.count_nonzero(mask, axis=(1, 2)) for name, mask in counts.items()}


def _overlap_scores(pixels: dict[str, Integers]) -> dict[str, NDArray[Any]]:
    """`OVERLAP_SCORES` (B,) from counts of pixels (B,)."""
    overlap, predicted, true = (
        pixels[name].astype(np.float64) for name in ("pixels_overlap", "pixels_predicted", "pixels_true")
    )
    return dict(_ratios(overlap, predicted, true))


def _ratios(overlap: Floats, predicted: Floats, true: Floats) -> dict[str, Floats]:
    """`OVERLAP_SCORES` by the rules for empty masks; all arguments of one shape."""
    ratios = {
        "dice": divide(2 * overlap, predicted + true),
        "iou": divide(overlap, predicted + true - overlap),
        "sensitivity": divide(overlap, true),
        "precision": divide(overlap, predicted),
    }
    empty = (predicted + true == 0).astype(np.float64)
    return {name: np.where(np.isnan(ratio), empty, ratio) for name, ratio in ratios.items()}


def _spacing(spacing_mm: Floats | None, index: int) -> tuple[float, float] | None:
    if spacing_mm is None or not np.isfinite(spacing_mm[index]).all():
        return None
    return float(spacing_mm[index, 0]), float(spacing_mm[index, 1])


def _shape_of(
    predicted: Flags, true: Flags, spacing_mm: tuple[float, float] | None, lungs: bool
) -> dict[str, float | int]:
    """What cannot be counted for a whole batch at once: of one image, masks (H, W)."""
    row: dict[str, float | int] = {
        **measure_surfaces(*_cropped(predicted, true), spacing_mm),
        "components": count_components(predicted),
        "holes": count_holes(predicted),
        "components_true": count_components(true),
        "holes_true": count_holes(true),
    }
    if lungs:
        row |= _by_side(predicted, true, spacing_mm)
    return row


def _by_side(predicted: Flags, true: Flags, spacing_mm: tuple[float, float] | None) -> dict[str, float]:
    """Scores of each lung of one image."""
    truth = part_lungs(true)
    guess = part_like(predicted, truth)
    row: dict[str, float] = {}
    for side, lungs in zip(SIDES, zip(guess, truth, strict=True), strict=True):
        overlap = _overlap_scores(_count_pixels(lungs[0][None], lungs[1][None]))
        scores = {name: float(value[0]) for name, value in overlap.items()}
        scores |= measure_surfaces(*_cropped(*lungs), spacing_mm)
        row |= {f"{name}_{side}": value for name, value in scores.items()}
    return row


def _cropped(predicted: Flags, true: Flags) -> tuple[Flags, Flags]:
    """Both masks (H, W) cut to the box that holds them, for speed; distances do not change."""
    either = predicted | true
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not len(rows):
        return predicted, true
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return predicted[box], true[box]


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
