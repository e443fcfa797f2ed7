"""Predicted infection beside its outline: how much of the lungs it takes, and how often it is seen where none is.

Severity is the infected share of the lungs, in [0, 1]: predicted, of the predicted lungs, as a user sees it; true, of
the true lungs where they are known, else of those predicted. Only images whose infection mask is known count.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from lungseg.evaluation.outputs import BatchOutputs
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide

SEVERITY_SCORES = ("severity", "severity_true", "severity_error", "severity_bias", "false_positive", "false_share")
_LEAST_SPREAD = 1e-20  # Sum of squared deviations below which values are equal but for rounding.


def measure_severity(batch: BatchOutputs, known: Integers) -> dict[str, Floats]:
    """Scores (K,) of the images `known` (K,) of a batch, by the names of `SEVERITY_SCORES`.

    - `severity`, `severity_true`: infected share of the lungs; NaN without lungs.
    - `severity_error`, `severity_bias`: absolute and signed difference, predicted minus true.
    - `false_positive`: of an image known to have no infection, 1 if a pixel of it is predicted, else 0.
    - `false_share`: of such an image, share of the lungs (true ones where they are known) predicted to be infected.
    """
    names = ("infection", "predicted_infection", "predicted_lung")
    true, predicted, predicted_lung = (batch.mask(name)[known] for name in names)
    lung = batch.lung()[known]
    severity, severity_true = _share(predicted, predicted_lung), _share(true, lung)
    healthy = ~true.flatten(1).any(1).numpy()
    return {
        "severity": severity,
        "severity_true": severity_true,
        "severity_error": np.abs(severity - severity_true),
        "severity_bias": severity - severity_true,
        "false_positive": np.where(healthy, predicted.flatten(1).any(1).numpy(), np.nan),
        "false_share": np.where(healthy, _share(predicted, lung), np.nan),
    }


def correlations(predicted: Floats, true: Floats, groups: Mapping[str, Flags]) -> Statistic:
    """`severity_pearson` and `severity_spearman` of values (N,), over all images and over each group.

    Groups in which the true values are all equal are left out. Spearman's correlation is Pearson's of the ranks, equal
    values sharing their mean rank; a resample is ranked anew.
    """
    known = ~np.isnan(predicted + true)
    parts = {"": known} | {f"_{name}": known & members for name, members in groups.items()}
    parts = {suffix: members for suffix, members in parts.items() if len(np.unique(true[members])) > 1}

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = {}
        for suffix, members in parts.items():
            drawn, values = weights[:, members], (predicted[members], true[members])
            scores[f"severity_pearson{suffix}"] = _pearson(drawn, *values)
            scores[f"severity_spearman{suffix}"] = _pearson(drawn, *(_ranks(drawn, column) for column in values))
        return scores

    return statistic


def _share(mask: Tensor, lung: Tensor) -> Floats:
    """Share (B,) of the lungs (B, H, W) bool that a mask takes; NaN without lungs."""
    return divide((mask & lung).sum(dim=(1, 2)).numpy(), lung.sum(dim=(1, 2)).numpy().astype(np.float64))


def _pearson(weights: Floats, first: Floats, second: Floats) -> Floats:
    """Correlation (R,) of weighted values, (N,) or (R, N); NaN where one of them does not vary."""
    total = weights.sum(axis=1, keepdims=True)
    centred = [values - divide((weights * values).sum(axis=1, keepdims=True), total) for values in (first, second)]
    spread = [np.einsum("rn,rn,rn->r", weights, values, values) for values in centred]
    varies = (spread[0] > _LEAST_SPREAD) & (spread[1] > _LEAST_SPREAD)
    together = np.einsum("rn,rn,rn->r", weights, *centred)
    return divide(together, np.where(varies, np.sqrt(spread[0] * spread[1]), 0))


def _ranks(weights: Floats, values: Floats) -> Floats:
    """Rank (R, N) of each value (N,) among the images drawn, the mean of equal ones."""
    order = np.argsort(values, kind="stable")
    starts = np.diff(values[order], prepend=np.nan) != 0
    up_to = np.cumsum(weights[:, order], axis=1)[:, np.append(np.flatnonzero(starts)[1:] - 1, len(values) - 1)]
    ranks = up_to - (np.diff(up_to, axis=1, prepend=0) - 1) / 2
    distinct = np.empty(len(values), np.int64)
    distinct[order] = np.cumsum(starts) - 1
    return ranks[:, distinct]
