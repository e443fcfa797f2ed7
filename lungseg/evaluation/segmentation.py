"""Scores of predicted masks, image by image, and over all pixels of a set.

Rules for empty masks: both empty scores 1, one empty scores 0, in every score but pixel accuracy, which needs none.
Surface distances are undefined (NaN) where either is empty. `mask_counts` counts the cases.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.lungs_apart import count_components, count_holes, part_like, part_lungs
from lungseg.evaluation.statistics import Flags, Floats, Statistic, divide

OVERLAP_SCORES = ("dice", "iou", "sensitivity", "precision")
PIXEL_COUNTS = ("pixels_overlap", "pixels_predicted", "pixels_true")
SURFACE_SCORES = ("hd95_px", "asd_px", "hd95_mm", "asd_mm")
SIDES = ("image_left", "image_right")  # Of the image as it is drawn, not of the patient.


def measure_masks(
    predicted: Flags, true: Flags, spacing_mm: Floats | None = None, lungs: bool = False
) -> dict[str, NDArray[Any]]:
    """Score masks (B, H, W), one image or more, against the true ones (B, H, W).

    `spacing_mm` is (B, 2) as of `measure_surfaces`; None if all are unknown. `lungs` also scores the left and the right
    lung apart (`part_lungs`, `part_like`).

    Returns:
        (B,) each. float64: `OVERLAP_SCORES` and `pixel_accuracy` in [0, 1], `SURFACE_SCORES`; with `lungs` all but the
        pixel accuracy also as `dice_image_left`, ...: int64: `components`, `holes` of the predicted masks,
        `components_true`, `holes_true`; `pixels_overlap`, `pixels_predicted`, `pixels_true`.
    """
    overlaps = (np.count_nonzero(masks, axis=(1, 2)) for masks in (predicted & true, predicted, true))
    pixels = dict(zip(PIXEL_COUNTS, overlaps, strict=True))
    scores = _ratios(*pixels.values()) | {"pixel_accuracy": (predicted == true).mean(axis=(1, 2))}
    spacings = np.full((len(true), 2), np.nan) if spacing_mm is None else spacing_mm
    rows = [_shape_of(*masks, lungs) for masks in zip(predicted, true, spacings, strict=True)]
    return scores | {name: np.array([row[name] for row in rows]) for name in rows[0]} | pixels


def global_scores(scores: dict[str, NDArray[Any]]) -> Statistic:
    """`dice_global`, `iou_global`, `sensitivity_global`, `precision_global`: over the pixels of all images together.

    They follow from what `measure_masks` gave, of one batch or of several joined; 1 where there is no pixel to count.
    """
    table = np.stack([scores[name] for name in PIXEL_COUNTS], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> dict[str, Floats]:
        overlap, predicted, true = (weights @ table).T
        return {f"{name}_global": value for name, value in _ratios(overlap, predicted, true).items()}

    return statistic


def mask_counts(scores: dict[str, NDArray[Any]]) -> dict[str, int]:
    """How many images the rules for empty masks and unknown spacings touched: `images`, `empty_truth`, ..."""
    predicted, true = scores["pixels_predicted"], scores["pixels_true"]
    flags = {
        "empty_truth": true == 0,
        "empty_prediction": predicted == 0,
        "both_empty": (true == 0) & (predicted == 0),
        "surface_undefined": (true == 0) | (predicted == 0),
        "spacing_unknown": np.isnan(scores["hd95_mm"]) & ~np.isnan(scores["hd95_px"]),
    }
    return {"images": len(true)} | {name: int(np.count_nonzero(flag)) for name, flag in flags.items()}


def _ratios(*pixels: NDArray[np.generic]) -> dict[str, NDArray[Any]]:
    """`OVERLAP_SCORES` by the rules for empty masks, from `PIXEL_COUNTS`, all of one shape."""
    overlap, predicted, true = (counts.astype(np.float64) for counts in pixels)
    ratios = {
        "dice": divide(2 * overlap, predicted + true),
        "iou": divide(overlap, predicted + true - overlap),
        "sensitivity": divide(overlap, true),
        "precision": divide(overlap, predicted),
    }
    empty = (predicted + true == 0).astype(np.float64)
    return {name: np.where(np.isnan(ratio), empty, ratio) for name, ratio in ratios.items()}


def _shape_of(predicted: Flags, true: Flags, spacing_mm: Floats, lungs: bool) -> dict[str, float | int]:
    """What cannot be counted for a whole batch at once: of one image, masks (H, W)."""
    row: dict[str, float | int] = {
        **measure_surfaces(*_cropped(predicted, true), spacing_mm),
        "components": count_components(predicted),
        "holes": count_holes(predicted),
        "components_true": count_components(true),
        "holes_true": count_holes(true),
    }
    if lungs:
        truth = part_lungs(true)
        for side, *masks in zip(SIDES, part_like(predicted, truth), truth, strict=True):
            overlap = _ratios(*(np.array(np.count_nonzero(mask)) for mask in (masks[0] & masks[1], *masks)))
            row |= {f"{name}_{side}": float(value) for name, value in overlap.items()}
            surfaces = measure_surfaces(*_cropped(*masks), spacing_mm)
            row |= {f"{name}_{side}": value for name, value in surfaces.items()}
    return row


def _cropped(predicted: Flags, true: Flags) -> tuple[Flags, Flags]:
    """Both masks (H, W) cut to the box that holds them, for speed; distances do not change."""
    left, top, width, height = cv2.boundingRect((predicted | true).view(np.uint8))
    box = slice(top, top + max(height, 1)), slice(left, left + max(width, 1))
    return predicted[box], true[box]


_NEIGHBOURS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def measure_surfaces(
    predicted: Flags, true: Flags, spacing_mm: Floats | tuple[float, float] = (math.nan, math.nan)
) -> dict[str, float]:
    """Distances between the outlines of two masks, each measured from centre to centre of its pixels.

    With d(a, B) the distance from a pixel of outline A to the nearest of outline B:

    - `hd95_px`: the greater of the 95th percentiles of d(a, B) and of d(b, A) (linear interpolation; as in MONAI).
    - `asd_px`: mean of all d(a, B) and d(b, A) together (average symmetric surface distance; Heimann et al., IEEE
      Trans. Med. Imaging 2009).
    - `hd95_mm`, `asd_mm`: the same in millimetres.

    Masks are (H, W), `spacing_mm` is the height and width of a pixel. All distances are NaN if a mask is empty, those
    in mm also where the spacing is.
    """
    outlines = outline(predicted), outline(true)
    # pixels that are not square need a search of their own: another neighbour may be the nearest
    pixels, (height, width) = _scores(*outlines), map(float, spacing_mm)
    millimetres = pixels[0] * height, pixels[1] * height
    if height != width:
        known = not math.isnan(height + width)
        millimetres = _scores(*(points * (height, width) for points in outlines)) if known else (math.nan, math.nan)
    return {"hd95_px": pixels[0], "asd_px": pixels[1], "hd95_mm": millimetres[0], "asd_mm": millimetres[1]}


def outline(mask: Flags) -> Floats:
    """Row and column (P, 2) of the pixels of a mask (H, W) with a neighbour, of four, outside of it or of the image."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    inside = cv2.erode(pixels, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(pixels > inside).astype(np.float64)


def _scores(predicted: Floats, true: Floats) -> tuple[float, float]:
    """HD95 and ASD of two outlines (P, 2), in their unit."""
    from scipy.spatial import cKDTree

    if not len(predicted) or not len(true):
        return math.nan, math.nan
    pairs = (predicted, true), (true, predicted)
    distances: list[Floats] = [cKDTree(others, leafsize=32).query(points)[0] for points, others in pairs]
    hd95 = max(float(np.quantile(one_way, 0.95)) for one_way in distances)
    return hd95, float(np.concatenate(distances).mean())
