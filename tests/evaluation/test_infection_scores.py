from __future__ import annotations

import zlib

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from lungseg.evaluation.infection_scores import correlations, measure_severity
from lungseg.evaluation.outputs import BatchOutputs
from lungseg.evaluation.statistics import score_set


def batch_of(**masks: list[list[int]]) -> BatchOutputs:
    """Three images of 2 x 2 pixels; masks by name, a list of four pixels an image."""
    packed = {name: zlib.compress(np.packbits(np.array(rows, np.bool_)).tobytes()) for name, rows in masks.items()}
    known = {"lung": np.array([True, True, False]), "infection": np.ones(3, np.bool_)}
    return BatchOutputs(np.zeros((3, 3)), np.zeros(3, np.int64), known, np.ones(3, np.bool_), {}, (2, 2), packed)


def test_severity_and_false_infection_by_hand() -> None:
    batch = batch_of(
        lung=[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]],
        predicted_lung=[[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
        infection=[[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        predicted_infection=[[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]],
    )
    found = measure_severity(batch, np.arange(3))
    nan = np.nan
    assert found["severity"] == pytest.approx([0.5, nan, 0], nan_ok=True)  # of the predicted lungs; no lungs
    assert found["severity_true"] == pytest.approx([0.75, 0, 0])  # of the true lungs; the third has the predicted ones
    assert found["severity_bias"] == pytest.approx([-0.25, nan, 0], nan_ok=True)
    assert found["severity_error"] == pytest.approx([0.25, nan, 0], nan_ok=True)
    assert found["false_positive"] == pytest.approx([nan, 1, 0], nan_ok=True)
    assert found["false_share"] == pytest.approx([nan, 0.5, 0], nan_ok=True)
    assert measure_severity(batch, np.array([2]))["false_share"].tolist() == [0]


def test_correlations_equal_scipys_in_the_set_and_in_every_resample() -> None:
    generator = np.random.default_rng(0)
    true = np.round(generator.random(30), 1)  # with ties
    predicted = np.round(true + generator.normal(0, 0.3, 30), 1)
    predicted[3] = np.nan
    members = true > 0.2
    statistic = correlations(predicted, true, {"some": members})
    weights = np.stack([np.ones(30), *np.array([np.bincount(generator.integers(0, 30, 30), minlength=30)] * 2)])
    found = statistic(weights)
    for row, counts in enumerate(weights.astype(int)):
        for end, group in (("", np.ones(30, np.bool_)), ("_some", members)):
            drawn = np.repeat(np.flatnonzero(group & ~np.isnan(predicted)), counts[group & ~np.isnan(predicted)])
            pair = predicted[drawn], true[drawn]
            assert found[f"severity_pearson{end}"][row] == pytest.approx(pearsonr(*pair)[0])
            assert found[f"severity_spearman{end}"][row] == pytest.approx(spearmanr(*pair)[0])


def test_what_does_not_vary_has_no_correlation() -> None:
    true, predicted = np.array([0.0, 0.0, 0.3, 0.6]), np.array([0.1, 0.2, 0.7, 0.7])
    scores = correlations(predicted, true, {"healthy": true == 0, "infected": true > 0})
    found = score_set(scores, 4)
    assert "severity_pearson_healthy" not in found
    assert np.isnan(found["severity_pearson_infected"]) and np.isnan(found["severity_spearman_infected"])
    assert np.isnan(scores(np.array([[4.0, 0, 0, 0]]))["severity_pearson"][0])
    assert found["severity_spearman"] == pytest.approx(spearmanr(predicted, true)[0])
