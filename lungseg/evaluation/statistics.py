"""Scores as functions of how often each image counts, so that one draw of a bootstrap serves every number.

With a weight of one an image the score is the value of the set; with the counts of a draw it is that of a resample.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Statistic = Callable[[Floats], dict[str, Floats]]
"""From weights (R, N) of N images, whole numbers of 0 or more, to scores (R,) by name; NaN where one is undefined."""


def means(values: Mapping[str, NDArray[np.generic]], groups: Mapping[str, Flags] | None = None) -> Statistic:
    """Mean of each value over the images where it is defined, and over those of each group.

    Values are (N,) finite numbers or flags, NaN for an image that they are not defined for, groups are (N,) flags; the
    mean of `dice` over the group `Normal` is named `dice_Normal`.
    """
    columns = dict(_columns(values, groups))
    table = np.stack(list(columns.values()), axis=1) if columns else np.zeros((0, 0))
    defined = (~np.isnan(table)).astype(np.float64)
    filled = np.nan_to_num(table)

    def statistic(weights: Floats) -> dict[str, Floats]:
        if not columns:
            return {}
        return dict(zip(columns, divide(weights @ filled, weights @ defined).T, strict=True))

    return statistic


def count_defined(
    values: Mapping[str, NDArray[np.generic]], groups: Mapping[str, Flags] | None = None
) -> dict[str, int]:
    """Images behind each number of `means` of the same arguments."""
    return {name: int(np.count_nonzero(~np.isnan(column))) for name, column in _columns(values, groups)}


def score_set(statistic: Statistic, images: int) -> dict[str, float]:
    """Scores of a set of images, each counted once."""
    return {name: float(value[0]) for name, value in statistic(np.ones((1, images))).items()}


def divide(part: NDArray[np.generic], whole: Floats) -> Floats:
    """Part / whole, NaN where the whole is zero."""
    ratio: Floats = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio


def mean_defined(values: Floats) -> Floats:
    """Mean (R,) of the defined values of each row (R, K); NaN where there is none."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _columns(values: Mapping[str, NDArray[np.generic]], groups: Mapping[str, Flags] | None) -> list[tuple[str, Floats]]:
    """Every value over all images and over each group, NaN outside of it."""
    columns = [(name, np.asarray(value, np.float64)) for name, value in values.items()]
    parted = [
        (f"{name}_{group}", np.where(members, column, np.nan))
        for name, column in columns
        for group, members in (groups or {}).items()
    ]
    return columns + parted
