"""Scores of the classifier from its probabilities: the confusion matrix and what follows from it.

Rules: images without a label, and images whose probabilities are not all finite, are left out and counted. The
prediction is the most probable class, the first of equals. A score whose denominator is zero is undefined (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, mean_defined


def usable(probs: Floats, label: Integers) -> Flags:
    """Images (N,) that count: a label, -1 where unknown, and probabilities (N, C) that are all finite."""
    return (label >= 0) & np.isfinite(probs).all(axis=1)


def confusion_matrix(probs: Floats, label: Integers) -> Integers:
    """Counts (C, C) of usable images, rows true, columns predicted; probs (N, C) in [0, 1], label (N,), -1 unknown."""
    size = probs.shape[1]
    return np.bincount(_cells(probs, label)[usable(probs, label)], minlength=size * size).reshape(size, size)


def class_scores(probs: Floats, label: Integers, classes: Sequence[str]) -> Statistic:
    """Scores from the confusion matrix.

    `accuracy`, `balanced_accuracy` (mean sensitivity of the classes present), `f1` (mean of them), and for each class,
    against the rest, `sensitivity_X` (recall), `specificity_X`, `precision_X` (positive predictive value), `f1_X`.
    Undefined: sensitivity and F1 of a class without images, its precision if it is never predicted, its specificity if
    every image is of it.

    Args:
        probs: (N, C) in [0, 1].
        label: (N,), -1 where unknown.
        classes: (C,) names.
    """
    size, known = len(classes), usable(probs, label)
    cells = np.zeros((len(label), size * size))
    cells[known, _cells(probs, label)[known]] = 1

    def statistic(weights: Floats) -> dict[str, Floats]:
        return _confusion_scores((weights @ cells).reshape(-1, size, size), classes)

    return statistic


def class_caveats(probs: Floats, label: Integers, classes: Sequence[str]) -> list[str]:
    """What was left out or is undefined, a sentence each; arguments as of `class_scores`."""
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
    of_class = {
        "sensitivity": divide(hits, truth),
        "specificity": divide(total - truth - guesses + hits, total - truth),
        "precision": divide(hits, guesses),
        "f1": np.where(truth > 0, divide(2 * hits, truth + guesses), np.nan),
    }
    whole = {
        "accuracy": divide(hits.sum(axis=1), total[:, 0]),
        "balanced_accuracy": mean_defined(of_class["sensitivity"]),
        "f1": mean_defined(of_class["f1"]),
    }
    named = {f"{s}_{name}": values[:, i] for s, values in of_class.items() for i, name in enumerate(classes)}
    return whole | named
