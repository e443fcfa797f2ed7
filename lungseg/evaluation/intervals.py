"""Bootstrap percentile intervals of any weighted scores, and paired differences between two runs on the same images.

Images are drawn with replacement (Efron, Ann. Statist. 1979); where images belong together (one patient), whole groups
are (cluster bootstrap; Davison and Hinkley 1997, 3.8). A score that noise can only raise, as the calibration error, is
higher in resamples than in the set: its interval lies high, and may even begin above the value of a small error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.statistics import Floats, Integers, Statistic, score_set

CONFIDENCE = 0.95
REPLICATES = 10_000
_CHUNK = 2**19  # Weights held at a time (4 MiB): bounds memory, whatever the number of images and replicates.


class Interval(NamedTuple):
    """A score of a set of images and the range in which 95 % of its resamples lie."""

    value: float  # NaN where it is undefined.
    low: float
    high: float  # NaN, as `low`, where no resample defines the score. With one image (or one group) both equal `value`.
    undefined: int
    """Resamples that do not define the score (a class that was not drawn); the interval is that of the others."""


@dataclass(frozen=True)
class Number:
    """An interval as it stands in results: None for what is undefined, and how many images are behind a mean."""

    value: float | None  # None where it is undefined.
    low: float | None
    high: float | None  # None, as `low`, where no resample defines the score.
    undefined: int  # Resamples that do not define the score; the interval is that of the others.
    images: int | None = None
    """Images behind a mean; None for scores that are no mean over images."""


Numbers = dict[str, Number]
"""By the name of the score, as `dice`, `dice_Normal` (over the images of a class), `infection_dice_infected`."""


def numbers_of(intervals: Mapping[str, Interval], images: Mapping[str, int] | None = None) -> Numbers:
    """Numbers by name; `images` gives how many are behind those that are means."""
    counts = images or {}
    return {name: Number(*interval, counts.get(name)) for name, interval in intervals.items()}


class Difference(NamedTuple):
    """First minus second on the same resamples."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided: twice the share of resamples on the far side of zero (zero included), at most 1 and at least
    2 / (replicates + 1); 1 if both are the same; NaN if undefined."""
    undefined: int


def bootstrap(
    statistics: Sequence[Statistic],
    images: int,
    groups: Sequence[str | None] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of all scores, from the same resamples.

    Args:
        statistics: Functions of image weights; no two give the same name.
        images: N, 1 or more.
        groups: (N,) patient or study of each image; None: not known, the image stands for itself.
        replicates: Resamples to draw.
        seed: The same seed draws the same resamples.
    """
    values = _set_scores(statistics, images)
    drawn = resample(statistics, images, groups, replicates, seed)
    return {name: Interval(value, *_limits(drawn[name])) for name, value in values.items()}


def bootstrap_differences(
    first: Sequence[Statistic],
    second: Sequence[Statistic],
    images: int,
    groups: Sequence[str | None] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired differences, first minus second, of the scores that both have, arguments as of `bootstrap`.

    For means of values that an image may lack, see `defined_in_all`.
    """
    values = _set_scores(first, images), _set_scores(second, images)
    both = [name for name in values[0] if name in values[1]]

    def difference(weights: Floats) -> dict[str, Floats]:
        scores = scores_of(first, weights), scores_of(second, weights)
        return {name: scores[0][name] - scores[1][name] for name in both}

    drawn = resample([difference], images, groups, replicates, seed)
    found = {}
    for name in both:
        value, (low, high, undefined) = values[0][name] - values[1][name], _limits(drawn[name])
        found[name] = Difference(value, low, high, _p_value(value, drawn[name]), undefined)
    return found


def resample(
    statistics: Sequence[Statistic],
    images: int,
    groups: Sequence[str | None] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Floats]:
    """Every score of every resample, (replicates,) by name, NaN where one does not define it; arguments as above."""
    draws = draw_weights(images, groups, replicates, seed)
    chunks = [scores_of(statistics, weights) for weights in draws]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def scores_of(statistics: Sequence[Statistic], weights: Floats) -> dict[str, Floats]:
    """Scores (R,) of all statistics, for weights (R, N) of N images."""
    return {name: value for statistic in statistics for name, value in statistic(weights).items()}


def defined_in_all(runs: Sequence[Mapping[str, Floats]]) -> list[dict[str, Floats]]:
    """Per-image values (N,) of runs, of the names they share; NaN in all where one is, so that means pair."""
    shared = [name for name in runs[0] if all(name in values for values in runs)]
    undefined = {name: np.any([np.isnan(values[name]) for values in runs], axis=0) for name in shared}
    return [{name: np.where(undefined[name], np.nan, values[name]) for name in shared} for values in runs]


def draw_weights(
    images: int, groups: Sequence[str | None] | None, replicates: int, seed: int, chunk: int = _CHUNK
) -> Iterator[Floats]:
    """How often each image is in each resample: chunks (r, N) float64, `replicates` rows in all.

    A chunk has at most `chunk` weights, but at least a row; what is drawn does not depend on it.
    """
    members = _group_index(images, groups)
    count = images if members is None else int(members.max()) + 1
    generator, rows = np.random.default_rng(seed), max(1, chunk // images)
    for start in range(0, replicates, rows):
        row = np.arange(min(rows, replicates - start))[:, None]
        drawn = generator.integers(0, count, (len(row), count)) + row * count
        weights = np.bincount(drawn.ravel(), minlength=len(row) * count).reshape(len(row), count).astype(np.float64)
        yield weights if members is None else weights[:, members]


def _group_index(images: int, groups: Sequence[str | None] | None) -> Integers | None:
    """Number (N,) of the group of each image; None if every image stands for itself."""
    if images < 1:
        raise UserError(f"an interval needs at least one image, got {images}; choose a split that has images")
    if groups is None or all(group is None for group in groups):
        return None
    if len(groups) != images:
        raise UserError(f"groups must name the group of each of {images} images, got {len(groups)}")
    numbers: dict[str | int, int] = {}
    names = [index if group is None else group for index, group in enumerate(groups)]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _set_scores(statistics: Sequence[Statistic], images: int) -> dict[str, float]:
    scores: dict[str, float] = {}
    for statistic in statistics:
        found = score_set(statistic, images)
        if twice := scores.keys() & found.keys():
            raise UserError(f"statistics must give each name once, got {sorted(twice)[0]!r} twice; rename one")
        scores |= found
    return scores


def _limits(drawn: Floats) -> tuple[float, float, int]:
    """Both ends of the interval, and the resamples that are not in it."""
    defined = drawn[~np.isnan(drawn)]
    undefined = len(drawn) - len(defined)
    if not len(defined):
        return math.nan, math.nan, undefined
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high), undefined


def _p_value(value: float, drawn: Floats) -> float:
    defined = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(defined):
        return math.nan
    far = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return min(1.0, 2 * (far + 1) / (len(defined) + 1))
