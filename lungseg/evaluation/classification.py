"""Scores of the classifier from its probabilities: the confusion matrix, areas under curves, and operating points.

Everywhere `probs` is (N, C) in [0, 1], `label` (N,) with -1 where unknown, and `classes` are the C names.
Rules: images without a label, and images whose probabilities are not all finite, are left out and counted. The
prediction is the most probable class, the first of equals. A score whose denominator is zero is undefined (NaN); AUROC
and average precision of a class need images of it and of another class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, mean_defined


def usable(probs: Floats, label: Integers) -> Flags:
    """Images (N,) that count: a label, and probabilities that are all finite."""
    return (label >= 0) & np.isfinite(probs).all(axis=1)


def images_by_class(label: Integers, classes: Sequence[str]) -> dict[str, Flags]:
    """Which images (N,) are of each true class."""
    return {name: label == index for index, name in enumerate(classes)}


def present(groups: dict[str, Flags]) -> dict[str, Flags]:
    """The groups that have an image; there is nothing to say of the others."""
    return {name: members for name, members in groups.items() if members.any()}


def confusion_matrix(probs: Floats, label: Integers) -> Integers:
    """Counts (C, C) of usable images, rows true, columns predicted."""
    size = probs.shape[1]
    return np.bincount(_cells(probs, label)[usable(probs, label)], minlength=size * size).reshape(size, size)


def class_scores(probs: Floats, label: Integers, classes: Sequence[str]) -> Statistic:
    """Scores from the confusion matrix.

    `accuracy`, `balanced_accuracy` (mean sensitivity of the classes present), `f1` (mean of them), and for each class,
    against the rest, `sensitivity_X` (recall), `specificity_X`, `precision_X` (positive predictive value), `f1_X`.
    Undefined: sensitivity and F1 of a class without images, its precision if it is never predicted, its specificity if
    every image is of it.
    """
    size, known = len(classes), usable(probs, label)
    cells = np.zeros((len(label), size * size))
    cells[known, _cells(probs, label)[known]] = 1

    def statistic(weights: Floats) -> dict[str, Floats]:
        return _confusion_scores((weights @ cells).reshape(-1, size, size), classes)

    return statistic


def class_caveats(probs: Floats, label: Integers, classes: Sequence[str]) -> list[str]:
    """What was left out or is undefined, a sentence each."""
    known, images = usable(probs, label), len(label)
    unlabelled, broken = int((label < 0).sum()), int((~np.isfinite(probs).all(axis=1)).sum())
    caveats = []
    if unlabelled:
        caveats.append(f"{unlabelled} of {images} images have no label: left out of every classification score")
    if broken:
        caveats.append(
            f"{broken} of {images} images have class probabilities that are not finite: left out of every "
            "classification score; check the network"
        )
    if not known.any():
        return [*caveats, "no image has both a label and finite probabilities: classification is not measured"]
    matrix = confusion_matrix(probs, label)
    for index, name in enumerate(classes):
        of_class, guesses = int(matrix[index].sum()), int(matrix[:, index].sum())
        if not of_class:
            caveats.append(
                f"{name}: no image is of this class; sensitivity, F1, AUROC, average precision are undefined"
            )
        elif of_class == known.sum():
            caveats.append(f"{name}: every image is of this class; specificity, AUROC, average precision are undefined")
        if not guesses:
            caveats.append(f"{name}: never predicted; precision is undefined")
    return caveats


def _cells(probs: Floats, label: Integers) -> Integers:
    """Cell (N,) of the flattened confusion matrix of each image, of no meaning where an image is not usable."""
    cells: Integers = label * probs.shape[1] + np.nan_to_num(probs).argmax(axis=1)
    return cells


def _confusion_scores(counts: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    """Scores (R,) by name from counts (R, C, C), rows true, columns predicted."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    truth, guesses = counts.sum(axis=2), counts.sum(axis=1)
    total = truth.sum(axis=1, keepdims=True)
    of_class = _one_against_rest(hits, truth, guesses, total)
    # a class that has no image must not count as F1 of 0, which its wrong predictions alone would give
    of_class["f1"] = np.where(truth > 0, divide(2 * hits, truth + guesses), np.nan)
    overall = {
        "accuracy": divide(hits.sum(axis=1), total[:, 0]),
        "balanced_accuracy": mean_defined(of_class["sensitivity"]),
        "f1": mean_defined(of_class["f1"]),
    }
    named = {f"{s}_{name}": values[:, i] for s, values in of_class.items() for i, name in enumerate(classes)}
    return overall | named


