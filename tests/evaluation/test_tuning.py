from __future__ import annotations

import numpy as np
import pytest

from lungseg.evaluation.temperature import choose, cross_fit, fit_temperature, to_probabilities

CLASSES = ("a", "b", "c")


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (60, 3) that are too sure, labels, halves."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 60)
    logits = 4 * generator.normal(size=(60, 3))
    logits[np.arange(60), label] += 4
    return logits, label, np.arange(60) % 2


def test_softmax_equals_torchs_and_marks_what_is_not_finite() -> None:
    import torch

    logits = np.array([[1000.0, 0.0, -5.0], [0.1, 0.2, 0.3], [np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0]])
    assert to_probabilities(logits, multi_label=False)[:2] == pytest.approx(
        torch.from_numpy(logits[:2]).softmax(1).numpy()
    )
    assert np.isnan(to_probabilities(logits, multi_label=False)[2:]).all()


def test_each_half_is_measured_with_what_was_chosen_on_the_other(images) -> None:
    logits, label, halves = images
    tuned = cross_fit(logits, label, halves, 0.9)
    others = [fit_temperature(logits[halves == 1 - half], label[halves == 1 - half]) for half in (0, 1)]
    assert others[0] != others[1]
    assert tuned.temperature == pytest.approx(np.array(others)[halves])
    changed = logits.copy()
    changed[halves == 0] *= 3  # what is chosen for a half does not know of it
    again = cross_fit(changed, label, halves, 0.9)
    assert np.array_equal(again.thresholds[0], tuned.thresholds[0])
    assert not np.array_equal(again.thresholds[1], tuned.thresholds[1])
    assert tuned.stored is not None and tuned.stored.temperature == pytest.approx(fit_temperature(logits, label))


def test_thresholds_reach_the_sensitivity_on_the_images_they_are_chosen_on(images) -> None:
    logits, label, _ = images
    choice = choose(logits, label, 0.9)
    probs = to_probabilities(logits, multi_label=False)
    for index in range(3):
        assert (probs[label == index, index] >= choice.thresholds[index]).mean() >= 0.9


def test_without_labels_there_is_no_temperature(images) -> None:
    choice = choose(images[0], np.full(60, -1), 0.9)
    assert np.isnan(choice.temperature) and np.isnan(choice.thresholds).all()
