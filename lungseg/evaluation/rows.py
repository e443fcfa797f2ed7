"""The rows of per_image.csv: everything known of each image, what is not known as NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lungseg.evaluation.measure import Measured
from lungseg.evaluation.outputs import CamMethod
from lungseg.evaluation.tuning import Tuned, softmax
from lungseg.runs.whole_files import digest


def image_rows(measured: Measured, method: CamMethod, tuned: Tuned | None = None) -> list[dict[str, Any]]:
    """One row an image, in the order of the split.

    `id`, `digest` (of the image's file: runs are compared on the same images), `group`, `label`, `predicted` (both
    empty where unknown), `correct`, `confidence` (probability of the class predicted) and `confidence_scaled` (after
    temperature scaling), `prob_CLASS`; scores of the lung mask under their own names (`dice`, ...) and of the infection
    mask as `infection_...`; then those of the first CAM method.
    """
    probs, broken_logits = measured.probs, measured.broken_logits
    scaled = softmax(measured.logits / tuned.temperature[:, None]) if tuned is not None else np.full_like(probs, np.nan)
    masks = _mask_columns(measured)
    rows = []
    for i, sample in enumerate(measured.samples):
        label, known = int(measured.label[i]), not broken_logits[i]
        predicted = int(probs[i].argmax()) if known else -1
        rows.append(
            {
                "id": sample.id,
                "digest": digest(sample.image),
                "group": sample.group or "",
                "label": measured.classes[label] if label >= 0 else "",
                "predicted": measured.classes[predicted] if known else "",
                "correct": predicted == label if known and label >= 0 else math.nan,
                "confidence": float(probs[i].max()),
                "confidence_scaled": float(scaled[i].max()),
                **{f"prob_{name}": float(probs[i, c]) for c, name in enumerate(measured.classes)},
                **{name: values[i] for name, values in masks.items()},
                "has_infection_mask": sample.infection is not None,
                **measured.maps[method].per_image[i],
            }
        )
    return rows


def _mask_columns(measured: Measured) -> dict[str, list[float | int]]:
    """Columns of length N of every score of masks; counts stay whole numbers."""
    columns: dict[str, list[float | int]] = {}
    for kind, result in measured.masks.items():
        prefix = "" if kind == "lung" else f"{kind}_"
        for name, values in result.found.items():
            column: list[float | int] = [math.nan] * len(measured.samples)
            for index, value in zip(result.index, values.tolist(), strict=True):
                column[index] = value
            columns[prefix + name] = column
    return columns
