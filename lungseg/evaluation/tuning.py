"""What is chosen on validation images and used on others: the calibration, and thresholds for a sensitivity.

Val itself is measured by cross-fitting: each half with what was chosen on the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lungseg.evaluation.calibration import Calibration, fit_calibration, softmax
from lungseg.evaluation.classification import usable
from lungseg.evaluation.ranking import operating_thresholds
from lungseg.evaluation.weighted import Floats, Integers
from lungseg.reporting.map_tables import without_nan
from lungseg.reporting.whole_files import write_json

FILE = "calibration.json"
"""In the run folder, beside config.yaml."""


class Choice(NamedTuple):
    """What was chosen on some images."""

    calibration: Calibration
    thresholds: Floats
    """(C,) probability from which on an image counts as of the class; NaN for a class without images."""


@dataclass(frozen=True)
class Tuned:
    """What N images are measured with."""

    probs: Floats
    """(N, C) calibrated probabilities; NaN where there is no calibration."""
    thresholds: Floats
    """(N, C); NaN where there is none."""
    choices: list[Choice]
    """One for all images, or that of the first and that of the second half; none where nothing is known."""
    on: str
    """Where they were chosen, in words; empty where they were not."""
    stored: Choice | None = None
    """What is kept with the model: chosen on the whole of Val."""


def choose(logits: Floats, label: Integers, sensitivity: float) -> Choice:
    """Fit the calibration, and find for each class the highest threshold that reaches a sensitivity.

    Args:
        logits: (N, C).
        label: (N,), -1 where unknown.
        sensitivity: In (0, 1]; the thresholds are of `softmax(logits)`, not calibrated.
    """
    none = Calibration(math.nan, np.zeros(logits.shape[1]))
    calibration = fit_calibration(logits, label) if usable(logits, label).any() else none
    return Choice(calibration, operating_thresholds(softmax(logits), label, sensitivity))


def apply(choice: Choice, logits: Floats, on: str) -> Tuned:
    """Use what was chosen elsewhere on images of logits (N, C)."""
    thresholds = np.tile(choice.thresholds, (len(logits), 1))
    return Tuned(choice.calibration.probs(logits), thresholds, [choice], on, choice)


def cross_fit(logits: Floats, label: Integers, halves: Integers, sensitivity: float) -> Tuned:
    """Use on each half what is chosen on the other.

    Args:
        logits: (N, C).
        label: (N,), -1 where unknown.
        halves: (N,) 0 or 1.
        sensitivity: As of `choose`.
    """
    choices = [choose(logits[halves != half], label[halves != half], sensitivity) for half in (0, 1)]
    probs = np.stack([choice.calibration.probs(logits) for choice in choices])[halves, np.arange(len(halves))]
    thresholds = np.stack([choice.thresholds for choice in choices])[halves]
    stored = choose(logits, label, sensitivity)
    return Tuned(probs, thresholds, choices, "each half of the images for the other", stored)


def nothing(images: int, classes: int) -> Tuned:
    """Neither a calibration nor thresholds."""
    return Tuned(np.full((images, classes), np.nan), np.full((images, classes), np.nan), [], "")


def write_choice(folder: Path, choice: Choice, classes: Sequence[str], about: dict[str, Any]) -> None:
    """Keep what was chosen with the model.

    Args:
        folder: Of the run.
        choice: Chosen on the whole of Val.
        classes: (C,) names.
        about: `split`, `data_fingerprint`, `images`, `sensitivity`, `checkpoint`, `checkpoint_digest`.
    """
    thresholds = dict(zip(classes, choice.thresholds.tolist(), strict=True))
    offsets = dict(zip(classes, choice.calibration.offsets.tolist(), strict=True))
    fitted = {"temperature": choice.calibration.temperature, "class_offsets": offsets}
    write_json(folder / FILE, without_nan({**fitted, "thresholds": thresholds, **about}))


def read_choice(
    folder: Path, classes: Sequence[str], checkpoint: Path, sensitivity: float
) -> tuple[Choice | None, str]:
    """What was kept with the model, and where it was chosen; None, and why, if it cannot be used.

    Args:
        folder: Of the run.
        classes: (C,) names.
        checkpoint: What is evaluated now; it must be what the choice was made for.
        sensitivity: Thresholds of another one are not given.
    """
    path = folder / FILE
    if not path.is_file():
        return None, f"the run has no {FILE} yet; evaluate it on its own data first"
    kept = json.loads(path.read_text())
    if kept.get("checkpoint_digest") != digest(checkpoint):
        return None, f"{FILE} was made for another checkpoint; evaluate this one on its own data first"
    there = kept["thresholds"] if kept.get("sensitivity") == sensitivity else {}
    thresholds = np.array([there[name] if there.get(name) is not None else math.nan for name in classes], np.float64)
    offsets = np.array([kept.get("class_offsets", {}).get(name, 0.0) for name in classes], np.float64)
    calibration = Calibration(float(kept["temperature"]), offsets)
    return Choice(calibration, thresholds), f"{kept['split']} of the data of the training"


def digest(path: Path) -> str:
    """12 hex digits of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
