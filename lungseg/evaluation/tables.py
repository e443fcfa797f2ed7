"""Which numbers an evaluation is summed up by: their names in metrics.json and their titles."""

from __future__ import annotations

import math
from collections.abc import Mapping

COLUMNS = (
    ("in lungs", "evidence", "evidence_in_lungs"),
    ("hit", "infection", "hit"),
    ("hit, cropped", "infection_in_lungs", "hit"),
    ("IoU Otsu, cropped", "infection_in_lungs", "iou_otsu"),
    ("IoU tuned, cropped", "infection_in_lungs", "iou_tuned"),
    ("energy", "infection", "energy"),
    ("AP", "infection", "average_precision"),
)
"""Heading, what it was measured against, and score."""
HEADLINES: tuple[tuple[str, str, str], ...] = (
    ("segmentation", "dice", "Lung dice, mean over images"),
    ("segmentation", "dice_global", "Lung dice, over all pixels"),
    ("segmentation", "iou", "Lung IoU, mean over images"),
    ("segmentation", "pixel_accuracy", "Pixel accuracy of the lung mask"),
    ("segmentation", "hd95_px", "95 % Hausdorff distance, pixels"),
    ("segmentation", "hd95_mm", "95 % Hausdorff distance, mm"),
    ("segmentation", "asd_px", "Average surface distance, pixels"),
    ("segmentation", "asd_mm", "Average surface distance, mm"),
    ("segmentation", "infection_dice_infected", "Infection dice, mean over images with infection"),
    ("segmentation", "infection_iou_infected", "Infection IoU, mean over images with infection"),
    ("classification", "accuracy", "Accuracy of the class, images"),
    ("classification", "balanced_accuracy", "Balanced accuracy"),
    ("classification", "f1", "F1, mean over classes"),
    ("classification", "auroc", "AUROC, mean over classes"),
    ("classification", "average_precision", "Average precision, mean over classes"),
)
"""Section, name and title of the numbers of the summary and of the LaTeX table."""


def table_lines(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Rows of numbers in [0, 1] as aligned text, a heading line first; `-` where not measured."""
    headings = ["", *next(iter(rows.values()))]
    cells = [[name, *("-" if math.isnan(v) else f"{v:.3f}" for v in row.values())] for name, row in rows.items()]
    widths = [max(len(line[i]) for line in [headings, *cells]) for i in range(len(headings))]
    return [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [headings, *cells]
    ]
