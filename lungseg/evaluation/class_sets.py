"""When not to name one class: sets that hold the true one as often as promised, and images left to a person.

Both are for classes that exclude each other. Images count as in `classification`.
"""

from collections.abc import Sequence

import numpy as np

from lungseg.evaluation.classification import images_by_class, present, usable
from lungseg.evaluation.results import CurvePoints
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, means
from lungseg.runs.calibration import COVERAGE

ANSWERED = (0.8, 0.9)  # Shares of the images, the surest ones, of which the accuracy is reported.
_MOST_POINTS = 200  # Of a curve.


def least_probabilities(probs: Floats, label: Integers, coverage: float = COVERAGE) -> Floats:
    """The probability (C,) from which on a class belongs to an image's set.

    Split conformal prediction for each class by itself: of the n images of class c the m-th lowest p_c, with
    m = floor((n + 1) (1 - coverage)). Of further images of the class, drawn like these, at least the share `coverage`
    reaches it, whatever the network is worth; sets are the smaller the better it is. With too few images (8 for 0.9) it
    is 0: a class of which so little is known can never be excluded.

    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012; Sadinle, Lei, Wasserman, "Least ambiguous
    set-valued classifiers with bounded error levels", JASA 2019.

    Args:
        probs: (N, C) in [0, 1].
        label: (N,), -1 where unknown.
        coverage: In (0, 1).
    """
    known, least = usable(probs, label), np.zeros(probs.shape[1])
    for index in range(len(least)):
        of_class = np.sort(probs[known & (label == index), index])
        below = int((len(of_class) + 1) * (1 - coverage) + 1e-9)  # 1 - 0.9 is a little less than 0.1
        least[index] = of_class[below - 1] if below else 0.0
    return least


def class_sets(probs: Floats, least: Floats) -> Flags:
    """Which classes (N, C) belong to the set of each image: those that reach `least`, and always the likeliest one.

    The likeliest is added so that no set is empty, which makes none smaller and no promise less true.
    """
    likeliest = np.nan_to_num(probs).argmax(axis=1)
    return np.asarray((probs >= least) | (likeliest[:, None] == np.arange(probs.shape[1])))


def set_scores(probs: Floats, label: Integers, least: Floats, classes: Sequence[str]) -> Statistic:
    """Means over all images and over those of each class; `least` is (N, C).

    `set_coverage`: the set holds the true class; `set_size`: how many classes it has; `set_single`: it has only one.
    """
    known = usable(probs, label) & ~np.isnan(least).any(axis=1)
    sets = class_sets(probs, least)
    size = np.where(known, sets.sum(axis=1), np.nan)
    values = {
        "set_coverage": np.where(known, sets[np.arange(len(label)), np.where(known, label, 0)], np.nan),
        "set_size": size,
        "set_single": np.where(known, size == 1, np.nan),
    }
    return means(values, present(images_by_class(label, classes)))


def selective_scores(probs: Floats, label: Integers) -> Statistic:
    """What answering only the surest images gains, sure meaning the probability of the likeliest class.

    - `risk_coverage_area`: mean over the images of the share of errors among those at least as sure. 0 is no error; the
      error rate itself is what a confidence gives that has nothing to do with being right (Geifman, El-Yaniv,
      "Selective classification for deep neural networks", NeurIPS 2017).
    - `accuracy_answered_80`, `accuracy_answered_90`: of that share (per cent) of the images.
    """
    known = usable(probs, label)
    order, ends = _by_confidence(probs[known])
    wrong = (probs[known].argmax(axis=1) != label[known])[order].astype(np.float64)

    def statistic(weights: Floats) -> dict[str, Floats]:
        drawn = weights[:, known][:, order]
        answered, errors = drawn.cumsum(axis=1)[:, ends], (drawn * wrong).cumsum(axis=1)[:, ends]
        total, risk = drawn.sum(axis=1), divide(errors, answered)
        scores = {"risk_coverage_area": divide((drawn * np.nan_to_num(risk)).sum(axis=1), total)}
        for share in ANSWERED:
            # The first at which so many are answered; rounding must not ask for one more.
            enough = (answered < share * total[:, None] - 1e-9).sum(axis=1).clip(max=max(len(ends) - 1, 0))
            scores[f"accuracy_answered_{round(100 * share)}"] = 1 - risk[np.arange(len(risk)), enough]
        return scores

    return statistic


def answered_curve(probs: Floats, label: Integers) -> CurvePoints:
    """Accuracy (y) of the share of images (x) that are answered from a confidence (threshold) on, surest first."""
    known = usable(probs, label)
    probs, label = probs[known], label[known]
    order, ends = _by_confidence(probs)
    right = (probs.argmax(axis=1) == label)[order].cumsum()
    ends = np.unique(ends)
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, _MOST_POINTS).round().astype(int))] if len(ends) else ends
    x, y = (ends + 1) / max(len(order), 1), right[ends] / (ends + 1)
    return CurvePoints(x.tolist(), y.tolist(), probs.max(axis=1)[order][ends].tolist() if len(ends) else [])


def _by_confidence(probs: Floats) -> tuple[Integers, Integers]:
    """The images (N,) from the surest on, and for each place the last one (N,) of those as sure, answered together."""
    confidence = probs.max(axis=1, initial=0.0)
    order = np.argsort(-confidence, kind="stable")
    falling = -confidence[order]
    return order, np.searchsorted(falling, falling, side="right") - 1
