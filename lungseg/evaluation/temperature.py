"""Whether probabilities are frequencies, and what is tuned on validation images: a temperature and operating points.

Images count as in `classification`. Val itself is measured by cross-fitting: each half of it with what was chosen on
the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special

from lungseg.evaluation.class_sets import least_probabilities
from lungseg.evaluation.classification import operating_thresholds, usable
from lungseg.evaluation.results import ReliabilityBin
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, mean_defined
from lungseg.runs.calibration import COVERAGE, Calibration

BINS = 15  # Equal-width bins of the confidence, closed above: (0, 1/15], ..., (14/15, 1].
TEMPERATURES = (0.05, 20.0)  # Range in which a temperature is sought.


def calibration_scores(probs: Floats, label: Integers) -> Statistic:
    """Errors of calibration of probs (N, C) in [0, 1] against label (N,), -1 where unknown.

    - `ece`: expected calibration error of the predicted class in `BINS` bins, `sum_b n_b / n |accuracy_b -
      confidence_b|` (Guo et al., ICML 2017). It can only be raised by noise: on few images it is too high.
    - `ece_classwise`: the same of every class's probability against its frequency, mean of the classes (Kull et al.,
      NeurIPS 2019).
    - `brier`: `mean_i sum_c (p_ic - y_ic)^2`, in [0, 2] (Brier, 1950).

    All are undefined without a usable image. Of several findings an image, each known one is a probability and an
    outcome: `ece` is that of all of them, and `brier` the mean of `(p - y)^2`, in [0, 1].
    """
    known, size = usable(probs, label), probs.shape[1]
    if label.ndim == 2:
        return _finding_scores(probs, label)
    probs, label = np.where(known[:, None], probs, 0.0), np.where(known, label, 0)
    truth = np.eye(size)[label]
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == label
    gaps = [_gaps_by_bin(confidence, correct, known)]
    gaps += [_gaps_by_bin(probs[:, index], label == index, known) for index in range(size)]
    brier = np.where(known, np.square(probs - truth).sum(axis=1), 0.0)
    table = np.concatenate([*gaps, brier[:, None], known[:, None]], axis=1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        sums = weights @ table
        total = sums[:, -1]
        errors = divide(np.abs(sums[:, :-2]).reshape(-1, 1 + size, BINS).sum(axis=2), total[:, None])
        return {"ece": errors[:, 0], "ece_classwise": errors[:, 1:].mean(axis=1), "brier": divide(sums[:, -2], total)}

    return statistic


def reliability(probs: Floats, label: Integers) -> list[ReliabilityBin]:
    """The reliability diagram of the predicted class, or of all findings, with NaN for None.

    Arguments as of `calibration_scores`.
    """
    known = usable(probs, label)
    probs, label = probs[known], label[known]
    if label.ndim == 2:
        confidence, correct = probs[label >= 0], label[label >= 0] == 1
    else:
        confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == label
    bins = _bins(confidence)
    images = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, correct)]
    means = [divide(column, images.astype(np.float64)).tolist() for column in sums]
    return list(map(ReliabilityBin, (np.arange(BINS) / BINS).tolist(), images.tolist(), *means))


def fit_temperature(logits: Floats, label: Integers) -> float:
    """Temperature T that minimises the negative log-likelihood of `softmax(logits / T)` (Guo et al., ICML 2017).

    logits are (N, C) of validation images, label is (N,), -1 where unknown. The likelihood is convex in 1 / T: its
    slope is halved down to zero. The prediction never changes. The result lies within `TEMPERATURES`: at its lower end
    if every image is classified right, at its upper one if the logits are worse than chance. 1 if the logits do not
    tell the classes apart at all, NaN if no image has a label and finite logits. Of findings (N, C), of which an image
    may have several, it is the likelihood of all that are known under `sigmoid(logits / T)`.
    """
    known = usable(logits, label)
    if not known.any():
        return math.nan
    slope = (_finding_slope if label.ndim == 2 else _class_slope)(logits[known], label[known])
    if slope(1.0) == 0:
        return 1.0
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(np.clip(1 / (low * high) ** 0.5, *TEMPERATURES))


def _class_slope(logits: Floats, label: Integers) -> Callable[[float], float]:
    """Slope of the mean negative log-likelihood over 1 / T."""
    scores = logits - logits.max(axis=1, keepdims=True)
    true = scores[np.arange(len(label)), label]

    def slope(inverse: float) -> float:
        share = np.exp(scores * inverse)
        return float(((share * scores).sum(axis=1) / share.sum(axis=1) - true).mean())

    return slope


def _finding_slope(logits: Floats, findings: Integers) -> Callable[[float], float]:
    """The same of findings that are decided one by one."""
    scores, truth = logits[findings >= 0], findings[findings >= 0]
    return lambda inverse: float(((scipy.special.expit(scores * inverse) - truth) * scores).mean())


def _finding_scores(probs: Floats, findings: Integers) -> Statistic:
    """`calibration_scores` of findings (N, C), of which an image may have several."""
    known = (findings >= 0) & np.isfinite(probs).all(axis=1, keepdims=True)
    probs, size = np.where(known, probs, 0.0), probs.shape[1]
    gaps = [_gaps_by_bin(probs[:, index], findings[:, index] == 1, known[:, index]) for index in range(size)]
    error = np.where(known, np.square(probs - (findings == 1)), 0.0).sum(axis=1)
    table = np.concatenate([*gaps, known, error[:, None]], axis=1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        sums = weights @ table
        bins, counts, error = sums[:, : size * BINS].reshape(-1, size, BINS), sums[:, size * BINS : -1], sums[:, -1]
        total = counts.sum(axis=1)
        of_class = divide(np.abs(bins).sum(axis=2), counts)
        ece = divide(np.abs(bins.sum(axis=1)).sum(axis=1), total)
        return {"ece": ece, "ece_classwise": mean_defined(of_class), "brier": divide(error, total)}

    return statistic


def _bins(confidence: Floats) -> Integers:
    """Bin (N,) of each probability."""
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")


def _gaps_by_bin(confidence: Floats, correct: Flags, known: Flags) -> Floats:
    """Confidence minus outcome of each image in the column of its bin: (N, BINS), zero elsewhere."""
    table = np.zeros((len(confidence), BINS))
    table[np.arange(len(confidence)), _bins(confidence)] = np.where(known, confidence - correct, 0.0)
    return table


@dataclass(frozen=True)
class Tuned:
    """What N images are measured with."""

    temperature: Floats  # (N,); NaN where there is none.
    thresholds: Floats  # (N, C); NaN where there is none.
    least: Floats  # (N, C), of `class_sets`; NaN where there is none.
    choices: list[Calibration]
    """One for all images, or that of the first and that of the second half; none where nothing is known."""
    on: str  # Where they were chosen, in words; empty where they were not.
    stored: Calibration | None = None  # What is kept with the model: chosen on the whole of Val.


def to_probabilities(logits: Floats, multi_label: bool) -> Floats:
    """Probabilities (N, C) of logits (N, C), by a softmax or each by itself; NaN in a row that is not finite."""
    if not logits.shape[1]:
        return logits
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    clean = np.where(finite, logits, 0.0)
    return np.where(finite, scipy.special.expit(clean) if multi_label else scipy.special.softmax(clean, axis=1), np.nan)


def choose(logits: Floats, label: Integers, sensitivity: float | None) -> Calibration:
    """Fit the temperature to logits (N, C) and label (N,), and find both thresholds of each class.

    Those of a sensitivity (`operating_thresholds`) are of probabilities that are not scaled by the temperature; those
    from which on a class belongs to an image's set (`least_probabilities`) of those that are.
    """
    temperature, several = fit_temperature(logits, label), label.ndim == 2
    thresholds = operating_thresholds(to_probabilities(logits, several), label, sensitivity)
    least = None
    if not (several or math.isnan(temperature)):
        least = least_probabilities(to_probabilities(logits / temperature, several), label)
    return Calibration(temperature, thresholds, sensitivity, least, COVERAGE)


def apply(choice: Calibration, images: int, on: str) -> Tuned:
    """Use what was chosen elsewhere on N images."""
    thresholds, least = (np.tile(values, (images, 1)) for values in (choice.thresholds, _least(choice)))
    return Tuned(np.full(images, choice.temperature), thresholds, least, [choice], on, choice)


def cross_fit(logits: Floats, label: Integers, halves: Integers, sensitivity: float | None) -> Tuned:
    """Use on each half (`halves`: (N,) 0 or 1) what is chosen on the other; other arguments as of `choose`."""
    choices = [choose(logits[halves != half], label[halves != half], sensitivity) for half in (0, 1)]
    temperature = np.array([choice.temperature for choice in choices])[halves]
    thresholds = np.stack([choice.thresholds for choice in choices])[halves]
    least = np.stack([_least(choice) for choice in choices])[halves]
    # The halves choose only to be measured fairly; a user gets what all images of Val choose.
    stored = choose(logits, label, sensitivity)
    return Tuned(temperature, thresholds, least, choices, "each half of the images for the other", stored)


def nothing(images: int, classes: int) -> Tuned:
    """Neither a temperature nor thresholds."""
    unknown = np.full((images, classes), np.nan)
    return Tuned(np.full(images, np.nan), unknown, unknown, [], "")


def _least(choice: Calibration) -> Floats:
    return np.full(len(choice.thresholds), np.nan) if choice.least is None else choice.least
