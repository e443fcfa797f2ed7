"""Whether probabilities are frequencies: calibration errors, the reliability diagram, and what mends it.

Images count as in `classification`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lungseg.evaluation.classification import usable
from lungseg.evaluation.weighted import Flags, Floats, Integers, Statistic, divide

BINS = 15
"""Equal-width bins of the confidence, closed above: (0, 1/15], ..., (14/15, 1]."""
TEMPERATURES = (0.05, 20.0)
"""Range in which a temperature is sought."""


class Reliability(NamedTuple):
    """The reliability diagram: for each bin of the confidence, (BINS,) each."""

    low: Floats
    """Lower edge of the bin; its upper edge is the next one's."""
    images: Integers
    confidence: Floats
    """Mean probability of the predicted class; NaN in an empty bin."""
    accuracy: Floats
    """Share of right predictions; NaN in an empty bin."""


def calibration_scores(probs: Floats, label: Integers) -> Statistic:
    """Errors of calibration of probs (N, C) in [0, 1] against label (N,), -1 where unknown.

    - `ece`: expected calibration error of the predicted class in `BINS` bins, `sum_b n_b / n |accuracy_b -
      confidence_b|` (Guo et al., ICML 2017). It can only be raised by noise: on few images it is too high.
    - `ece_classwise`: the same of every class's probability against its frequency, mean of the classes (Kull et al.,
      NeurIPS 2019).
    - `brier`: `mean_i sum_c (p_ic - y_ic)^2`, in [0, 2] (Brier, 1950).

    All are undefined without a usable image.
    """
    known, size = usable(probs, label), probs.shape[1]
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
        return {
            "ece": errors[:, 0],
            "ece_classwise": errors[:, 1:].mean(axis=1),
            "brier": divide(sums[:, -2], total),
        }

    return statistic


def reliability(probs: Floats, label: Integers) -> Reliability:
    """The reliability diagram of the predicted class; arguments as of `calibration_scores`."""
    known = usable(probs, label)
    probs, label = probs[known], label[known]
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == label
    bins = _bins(confidence)
    images = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, correct)]
    whole = images.astype(np.float64)
    return Reliability(np.arange(BINS) / BINS, images, divide(sums[0], whole), divide(sums[1], whole))


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, C) of logits (N, C); NaN in a row that is not finite."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    safe = np.where(finite, logits, 0.0)
    shares = np.exp(safe - safe.max(axis=1, keepdims=True))
    probs: Floats = np.where(finite, shares / shares.sum(axis=1, keepdims=True), np.nan)
    return probs


class Calibration(NamedTuple):
    """Probabilities are `softmax(logits / temperature + offsets)`."""

    temperature: float
    """Within `TEMPERATURES`; NaN where nothing could be fitted."""
    offsets: Floats
    """(C,) of mean 0."""

    def probs(self, logits: Floats) -> Floats:
        """Calibrated probabilities (N, C) of logits (N, C); NaN in a row that is not finite."""
        return softmax(logits / self.temperature + self.offsets)


def fit_calibration(logits: Floats, label: Integers) -> Calibration:
    """Minimise the negative log-likelihood, convex in 1 / T and an offset a class, by L-BFGS-B.

    Bias-corrected temperature scaling (Alexandari et al., ICML 2020; the temperature alone: Guo et al., ICML 2017). The
    offsets undo costs of classes in the training, and a share of classes in it that is not that of these images. They
    have a unit normal prior, which holds them where images are few, and are 0 if a class has no image at all.

    Args:
        logits: (N, C) of validation images.
        label: (N,), -1 where unknown.

    Returns:
        A temperature at the lower end of `TEMPERATURES` if every image is classified right, at the upper one if the
        logits are worse than chance; 1 if they do not tell the classes apart at all.

    Raises:
        ValueError: No image has a label and finite logits.
    """
    from scipy.optimize import minimize

    known = usable(logits, label)
    if not known.any():
        raise ValueError("no temperature to fit: none of the validation images has a label and finite logits")
    scores, truth = logits[known] - logits[known].max(axis=1, keepdims=True), label[known]
    images, classes = scores.shape
    right = np.eye(classes)[truth]
    free = len(np.unique(truth)) == classes

    def loss(values: Floats) -> tuple[float, Floats]:
        inverse, offsets = values[0], values[1:]
        probs = softmax(scores * inverse + offsets)
        off = (probs - right) / images
        likely = np.log(np.maximum(probs[right > 0], np.finfo(np.float64).tiny)).mean()
        prior = offsets / images if free else offsets
        return float(-likely + (prior * offsets).sum() / 2), np.array(
            [(off * scores).sum(), *((off.sum(axis=0) if free else 0.0) + prior)]
        )

    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0])] + [(None, None)] * classes
    start = np.array([1.0] + [0.0] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9}).x
    offsets = found[1:] - found[1:].mean()
    return Calibration(_temperature(scores, offsets, right), offsets)


def _temperature(scores: Floats, offsets: Floats, right: Floats) -> float:
    """The temperature for given offsets, its slope halved down to zero: also where that is too flat for a descent."""

    def slope(inverse: float) -> float:
        return float(((softmax(scores * inverse + offsets) - right) * scores).sum(axis=1).mean())

    if slope(1.0) == 0:
        return 1.0
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(np.clip(1 / (low * high) ** 0.5, *TEMPERATURES))


def _bins(confidence: Floats) -> Integers:
    """Bin (N,) of each probability."""
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")


def _gaps_by_bin(confidence: Floats, correct: Flags, known: Flags) -> Floats:
    """Confidence minus outcome of each image in the column of its bin: (N, BINS), zero elsewhere."""
    table = np.zeros((len(confidence), BINS))
    table[np.arange(len(confidence)), _bins(confidence)] = np.where(known, confidence - correct, 0.0)
    return table
