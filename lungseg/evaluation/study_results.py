"""Variants of a study against the first: means over trainings, with intervals that count images and trainings both.

All trainings of a variant are measured on the same images, as all readers of a study in radiology read the same cases,
and the question is that of such studies: what would others of both give? So the variance of a variant's mean score is
that over images (by a bootstrap of the mean over trainings) plus that over trainings (between the seeds of a fold,
divided by their number; Dorfman, Berbaum, Metz, Invest. Radiol. 27, 1992). The interval is the mean and t times the
root of that sum, t being the mean of the normal and Student's quantile, weighted by the variances (Cochran, Biometrics
20, 1964). Of normal effects it covers 94 to 98 %; Satterthwaite's degrees of freedom would give 87 % where two seeds
decide, and resampling trainings along with images counts half of the variance of two seeds, two thirds of three.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.classification import usable
from lungseg.evaluation.comparison import TABLE, holm, score_statistics
from lungseg.evaluation.intervals import CONFIDENCE, resample
from lungseg.evaluation.saved import Key, SavedEvaluation, image_values
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic

_SIGNED, _UNBOUND = ("bias", "spearman"), ("hd95", "asd", "components", "holes", "brier")
"""Parts of the names of scores that can be below 0, and above 1; the intervals of others end there."""
REPLICATES = 2_000  # They give a variance, which needs fewer than the ends of an interval.


@dataclass(frozen=True)
class Training:
    """What a variant was trained to once: with one seed on all folds, each image measured where it was not learned."""

    name: str
    evaluation: SavedEvaluation
    fold: Mapping[Key, int]  # In which each image was measured; 0 without folds.
    minutes: float  # Of all its runs.


class _Estimate(NamedTuple):
    """A mean over trainings."""

    value: float
    image_variance: float
    training_variances: tuple[tuple[float, float], ...]
    """Of the mean, and its degrees of freedom: of each variant that has more than one training."""
    seed_sd: float  # Between trainings, on all images; NaN of one.
    fold_sd: float  # Between folds, of the mean over trainings; NaN of one.
    undefined: int


def study_results(
    variants: Mapping[str, Sequence[Training]], replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Compare variants with the first of them.

    Args:
        variants: Trainings of each, at least one.
        replicates: Resamples of the images.
        seed: The same seed draws the same resamples.

    Returns:
        Plain values as of `comparison.compare`, of variants in place of runs; those of a variant also have `seed_sd`
        and `fold_sd`. `cost` has for each variant `trainings`, and `minutes` and `minutes_sd` of one.

    Raises:
        UserError: No variant, other classes, or no image in common.
    """
    if not variants or not all(variants.values()):
        raise UserError("study: no variant has a whole training yet (one seed, all folds); run it first")
    keys, left_out = _common(variants)
    trained = {name: [training.evaluation.only(keys) for training in each] for name, each in variants.items()}
    folds = next(iter(variants.values()))[0].fold
    strata = np.array([folds[key] for key in keys], np.int64)
    baseline, *others = variants
    draw = {"replicates": replicates, "seed": seed}
    content: dict[str, Any] = {
        "what": {
            "images": len(keys),
            "bootstraps": replicates,
            "baseline": baseline,
            "classes": trained[baseline][0].classes,
            "data": sorted(
                {f"{run.setup.split} of {run.setup.data_name}" for each in trained.values() for run in each}
            ),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "runs": {name: {"trainings": len(each)} for name, each in trained.items()},
        },
        "runs": {name: _numbers(_estimates([each], strata, **draw)) for name, each in trained.items()},
        "differences": {
            name: _numbers(_estimates([trained[name], trained[baseline]], strata, **draw), differences=True)
            for name in others
        },
        "cost": {name: _cost(each) for name, each in variants.items()},
    }
    table = _table(content, baseline)
    return {**content, "table": table, "notes": _notes(variants, strata, left_out)}


def _common(variants: Mapping[str, Sequence[Training]]) -> tuple[list[Key], int]:
    """Images that all trainings were measured on, sorted, and how many others there are."""
    runs = [training.evaluation for each in variants.values() for training in each]
    named = [run for run in runs if run.classes]  # a variant may learn masks alone
    for run in named:
        if run.classes != named[0].classes:
            raise UserError(f"{run.folder}: has the classes {run.classes}, {named[0].folder} has {named[0].classes}")
    sets = [set(run.keys) for run in runs]
    common = set.intersection(*sets)
    if not common:
        raise UserError("study: the variants were measured on different images, with none in common")
    return sorted(common), len(set.union(*sets)) - len(common)


