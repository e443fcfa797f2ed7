"""Means over the trainings of a variant, and differences of them, with intervals that count images and trainings both.

All trainings of a variant are measured on the same images, as all readers of a study in radiology read the same cases,
and the question is that of such studies: what would others of both give? So the variance of a variant's mean score is
that over images (by a bootstrap of the mean over trainings) plus that over trainings (between the seeds of a fold,
divided by their number; Dorfman, Berbaum, Metz, Invest. Radiol. 27, 1992). The interval is the mean and t times the
root of that sum, t being the mean of the normal and Student's quantile, weighted by the variances (Cochran, Biometrics
20, 1964); of a difference the trainings of both variants have Satterthwaite's degrees of freedom. Of normal effects it
covers 94 to 98 %; one t by Satterthwaite for all would give 87 % where two seeds decide, and resampling trainings along
with images counts half of the variance of two seeds, two thirds of three.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lungseg.evaluation.classification import usable
from lungseg.evaluation.comparison import comparable_values, score_statistics
from lungseg.evaluation.intervals import CONFIDENCE, resample, scores_of
from lungseg.evaluation.saved import SavedEvaluation, image_values
from lungseg.evaluation.statistics import Floats, Integers, Statistic, score_set

_SIGNED, _UNBOUND = ("bias", "spearman"), ("hd95", "asd", "components", "holes", "brier")
"""Parts of the names of scores that can be below 0, and above 1; the intervals of others end there."""


class _Estimate(NamedTuple):
    """A mean over trainings."""

    value: float
    image_variance: float
    training_variance: float  # Of the mean; 0 where there is one training alone.
    freedom: float  # Its degrees of freedom.
    seed_sd: float  # Between trainings, on all images; NaN of one.
    fold_sd: float  # Between folds, of the mean over trainings; NaN of one.
    undefined: int


def mean_numbers(
    trainings: Sequence[SavedEvaluation], strata: Integers, replicates: int, seed: int
) -> dict[str, dict[str, float]]:
    """Every score of a variant, by `section/name`.

    Args:
        trainings: Of the same N images, in the same order.
        strata: (N,) fold in which each image was measured.
        replicates: Resamples of the images.
        seed: The same seed draws the same resamples.

    Returns:
        `value`, `low`, `high`, `undefined`, `error_of_images`, `error_of_trainings`, `seed_sd`, `fold_sd`.
    """
    return _numbers(_estimates([trainings], strata, replicates, seed))


def difference_numbers(
    trainings: Sequence[SavedEvaluation],
    baseline: Sequence[SavedEvaluation],
    strata: Integers,
    replicates: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Every score of a variant minus that of the baseline, as of `mean_numbers`, with its `p_value`."""
    return _numbers(_estimates([trainings, baseline], strata, replicates, seed), differences=True)


def statistics_of(run: SavedEvaluation) -> list[Statistic]:
    """All scores of one training, each over the images that define it."""
    return score_statistics(run, image_values(run), usable(run.probs, run.label))[0]


def _estimates(
    terms: Sequence[Sequence[SavedEvaluation]], strata: Integers, replicates: int, seed: int
) -> dict[str, _Estimate]:
    """Mean of the trainings of the first term, minus that of the second if there is one, of every score by name.

    Where there are two, a mean is over the images that all of both define it for.
    """
    runs = [run for term in terms for run in term]
    found = [statistics_of(run) for run in runs]
    if len(terms) == 2:
        known = np.logical_and.reduce([usable(run.probs, run.label) for run in runs])
        pairs = zip(runs, comparable_values(runs), strict=True)
        found = [score_statistics(run, values, known)[0] for run, values in pairs]
    parts, images = (found[: len(terms[0])], found[len(terms[0]) :]), len(strata)
    means = [_mean(part) for part in parts if part]

    def score(weights: Floats) -> dict[str, Floats]:
        first, *second = [mean(weights) for mean in means]
        return {n: first[n] - second[0][n] for n in first if n in second[0]} if second else first

    drawn = resample([score], images, runs[0].groups, replicates, seed)
    whole = score_set(score, images)
    spreads = [_spreads(part, strata) for part in parts if part]
    estimates = {}
    for name, values_drawn in drawn.items():
        of_terms = [spread[name] for spread in spreads]
        variance = sum(spread.variance for spread in of_terms)
        squares = sum(spread.variance**2 / spread.freedom for spread in of_terms)
        defined = values_drawn[~np.isnan(values_drawn)]
        estimates[name] = _Estimate(
            value=whole[name],
            image_variance=float(defined.var(ddof=1)) if len(defined) > 1 else math.nan,
            training_variance=variance,
            freedom=variance**2 / squares if squares else math.inf,
            seed_sd=of_terms[0].seed_sd,
            fold_sd=of_terms[0].fold_sd,
            undefined=len(values_drawn) - len(defined),
        )
    return estimates


