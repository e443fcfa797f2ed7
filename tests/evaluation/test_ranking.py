from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.evaluation.classification import (
    operating_scores,
    operating_thresholds,
    ranking_curves,
    ranking_scores,
)
from lungseg.evaluation.statistics import score_set

CLASSES = ("a", "b", "c")
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def draw(images: int = 60, seed: int = 0, ties: bool = True) -> tuple[Floats, Labels]:
    """Probabilities (N, 3), with equal ones if asked for, and labels (N,)."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, images)
    logits = generator.normal(size=(images, 3)) + 1.5 * np.eye(3)[label]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.round(probs, 1) if ties else probs, label


def _brute_auroc(score: Floats, positive: NDArray[np.bool_], weights: Floats) -> float:
    pairs = weights[positive][:, None] * weights[~positive]
    won = np.sign(score[positive][:, None] - score[~positive]) / 2 + 0.5
    return float((pairs * won).sum() / pairs.sum())


@pytest.mark.parametrize("ties", [False, True])
def test_areas_equal_scikit_learns(ties: bool) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    probs, label = draw(ties=ties)
    found = score_set(ranking_scores(probs, label, CLASSES), 60)
    for index, name in enumerate(CLASSES):
        assert found[f"auroc_{name}"] == pytest.approx(roc_auc_score(label == index, probs[:, index]))
        precision = average_precision_score(label == index, probs[:, index])
        assert found[f"average_precision_{name}"] == pytest.approx(precision)
    for score in ("auroc", "average_precision"):
        assert found[score] == pytest.approx(np.mean([found[f"{score}_{name}"] for name in CLASSES]))


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_areas_equal_all_pairs_and_scikit_learn(ties: bool) -> None:
    from sklearn.metrics import average_precision_score

    probs, label = draw(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (20, 60)).astype(float)
    found = ranking_scores(probs, label, CLASSES)(weights)
    for row, counts in enumerate(weights):
        for index, name in enumerate(CLASSES):
            score, positive = probs[:, index], label == index
            assert found[f"auroc_{name}"][row] == pytest.approx(_brute_auroc(score, positive, counts))
            precision = average_precision_score(positive, score, sample_weight=counts)
            assert found[f"average_precision_{name}"][row] == pytest.approx(precision)


def test_areas_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.3, 0.7]])
    found = score_set(ranking_scores(probs, np.array([0, 1, 0, 1]), ("a", "b")), 4)
    assert found["auroc_a"] == found["auroc_b"] == 0.875  # of 4 pairs 3 in order and one a tie
    assert found["average_precision_a"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.filterwarnings("error")
def test_areas_need_both_kinds_of_image() -> None:
    probs, label = draw(10)
    label = np.where(label == 2, 1, label)
    found = score_set(ranking_scores(probs, label, CLASSES), 10)
    assert np.isnan(found["auroc_c"]) and np.isnan(found["average_precision_c"])
    assert found["auroc"] == pytest.approx((found["auroc_a"] + found["auroc_b"]) / 2)
    for only in (np.zeros(10, np.int64), np.full(10, -1)):
        assert all(np.isnan(value) for value in score_set(ranking_scores(probs, only, CLASSES), 10).values())
    weights = np.where(label == 0, 1.0, 0.0)[None]  # a resample that drew one class
    assert np.isnan(ranking_scores(probs, label, CLASSES)(weights)["auroc_a"][0])


@pytest.mark.filterwarnings("error")
def test_broken_probabilities_are_left_out() -> None:
    probs, label = draw()
    probs[[3, 5], 1] = np.nan
    kept = np.delete(np.arange(60), [3, 5])
    expected = score_set(ranking_scores(probs[kept], label[kept], CLASSES), 58)
    assert score_set(ranking_scores(probs, label, CLASSES), 60) == pytest.approx(expected)
    thresholds = operating_thresholds(probs, label, 0.9)
    assert np.array_equal(thresholds, operating_thresholds(probs[kept], label[kept], 0.9))
    expected = score_set(operating_scores(probs[kept], label[kept], CLASSES, thresholds), 58)
    assert score_set(operating_scores(probs, label, CLASSES, thresholds), 60) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_curves_with_room_for_every_point_equal_scikit_learns(ties: bool) -> None:
    from sklearn import metrics

    probs, label = draw(ties=ties)
    score, positive = probs[:, 0], label == 0
    curves = ranking_curves(score, positive, 100_000)
    assert curves is not None
    roc, curve = curves
    oracle = metrics.roc_curve(positive, score, drop_intermediate=False)
    for found, expected in zip((roc.x, roc.y, roc.threshold), oracle, strict=True):
        assert found == pytest.approx(expected)
    precision, recall, threshold = metrics.precision_recall_curve(positive, score)
    assert set(zip(curve.x, curve.y, strict=True)) == set(zip(recall, precision, strict=True))
    assert set(curve.threshold[1:]) <= set(threshold)  # of points that lie on each other one is kept


def test_a_thinned_curve_keeps_its_ends_and_strays_little() -> None:
    probs, label = draw(5000, ties=False)
    wholes, thins = (ranking_curves(probs[:, 0], label == 0, points) for points in (10**6, 100))
    assert wholes is not None and thins is not None
    for whole, thin in zip(wholes, thins, strict=True):
        assert len(thin.x) <= 102 < len(whole.x)
        for end in (0, -1):
            assert (thin.x[end], thin.y[end]) == (whole.x[end], whole.y[end])
        x, y = np.array(whole.x), np.array(whole.y)
        away = np.abs(x[:, None] - thin.x) + np.abs(y[:, None] - thin.y)
        assert away.min(axis=1).max() <= (np.abs(np.diff(x)) + np.abs(np.diff(y))).sum() / 100


def test_a_curve_needs_both_kinds_of_image() -> None:
    for positive in (np.zeros(3, bool), np.ones(3, bool)):
        assert ranking_curves(np.arange(3.0), positive) is None


def test_the_operating_threshold_is_the_highest_that_reaches_the_sensitivity() -> None:
    probs, label = draw(300)
    for sensitivity in (0.5, 0.9, 0.95, 1.0):
        thresholds = operating_thresholds(probs, label, sensitivity)
        for index in range(3):
            reached = {t: (probs[label == index, index] >= t).mean() for t in np.unique(probs)}
            assert thresholds[index] == max(t for t, value in reached.items() if value >= sensitivity)


def test_operating_points_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.2])
    probs, label = np.stack([score, 1 - score], axis=1), np.array([0, 0, 1, 0, 1, 1])
    thresholds = operating_thresholds(probs, label, 0.95)
    assert thresholds.tolist() == [0.6, pytest.approx(0.3)]
    found = score_set(operating_scores(probs, label, ("a", "b"), thresholds), 6)
    assert found["sensitivity_at_threshold_a"] == 1 and found["specificity_at_threshold_a"] == pytest.approx(2 / 3)
    assert found["precision_at_threshold_a"] == 0.75
    other = score_set(operating_scores(probs, label, ("a", "b"), np.array([0.85, 0.55])), 6)
    assert other["sensitivity_at_threshold_a"] == pytest.approx(1 / 3) and other["specificity_at_threshold_a"] == 1


@pytest.mark.filterwarnings("error")
def test_a_class_without_images_has_no_operating_point() -> None:
    probs, label = draw()
    label = np.where(label == 2, 0, label)
    thresholds = operating_thresholds(probs, label, 0.9)
    assert np.isnan(thresholds).tolist() == [False, False, True]
    found = score_set(operating_scores(probs, label, CLASSES, thresholds), 60)
    assert [name for name, value in found.items() if np.isnan(value)] == [
        f"{score}_at_threshold_c" for score in ("sensitivity", "specificity", "precision", "f1")
    ]
