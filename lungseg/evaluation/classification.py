"""Scores of the classifier from its probabilities: the confusion matrix, areas under curves, and operating points.

Everywhere `probs` is (N, C) in [0, 1], `label` (N,) with -1 where unknown, and `classes` are the C names. Where an
image may have several classes, or none, `label` is (N, C): 1 there, 0 not there, -1 unknown, and there is no confusion
matrix. Rules: images without a label, and images whose probabilities are not all finite, are left out and counted. The
prediction is the most probable class, the first of equals. A score whose denominator is zero is undefined (NaN); AUROC
and average precision of a class need images of it and of another class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lungseg.evaluation.results import CurvePoints
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, mean_defined


def usable(probs: Floats, label: Integers) -> Flags:
    """Images (N,) that count: a label, and probabilities that are all finite."""
    known = label >= 0 if label.ndim == 1 else (label >= 0).any(axis=1)
    return np.asarray(known & np.isfinite(probs).all(axis=1))


def truth_of(label: Integers, classes: int) -> Integers:
    """(N, C): 1 where an image is of the class, 0 where it is not, -1 where that is unknown."""
    if label.ndim == 2:
        return label
    return np.where(label[:, None] >= 0, label[:, None] == np.arange(classes), -1).astype(np.int64)


def images_by_class(label: Integers, classes: Sequence[str]) -> dict[str, Flags]:
    """Which images (N,) are of each true class."""
    truth = truth_of(label, len(classes))
    return {name: truth[:, index] == 1 for index, name in enumerate(classes)}


def present(groups: dict[str, Flags]) -> dict[str, Flags]:
    """The groups that have an image; there is nothing to say of the others."""
    return {name: members for name, members in groups.items() if members.any()}


def confusion_matrix(probs: Floats, label: Integers) -> Integers:
    """Counts (C, C) of usable images, rows true, columns predicted; all 0 where an image may have several classes."""
    size, known = probs.shape[1], usable(probs, label)
    if label.ndim == 2 or not size:
        return np.zeros((size, size), np.int64)
    cells = label[known] * size + probs[known].argmax(axis=1)
    return np.bincount(cells, minlength=size * size).reshape(size, size).astype(np.int64)


def class_scores(probs: Floats, label: Integers, classes: Sequence[str]) -> Statistic:
    """Scores from the confusion matrix.

    `accuracy`, `balanced_accuracy` (mean sensitivity of the classes present), `f1` (mean of them), and for each class,
    against the rest, `sensitivity_X` (recall), `specificity_X`, `precision_X` (positive predictive value), `f1_X`.
    Undefined: sensitivity and F1 of a class without images, its precision if it is never predicted, its specificity if
    every image is of it.
    """
    # No score needs the single cells of the matrix, whose number is the square of that of the classes.
    known, number = usable(probs, label)[:, None], np.arange(len(classes))
    truth, guesses = (label[:, None] == number) & known, (probs.argmax(axis=1)[:, None] == number) & known
    counts = np.concatenate([truth & guesses, truth, guesses], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> dict[str, Floats]:
        hits, of_class, called = np.split(weights @ counts, 3, axis=1)
        return _confusion_scores(hits, of_class, called, classes)

    return statistic


def class_caveats(probs: Floats, label: Integers, classes: Sequence[str]) -> list[str]:
    """What was left out or is undefined, a sentence each."""
    known, images = usable(probs, label), len(label)
    without = label < 0 if label.ndim == 1 else (label < 0).all(axis=1)
    unlabelled, broken = int(without.sum()), int((~np.isfinite(probs).all(axis=1)).sum())
    caveats = []
    if not classes:
        return ["the network knows no classes: neither they nor class maps are measured"]
    if unlabelled:
        caveats.append(f"{unlabelled} of {images} images have no label: left out of every classification score")
    if broken:
        caveats.append(
            f"{broken} of {images} images have class probabilities that are not finite: left out of every "
            "classification score; check the network"
        )
    if not known.any():
        return [*caveats, "no image has both a label and finite probabilities: classification is not measured"]
    if label.ndim == 2:
        return [*caveats, *_finding_caveats(label[known], classes)]
    matrix = confusion_matrix(probs, label)
    never = [name for index, name in enumerate(classes) if not matrix[:, index].any()]
    for index, name in enumerate(classes):
        of_class, guesses = int(matrix[index].sum()), int(matrix[:, index].sum())
        if not of_class:
            caveats.append(
                f"{name}: no image is of this class; sensitivity, F1, AUROC, average precision are undefined"
            )
        elif of_class == known.sum():
            caveats.append(f"{name}: every image is of this class; specificity, AUROC, average precision are undefined")
        if not guesses and len(never) <= 3:
            caveats.append(f"{name}: never predicted; precision is undefined")
    if len(never) > 3:  # of many classes a network names few at first
        more = f"{', '.join(never[:3])} and {len(never) - 3} more classes"
        caveats.append(f"{more}: never predicted; precision is undefined")
    return caveats


def _finding_caveats(findings: Integers, classes: Sequence[str]) -> list[str]:
    caveats = []
    for index, name in enumerate(classes):
        there, absent, unknown = (int((findings[:, index] == mark).sum()) for mark in (1, 0, -1))
        if unknown:
            caveats.append(f"{name}: unknown in {unknown} of {len(findings)} images, which are left out of its scores")
        if not there or not absent:
            lacking = "no image has it" if not there else "every image has it"
            caveats.append(f"{name}: {lacking}; AUROC and average precision are undefined")
    return caveats


def _confusion_scores(hits: Floats, truth: Floats, guesses: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    """Scores (R,) by name from counts (R, C) of images that are of a class and called it, are of it, are called it."""
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


class _Ranked(NamedTuple):
    """Images from the highest score on."""

    order: Integers  # (N,) image at each rank.
    positive: Flags  # (N,) whether it is of the class.
    ends: Integers  # (K,) last rank of each distinct score; images of equal score count together.


def ranking_scores(probs: Floats, label: Integers, classes: Sequence[str]) -> Statistic:
    """`auroc_X` and `average_precision_X` of each class against the rest, and their means over the defined classes.

    `AUROC = P(s+ > s-) + P(s+ = s-) / 2`; `AP = sum_k (R_k - R_(k-1)) P_k` over the distinct scores.
    """
    truth, finite = truth_of(label, len(classes)), np.asarray(np.isfinite(probs).all(axis=1))
    members = [np.flatnonzero(finite & (truth[:, index] >= 0)) for index in range(len(classes))]
    rankings = [_rank(probs[of, index], truth[of, index] == 1, of) for index, of in enumerate(members)]

    def statistic(weights: Floats) -> dict[str, Floats]:
        areas = np.stack([_areas(ranked, weights) for ranked in rankings], axis=1)  # (2, C, R)
        scores = {}
        for score, values in zip(("auroc", "average_precision"), areas, strict=True):
            scores[score] = mean_defined(values.T)
            scores |= {f"{score}_{name}": values[index] for index, name in enumerate(classes)}
        return scores

    return statistic


def ranking_curves(score: Floats, positive: Flags, points: int = 200) -> tuple[CurvePoints, CurvePoints] | None:
    """ROC curve, false against true positive rate, and precision-recall curve, recall against precision.

    Each starts at the strictest threshold, (0, 0) and (0, 1), and is thinned (`_thin`) to about `points` points and its
    ends. None where there are not images of both kinds. The score (N,) is finite.
    """
    if positive.all() or not positive.any():
        return None
    ranked = _rank(score, positive)
    hits = np.cumsum(ranked.positive)[ranked.ends].astype(np.float64)
    found = ranked.ends + 1.0  # images at or above each distinct score
    misses = found - hits
    threshold = np.concatenate([[np.inf], score[ranked.order][ranked.ends]])
    recall, fallout = (np.concatenate([[0.0], counts / counts[-1]]) for counts in (hits, misses))
    precision = np.concatenate([[1.0], hits / found])
    return _thin(fallout, recall, threshold, points), _thin(recall, precision, threshold, points)


def operating_thresholds(probs: Floats, label: Integers, sensitivity: float | None) -> Floats:
    """For each class (C,) the highest threshold that a share `sensitivity` of its images reaches; NaN without images.

    None: the threshold of the highest F1. Chosen on the images it is measured on, a threshold flatters; choose it on
    validation images.
    """
    truth, finite = truth_of(label, probs.shape[1]), np.isfinite(probs).all(axis=1)
    thresholds = np.full(probs.shape[1], np.nan)
    for index in range(len(thresholds)):
        scores = np.sort(probs[finite & (truth[:, index] == 1), index])[::-1]
        if len(scores) and sensitivity is None:
            called = np.sort(probs[finite & (truth[:, index] >= 0), index])
            f1 = 2 * np.arange(1, len(scores) + 1) / (len(called) - np.searchsorted(called, scores) + len(scores))
            # Of equal scores the last counts: all of them are called.
            thresholds[index] = scores[len(f1) - 1 - int(f1[::-1].argmax())]
        elif len(scores) and sensitivity is not None:
            # less a hair: a product that should be a whole number may come out just above it in floating point
            thresholds[index] = scores[max(0, int(np.ceil(sensitivity * len(scores) - 1e-9)) - 1)]
    return thresholds


def operating_scores(probs: Floats, label: Integers, classes: Sequence[str], thresholds: Floats) -> Statistic:
    """`sensitivity_at_threshold_X`, `specificity_...`, `precision_...`, `f1_...` of fixed thresholds.

    Precision is the positive predictive value; `f1_at_threshold` is the mean of the classes.

    Intervals hold for the thresholds (C,) as they are, not for the choice of them; NaN leaves all three undefined.
    """
    truth = truth_of(label, len(classes))
    known = (truth >= 0) & np.isfinite(probs).all(axis=1, keepdims=True)
    positive, called = (truth == 1) & known, (probs >= thresholds) & known
    set_aside = np.isnan(thresholds)
    counts = np.concatenate([positive, called, positive & called, known], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> dict[str, Floats]:
        there, guesses, hits, total = np.split(weights @ counts, 4, axis=1)
        of_class = _one_against_rest(hits, there, guesses, total)
        of_class["f1"] = np.where(there > 0, divide(2 * hits, there + guesses), np.nan)
        of_class = {score: np.where(set_aside, np.nan, values) for score, values in of_class.items()}
        named = {
            f"{score}_at_threshold_{name}": values[:, i]
            for score, values in of_class.items()
            for i, name in enumerate(classes)
        }
        return {"f1_at_threshold": mean_defined(of_class["f1"])} | named

    return statistic


def _rank(score: Floats, positive: Flags, images: Integers | None = None) -> _Ranked:
    """Rank the images of these numbers; None: those from 0 on."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)
    return _Ranked(order if images is None else images[order], positive[order], ends)


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


def _thin(x: Floats, y: Floats, threshold: Floats, points: int) -> CurvePoints:
    """Keep points evenly spaced along the curve, by |dx| + |dy|, and both ends."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.searchsorted(length, np.linspace(0, length[-1], points + 1)).clip(0, len(length) - 1)
    kept = np.union1d(kept, [0, len(length) - 1])
    return CurvePoints(x[kept].tolist(), y[kept].tolist(), threshold[kept].tolist())