def _mean(trainings: Sequence[Sequence[Statistic]]) -> Statistic:
    """The mean over trainings of the scores that all have."""

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = [scores_of(training, weights) for training in trainings]
        shared = [name for name in scores[0] if all(name in each for each in scores)]
        return {name: np.mean([each[name] for each in scores], axis=0) for name in shared}

    return statistic


class _Spread(NamedTuple):
    """Of the trainings of a variant."""

    variance: float  # Of their mean score; 0 of one training.
    freedom: float
    seed_sd: float
    fold_sd: float


def _spreads(trainings: Sequence[Sequence[Statistic]], strata: Integers) -> dict[str, _Spread]:
    """How trainings differ, of every score: between seeds within each fold, as folds have other training images."""
    folds = np.unique(strata)
    weights = np.stack([np.ones(len(strata)), *(strata == fold for fold in folds)]).astype(np.float64)
    scores = [scores_of(training, weights) for training in trainings]
    shares, count = weights[1:].sum(axis=1) / len(strata), len(trainings)
    spreads = {}
    for name in scores[0]:
        table = np.stack([each[name] for each in scores if name in each])  # a row a training: all images, then by fold
        by_fold = table[:, 1:].mean(axis=0)
        fold_sd = float(by_fold.std(ddof=1)) if len(folds) > 1 else math.nan
        if count == 1:
            spreads[name] = _Spread(0.0, math.inf, math.nan, fold_sd)
            continue
        parts = shares**2 * table[:, 1:].var(axis=0, ddof=1) / count
        if np.isnan(parts).any():  # a fold without the images that define the score
            parts = table[:, :1].var(axis=0, ddof=1) / count
        variance, squares = float(parts.sum()), float((parts**2).sum())
        freedom = (count - 1) * variance**2 / squares if squares else math.inf
        spreads[name] = _Spread(variance, freedom, float(table[:, 0].std(ddof=1)), fold_sd)
    return spreads


def _numbers(estimates: Mapping[str, _Estimate], differences: bool = False) -> dict[str, dict[str, float]]:
    """As plain values with 95 % intervals and, of differences, two-sided p-values."""
    numbers: dict[str, dict[str, float]] = {}
    for name, each in estimates.items():
        if math.isnan(each.value) or math.isnan(each.image_variance):
            continue  # a training that does not define it, which `_notes` tells
        variances = [(each.image_variance, math.inf), (each.training_variance, each.freedom)]
        reach = _reach(variances, 1 - CONFIDENCE)
        low, high = each.value - reach, each.value + reach
        if not differences:
            low = low if any(part in name for part in _SIGNED) else max(0.0, low)
            high = high if any(part in name for part in _UNBOUND) else min(1.0, high)
        numbers[name] = {
            "value": each.value,
            "low": low,
            "high": high,
            "undefined": each.undefined,
            "error_of_images": math.sqrt(each.image_variance),
            "error_of_trainings": math.sqrt(each.training_variance),
            "seed_sd": each.seed_sd,
            "fold_sd": each.fold_sd,
        }
        if differences:
            numbers[name]["p_value"] = _p_value(variances, abs(each.value))
    return numbers


def _reach(variances: Sequence[tuple[float, float]], alpha: float) -> float:
    """Half of the interval that leaves out `alpha`, from variances with their degrees of freedom."""
    from scipy.stats import t

    total = sum(variance for variance, _ in variances)
    weighted = sum(variance * float(t.isf(alpha / 2, freedom)) for variance, freedom in variances)
    return weighted / math.sqrt(total) if total else 0.0


def _p_value(variances: Sequence[tuple[float, float]], distance: float) -> float:
    """The `alpha` whose interval just ends at zero."""
    from scipy.optimize import brentq

    least = 1e-12
    # But for rounding nothing varies where there is one patient, say.
    if sum(variance for variance, _ in variances) < 1e-24:
        return math.nan if distance else 1.0
    if distance >= _reach(variances, least):
        return least
    return float(brentq(lambda alpha: _reach(variances, alpha) - distance, least, 1.0))
