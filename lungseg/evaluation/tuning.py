"""The temperature and the operating points, chosen on validation images and used on others.

Val itself is measured by cross-fitting: each half with what was chosen on the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lungseg.evaluation.calibration import fit_temperature
from lungseg.evaluation.classification import usable
from lungseg.evaluation.ranking import operating_thresholds
from lungseg.evaluation.statistics import Floats, Integers
from lungseg.runs.calibration import Calibration


@dataclass(frozen=True)
class Tuned:
    """What N images are measured with."""

    temperature: Floats
    """(N,); NaN where there is none."""
    thresholds: Floats
    """(N, C); NaN where there is none."""
    choices: list[Calibration]
    """One for all images, or that of the first and that of the second half; none where nothing is known."""
    on: str
    """Where they were chosen, in words; empty where they were not."""
    stored: Calibration | None = None
    """What is kept with the model: chosen on the whole of Val."""


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, C) of logits (N, C); NaN in a row that is not finite."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    safe = np.where(finite, logits, 0.0)
    shares = np.exp(safe - safe.max(axis=1, keepdims=True))
    probs: Floats = np.where(finite, shares / shares.sum(axis=1, keepdims=True), np.nan)
    return probs


def choose(logits: Floats, label: Integers, sensitivity: float) -> Calibration:
    """Fit the temperature, and find for each class the highest threshold that reaches a sensitivity.

    Args:
        logits: (N, C).
        label: (N,), -1 where unknown.
        sensitivity: In (0, 1]; the thresholds are of `softmax(logits)`, not scaled by the temperature.
    """
    temperature = fit_temperature(logits, label) if usable(logits, label).any() else math.nan
    return Calibration(temperature, operating_thresholds(softmax(logits), label, sensitivity))


def apply(choice: Calibration, images: int, on: str) -> Tuned:
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
