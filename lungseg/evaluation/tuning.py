"""What is chosen on validation images and used on others: the temperature, and thresholds for a sensitivity.

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

from lungseg.evaluation.calibration import fit_temperature
from lungseg.evaluation.classification import usable
from lungseg.evaluation.ranking import operating_thresholds
from lungseg.evaluation.weighted import Floats, Integers
from lungseg.reporting.map_tables import without_nan
from lungseg.reporting.whole_files import write_json

FILE = "calibration.json"
"""In the run folder, beside config.yaml."""


class Choice(NamedTuple):
    """What was chosen on some images."""

    temperature: float
    """NaN where none could be fitted."""
    thresholds: Floats
    """(C,) probability from which on an image counts as of the class; NaN for a class without images."""


@dataclass(frozen=True)
class Tuned:
    """What N images are measured with."""

    temperature: Floats
    """(N,); NaN where there is none."""
    thresholds: Floats
    """(N, C); NaN where there is none."""
    choices: list[Choice]
    """One for all images, or that of the first and that of the second half; none where nothing is known."""
    on: str
    """Where they were chosen, in words; empty where they were not."""
    stored: Choice | None = None
    """What is kept with the model: chosen on the whole of Val."""


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, C) of logits (N, C); NaN in a row that is not finite."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    safe = np.where(finite, logits, 0.0)
    shares = np.exp(safe - safe.max(axis=1, keepdims=True))
    probs: Floats = np.where(finite, shares / shares.sum(axis=1, keepdims=True), np.nan)
    return probs


def choose(logits: Floats, label: Integers, sensitivity: float) -> Choice:
    """Fit the temperature, and find for each class the highest threshold that reaches a sensitivity.

    Args:
        logits: (N, C).
        label: (N,), -1 where unknown.
        sensitivity: In (0, 1]; the thresholds are of `softmax(logits)`, not scaled by the temperature.
    """
    temperature = fit_temperature(logits, label) if usable(logits, label).any() else math.nan
    return Choice(temperature, operating_thresholds(softmax(logits), label, sensitivity))


def apply(choice: Choice, images: int, on: str) -> Tuned:
    """Use what was chosen elsewhere on N images."""
    whole = np.full(images, choice.temperature), np.tile(choice.thresholds, (images, 1))
    return Tuned(*whole, [choice], on, choice)


def cross_fit(logits: Floats, label: Integers, halves: Integers, sensitivity: float) -> Tuned:
    """Use on each half what is chosen on the other.

    Args:
        logits: (N, C).
        label: (N,), -1 where unknown.
        halves: (N,) 0 or 1.
        sensitivity: As of `choose`.
    """
    choices = [choose(logits[halves != half], label[halves != half], sensitivity) for half in (0, 1)]
    temperature = np.array([choice.temperature for choice in choices])[halves]
    thresholds = np.stack([choice.thresholds for choice in choices])[halves]
    stored = choose(logits, label, sensitivity)
    return Tuned(temperature, thresholds, choices, "each half of the images for the other", stored)


def nothing(images: int, classes: int) -> Tuned:
    """Neither a temperature nor thresholds."""
    return Tuned(np.full(images, np.nan), np.full((images, classes), np.nan), [], "")


def write_choice(folder: Path, choice: Choice, classes: Sequence[str], about: dict[str, Any]) -> None:
    """Keep what was chosen with the model.

    Args:
        folder: Of the run.
        choice: Chosen on the whole of Val.
        classes: (C,) names.
        about: `split`, `data_fingerprint`, `images`, `sensitivity`, `checkpoint`, `checkpoint_digest`.
    """
    thresholds = dict(zip(classes, choice.thresholds.tolist(), strict=True))
    write_json(folder / FILE, without_nan({"temperature": choice.temperature, "thresholds": thresholds, **about}))


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
    return Choice(float(kept["temperature"]), thresholds), f"{kept['split']} of the data of the training"


def digest(path: Path) -> str:
    """12 hex digits of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