def _one_against_rest(hits: Floats, truth: Floats, guesses: Floats, total: Floats) -> dict[str, Floats]:
    """Scores (R, C) of each class from the images that are of it, are called it, and both."""
    return {
        "sensitivity": divide(hits, truth),
        "specificity": divide(total - truth - guesses + hits, total - truth),
        "precision": divide(hits, guesses),
    }


class Curve(NamedTuple):
    """Points of a curve, (P,) each, from the strictest threshold on."""

    x: Floats
    y: Floats
    threshold: Floats  # A probability at or above it is positive; infinite at the first point, where nothing is.


class _Ranked(NamedTuple):
    """Images from the highest score on."""

    order: Integers  # (N,) image at each rank.
    positive: Flags  # (N,) whether it is of the class.
    ends: Integers  # (K,) last rank of each distinct score; images of equal score count together.


def ranking_scores(probs: Floats, label: Integers, classes: Sequence[str]) -> Statistic:
    """`auroc_X` and `average_precision_X` of each class against the rest, and their means over the defined classes.

    `AUROC = P(s+ > s-) + P(s+ = s-) / 2`; `AP = sum_k (R_k - R_(k-1)) P_k` over the distinct scores.
    """
    known = usable(probs, label)
    rankings = [_rank(probs[known, index], label[known] == index) for index in range(len(classes))]

    def statistic(weights: Floats) -> dict[str, Floats]:
        counted = weights[:, known]
        areas = np.stack([_areas(ranked, counted) for ranked in rankings], axis=1)  # (2, C, R)
        scores = {}
        for score, values in zip(("auroc", "average_precision"), areas, strict=True):
            scores[score] = mean_defined(values.T)
            scores |= {f"{score}_{name}": values[index] for index, name in enumerate(classes)}
        return scores

    return statistic


def roc_curve(score: Floats, positive: Flags, points: int = 200) -> Curve:
    """False against true positive rate, thinned (`_thin`) to about as many points.

    Args:
        score: (N,) finite.
        positive: (N,).
        points: Most points to keep, besides both ends.

    Returns:
        Starts at (0, 0). No point where there are not images of both kinds.
    """
    if positive.all() or not positive.any():
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    hits, found, threshold = _steps(score, positive)
    misses = found - hits
    rates = [np.concatenate([[0.0], values / values[-1]]) for values in (misses, hits)]
    return _thin(Curve(rates[0], rates[1], np.concatenate([[np.inf], threshold])), points)


def precision_recall_curve(score: Floats, positive: Flags, points: int = 200) -> Curve:
    """Recall against precision; starts at (0, 1), as scikit-learn's. Arguments as of `roc_curve`."""
    if positive.all() or not positive.any():
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    hits, found, threshold = _steps(score, positive)
    recall, precision = np.concatenate([[0.0], hits / hits[-1]]), np.concatenate([[1.0], hits / found])
    return _thin(Curve(recall, precision, np.concatenate([[np.inf], threshold])), points)


