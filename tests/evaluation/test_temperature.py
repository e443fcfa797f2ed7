from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungseg.evaluation.statistics import score_set
from lungseg.evaluation.temperature import BINS, TEMPERATURES, calibration_scores, fit_temperature, reliability

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def draw(images: int = 400, seed: int = 0) -> tuple[Floats, Labels]:
    """Logits (N, 3) and labels (N,) drawn from their softmax."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(images, 3))
    return logits, np.array([generator.choice(3, p=p) for p in softmax(logits)])


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)


def _nll(logits: Floats, label: Labels, temperature: float) -> float:
    return float(-np.log(softmax(logits / temperature)[np.arange(len(label)), label]).mean())


def test_calibration_errors_equal_torchmetrics() -> None:
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    logits, label = draw()
    probs, found = softmax(1.7 * logits), score_set(calibration_scores(softmax(1.7 * logits), label), 400)
    tensors = torch.from_numpy(probs), torch.from_numpy(label)
    ece = multiclass_calibration_error(*tensors, num_classes=3, n_bins=15, norm="l1")
    assert found["ece"] == pytest.approx(float(ece), abs=1e-6)
    classwise = [
        binary_calibration_error(tensors[0][:, c].contiguous(), (tensors[1] == c).long(), 15, "l1") for c in range(3)
    ]
    assert found["ece_classwise"] == pytest.approx(float(torch.stack(classwise).mean()), abs=1e-6)


def test_brier_equals_scikit_learns() -> None:
    from sklearn.metrics import brier_score_loss

    logits, label = draw()
    probs = softmax(logits)
    found = score_set(calibration_scores(probs, label), 400)["brier"]
    assert found == pytest.approx(sum(brier_score_loss(label == c, probs[:, c]) for c in range(3)))


def test_errors_by_hand() -> None:
    probs = np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]])
    found = score_set(calibration_scores(probs, np.array([0, 1, 1, 1])), 4)
    assert found["ece"] == pytest.approx(0.5 * abs(0.8 - 0.5) + 0.5 * abs(0.6 - 1))
    assert found["brier"] == pytest.approx((2 * 0.04 + 2 * 0.64 + 2 * 2 * 0.16) / 4)
    certain = score_set(calibration_scores(np.eye(3), np.arange(3)), 3)
    assert certain == {"ece": 0, "ece_classwise": 0, "brier": 0}
    assert score_set(calibration_scores(np.eye(3), np.array([1, 2, 0])), 3)["brier"] == 2


def test_a_weight_counts_an_image_that_often() -> None:
    logits, label = draw(60)
    probs, weights = softmax(logits), np.random.default_rng(1).integers(0, 4, (5, 60))
    found = calibration_scores(probs, label)(weights.astype(float))
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(60), counts)
        expected = score_set(calibration_scores(probs[repeated], label[repeated]), len(repeated))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


def test_the_diagram_gives_the_error_back() -> None:
    logits, label = draw()
    bins, found = reliability(softmax(logits), label), score_set(calibration_scores(softmax(logits), label), 400)
    low, images, confidence, accuracy = map(np.array, zip(*(dataclasses.astuple(one) for one in bins), strict=True))
    filled = images > 0
    gaps = np.abs(accuracy - confidence)[filled]
    assert (images[filled] * gaps).sum() / 400 == pytest.approx(found["ece"])
    assert images.sum() == 400 and not filled[:4].any()  # of three classes the likeliest has 1/3 or more
    assert np.isnan(accuracy[~filled]).all() and np.isnan(confidence[~filled]).all()
    assert ((low <= confidence) & (confidence <= low + 1 / BINS))[filled].all()


def _images(probs: np.ndarray, label: np.ndarray) -> list[int]:
    return [one.images for one in reliability(probs, label)]


def test_a_bin_is_closed_above() -> None:
    probs = np.array([[1.0, 0.0], [0.6, 0.4], [0.6 + 1e-9, 0.4]])
    images = _images(probs, np.zeros(3, np.int64))
    assert np.flatnonzero(images).tolist() == [8, 9, 14] and sum(images) == 3


@pytest.mark.filterwarnings("error")
def test_only_usable_images_count() -> None:
    logits, label = draw(50)
    probs = softmax(logits)
    probs[4], label[7] = np.nan, -1
    kept = np.delete(np.arange(50), [4, 7])
    expected = score_set(calibration_scores(probs[kept], label[kept]), 48)
    assert score_set(calibration_scores(probs, label), 50) == pytest.approx(expected)
    assert sum(_images(probs, label)) == 48
    logits[4] = np.nan
    assert fit_temperature(logits, label) == fit_temperature(logits[kept], label[kept])
    nothing = np.full(50, -1)
    assert all(np.isnan(value) for value in score_set(calibration_scores(probs, nothing), 50).values())
    assert sum(_images(probs, nothing)) == 0


def test_the_temperature_minimises_the_likelihood_loss() -> None:
    from scipy.optimize import minimize_scalar

    logits, label = draw()
    for scale in (0.4, 1.0, 3.0):
        found = fit_temperature(scale * logits, label)
        oracle = minimize_scalar(
            lambda t, z=scale * logits: _nll(z, label, t), bounds=TEMPERATURES, options={"xatol": 1e-8}
        )
        assert found == pytest.approx(oracle.x, rel=1e-4)


def test_the_temperature_undoes_a_scale_and_lowers_the_error() -> None:
    logits, label = draw(2000)
    calm = fit_temperature(logits, label)
    assert calm == pytest.approx(1, abs=0.1) and fit_temperature(4 * logits, label) == pytest.approx(4 * calm)
    before, after = (score_set(calibration_scores(softmax(4 * logits / t), label), 2000) for t in (1, 4 * calm))
    assert after["ece"] < before["ece"] / 4 and after["brier"] < before["brier"]


@pytest.mark.filterwarnings("error")
def test_a_temperature_stays_in_its_range() -> None:
    right = 30 * np.eye(3)
    assert fit_temperature(right, np.arange(3)) == pytest.approx(TEMPERATURES[0])
    assert fit_temperature(right, np.array([1, 2, 0])) == pytest.approx(TEMPERATURES[1])
    assert fit_temperature(np.full((4, 3), 2.5), np.array([0, 1, 2, 0])) == 1


def test_without_labels_there_is_no_temperature() -> None:
    assert np.isnan(fit_temperature(np.zeros((2, 3)), np.array([-1, -1])))