def _estimates(
    terms: Sequence[Sequence[SavedEvaluation]], strata: Integers, replicates: int, seed: int
) -> dict[str, _Estimate]:
    """Mean of the trainings of the first term, minus that of the second if there is one, of every score by name.

    Where there are two, a mean is over the images that all of both define it for.
    """
    runs = [run for term in terms for run in term]
    values, known = [image_values(run) for run in runs], [usable(run.probs, run.label) for run in runs]
    if len(terms) == 2:
        values, known = _defined_in_all(values), [np.logical_and.reduce(known)] * len(runs)
    found = [score_statistics(*each)[0] for each in zip(runs, values, known, strict=True)]
    parts, images = (found[: len(terms[0])], found[len(terms[0]) :]), len(strata)
    means = [_mean(part) for part in parts if part]

    def score(weights: Floats) -> dict[str, Floats]:
        first, *second = [mean(weights) for mean in means]
        return {n: first[n] - second[0][n] for n in first if n in second[0]} if second else first

    drawn = resample([score], images, runs[0].groups, replicates, seed)
    whole = score(np.ones((1, images)))
    spreads = [_spreads(part, strata) for part in parts if part]
    estimates = {}
    for name, values_drawn in drawn.items():
        of_terms = [spread[name] for spread in spreads]
        defined = values_drawn[~np.isnan(values_drawn)]
        estimates[name] = _Estimate(
            value=float(whole[name][0]),
            image_variance=float(defined.var(ddof=1)) if len(defined) > 1 else math.nan,
            training_variances=tuple((spread.variance, spread.freedom) for spread in of_terms if spread.variance),
            seed_sd=of_terms[0].seed_sd,
            fold_sd=of_terms[0].fold_sd,
            undefined=len(values_drawn) - len(defined),
        )
    return estimates


def _defined_in_all(values: Sequence[Mapping[str, Floats]]) -> list[dict[str, Floats]]:
    """The columns that all have, NaN in all where one is."""
    names = [name for name in values[0] if all(name in each for each in values)]
    undefined: dict[str, Flags] = {name: np.any([np.isnan(each[name]) for each in values], axis=0) for name in names}
    return [{name: np.where(undefined[name], np.nan, each[name]) for name in names} for each in values]


def _mean(trainings: Sequence[Sequence[Statistic]]) -> Statistic:
    """The mean over trainings of the scores that all have."""

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = [{name: score for one in training for name, score in one(weights).items()} for training in trainings]
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
    scores = [{name: score for one in training for name, score in one(weights).items()} for training in trainings]
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
    numbers = {}
    for name, each in estimates.items():
        if math.isnan(each.value) or math.isnan(each.image_variance):
            continue
        variances = [(each.image_variance, math.inf), *each.training_variances]
        reach = _reach(variances, 1 - CONFIDENCE)
        low, high = each.value - reach, each.value + reach
        if not differences:
            low = low if any(part in name for part in _SIGNED) else max(0.0, low)
            high = high if any(part in name for part in _UNBOUND) else min(1.0, high)
        numbers[name] = {
            "value": each.value,
            "low": low,
            "high": high,
            "p_value": _p_value(variances, abs(each.value)),
            "undefined": each.undefined,
            "error_of_images": math.sqrt(each.image_variance),
            "error_of_trainings": math.sqrt(sum(variance for variance, _ in each.training_variances)),
            "seed_sd": each.seed_sd,
            "fold_sd": each.fold_sd,
        }
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
    if distance >= _reach(variances, least):
        return least if distance else 1.0
    return float(brentq(lambda alpha: _reach(variances, alpha) - distance, least, 1.0))


def _cost(trainings: Sequence[Training]) -> dict[str, float]:
    minutes = np.array([training.minutes for training in trainings])
    sd = float(minutes.std(ddof=1)) if len(minutes) > 1 else math.nan
    return {"trainings": len(minutes), "minutes": float(minutes.mean()), "minutes_sd": sd}


def _table(content: Mapping[str, Any], baseline: str) -> list[dict[str, Any]]:
    """Rows as of `comparison.compare`."""
    runs = content["runs"]
    rows = [
        {"name": name, "title": title, "run": run, "baseline": runs[baseline][name], "own": runs[run][name]}
        | {"difference": differences[name]}
        for name, title in TABLE
        for run, differences in content["differences"].items()
        if name in differences and name in runs[run] and name in runs[baseline]
    ]
    corrected = holm([row["difference"]["p_value"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _notes(variants: Mapping[str, Sequence[Training]], strata: Integers, left_out: int) -> list[str]:
    """What a reader must know."""
    counts = {name: len(each) for name, each in variants.items()}
    folds = len(np.unique(strata))
    baseline = next(iter(variants))
    notes = [f"trainings of each variant: {', '.join(f'{name} {count}' for name, count in counts.items())}"]
    notes[0] += f"; each is {folds} runs, one a fold, and every image is measured by the one that did not learn it" * (
        folds > 1
    )
    notes.append(f"differences are variant minus {baseline}")
    if left_out:
        notes.append(f"{left_out} images are left out, which not all trainings were measured on")
    single = [name for name, count in counts.items() if count == 1]
    if single:
        notes.append(
            f"one training alone of {', '.join(single)}: its intervals count images only, and another seed may move a "
            "number by more than they say; give two seeds or more"
        )
    split = next(iter(variants.values()))[0].evaluation.setup.split
    if split == "val":
        notes.append("the images measured also picked the epoch of each checkpoint, so all numbers flatter a little")
    return [
        *notes,
        "intervals: the mean and Cochran's t times the root of the variance over images (bootstrap) plus that over "
        "trainings (between seeds); p: two-sided, of no difference; p (Holm): corrected for the number of rows",
        "what another collection of training images would change is in no interval, whatever the folds",
    ]