def operating_thresholds(probs: Floats, label: Integers, sensitivity: float) -> Floats:
    """For each class the highest threshold that reaches a sensitivity.

    Chosen on the images it is measured on, a threshold flatters; choose it on validation images.

    Args:
        probs: As everywhere.
        label: As everywhere.
        sensitivity: Least share of the images of the class with a probability at or above the threshold, in (0, 1].

    Returns:
        (C,); NaN for a class without images.
    """
    if not 0 < sensitivity <= 1:
        raise UserError(f"the sensitivity of an operating point must lie in (0, 1], got {sensitivity!r}")
    known, thresholds = usable(probs, label), np.full(probs.shape[1], np.nan)
    for index in range(len(thresholds)):
        scores = np.sort(probs[known & (label == index), index])[::-1]
        if len(scores):
            # less a hair: a product that should be a whole number may come out just above it in floating point
            thresholds[index] = scores[max(0, int(np.ceil(sensitivity * len(scores) - 1e-9)) - 1)]
    return thresholds


def operating_scores(probs: Floats, label: Integers, classes: Sequence[str], thresholds: Floats) -> Statistic:
    """`sensitivity_at_threshold_X`, `specificity_...`, `precision_...` (positive predictive value) of fixed thresholds.

    Intervals of them hold for the threshold as it is: they do not know of the choice.

    The thresholds (C,) are those of `operating_thresholds`; NaN leaves all three undefined.
    """
    known = usable(probs, label)[:, None]
    positive = (label[:, None] == np.arange(len(classes))) & known
    called = (probs >= thresholds) & known
    size, set_aside = len(classes), np.isnan(thresholds)
    counts = np.concatenate([positive, called, positive & called, np.repeat(known, size, axis=1)], axis=1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        truth, guesses, hits, total = np.split(weights @ counts.astype(np.float64), 4, axis=1)
        return {
            f"{score}_at_threshold_{name}": np.where(set_aside[i], np.nan, values[:, i])
            for score, values in _one_against_rest(hits, truth, guesses, total).items()
            for i, name in enumerate(classes)
        }

    return statistic


def _rank(score: Floats, positive: Flags) -> _Ranked:
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)
    return _Ranked(order, positive[order], ends)


def _areas(ranked: _Ranked, weights: Floats) -> Floats:
    """AUROC and average precision (2, R) of weighted images (R, N); NaN where one kind has no weight."""
    if not len(ranked.order):
        return np.full((2, len(weights)), np.nan)
    drawn = weights[:, ranked.order]
    found = np.cumsum(drawn, axis=1)
    drawn *= ranked.positive
    hits = np.cumsum(drawn, axis=1)
    if len(ranked.ends) < len(ranked.order):
        found, hits = found[:, ranked.ends], hits[:, ranked.ends]
    gain = np.diff(hits, axis=1, prepend=0)
    truth, total = hits[:, -1], found[:, -1]
    rest = total - truth
    misses = found - hits
    # pairs in the wrong order, a tie half: sum_k gain_k (misses_k + misses_(k-1)) / 2
    lost = np.einsum("rk,rk->r", gain, misses) - 0.5 * np.einsum("rk,rk->r", gain, np.diff(misses, axis=1, prepend=0))
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    both = truth * rest
    auroc = 1 - divide(lost, both)
    return np.stack([auroc, np.where(both > 0, divide(np.einsum("rk,rk->r", gain, precision), truth), np.nan)])


def _steps(score: Floats, positive: Flags) -> tuple[Floats, Floats, Floats]:
    """Positives and images at or above each distinct score, and the scores, descending: (K,) each."""
    ranked = _rank(score, positive)
    hits = np.cumsum(ranked.positive)[ranked.ends].astype(np.float64)
    return hits, (ranked.ends + 1).astype(np.float64), score[ranked.order][ranked.ends]


def _thin(curve: Curve, points: int) -> Curve:
    """Keep points evenly spaced along the curve, by |dx| + |dy|, and both ends."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y)))])
    kept = np.searchsorted(length, np.linspace(0, length[-1], points + 1)).clip(0, len(length) - 1)
    kept = np.union1d(kept, [0, len(length) - 1])
    return Curve(curve.x[kept], curve.y[kept], curve.threshold[kept])
