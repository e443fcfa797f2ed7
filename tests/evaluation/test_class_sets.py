from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from lungseg.evaluation.class_sets import (
    answered_curve,
    class_sets,
    least_probabilities,
    selective_scores,
    set_scores,
)
from lungseg.evaluation.statistics import Floats, Integers, score_set

CLASSES = ("a", "b", "c")


def _draw(images: int, seed: int, sharp: float = 1.5) -> tuple[Floats, Integers]:
    """Probabilities of a network that is right for two images in three or so; half of the images are of class 0."""
    generator = np.random.default_rng(seed)
    label = generator.choice(3, images, p=[0.5, 0.3, 0.2])
    logits = generator.normal(size=(images, 3)) + sharp * np.eye(3)[label]
    return scipy.special.softmax(3 * logits, axis=1), label  # far too sure of itself


def test_sets_hold_every_class_as_often_as_promised_whatever_the_network_is_worth() -> None:
    for sharp in (0.0, 1.5, 4.0):
        found = []
        for seed in range(60):
            least = least_probabilities(*_draw(300, 2 * seed, sharp))
            probs, label = _draw(400, 2 * seed + 1, sharp)
            sets = probs >= least  # without the likeliest class, which can only raise the coverage
            found.append([sets[label == index, index].mean() for index in range(3)])
        # 60 draws of 300 and 400 images: a standard error of at most half a point
        assert np.mean(found, axis=0) == pytest.approx([0.9, 0.9, 0.9], abs=0.025)


def test_least_probability_by_hand() -> None:
    probs = np.linspace(0.05, 0.95, 19)[:, None] * [1, 0] + [0, 0.5]
    label = np.zeros(19, np.int64)
    # 20 x 0.1 = 2: the second lowest; of class 1 there is no image, and nothing excludes it
    assert least_probabilities(probs, label) == pytest.approx([0.1, 0.0])
    assert least_probabilities(probs[:9], label[:9])[0] == pytest.approx(0.05)
    assert least_probabilities(probs[:8], label[:8])[0] == 0.0, "too few to exclude anything"
    probs[0], label[1] = np.nan, -1
    assert least_probabilities(probs, label)[0] == pytest.approx(0.15)


def test_a_set_is_never_empty() -> None:
    probs = np.array([[0.4, 0.35, 0.25], [0.1, 0.8, 0.1]])
    sets = class_sets(probs, np.array([0.9, 0.3, 0.9]))
    assert sets.tolist() == [[True, True, False], [False, True, False]]


def test_set_scores_by_hand() -> None:
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.5, 0.5, 0.0]])
    label, least = np.array([0, 0, 2, -1]), np.tile([0.5, 0.25, 0.5], (4, 1))
    found = score_set(set_scores(probs, label, least, CLASSES), 4)
    assert found["set_coverage"] == pytest.approx(2 / 3)  # the second image's set is b alone
    assert found["set_coverage_a"] == 0.5 and found["set_coverage_c"] == 1 and "set_coverage_b" not in found
    assert found["set_size"] == pytest.approx((2 + 1 + 1) / 3) and found["set_single"] == pytest.approx(2 / 3)
    least[2] = np.nan  # nothing was chosen for it
    assert score_set(set_scores(probs, label, least, CLASSES), 4)["set_size"] == pytest.approx(1.5)


def test_selective_scores_by_hand() -> None:
    # From the surest on: right, right, wrong, and two as sure as each other of which one is wrong.
    probs = np.array([[0.99, 0.01], [0.1, 0.9], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [np.nan, np.nan]])
    label = np.array([0, 1, 1, 0, 0, 0])
    found = score_set(selective_scores(probs, label), 6)
    assert found["risk_coverage_area"] == pytest.approx((0 + 0 + 1 / 3 + 2 / 5 + 2 / 5) / 5)
    assert found["accuracy_answered_80"] == pytest.approx(3 / 5), "both of the equals are answered, or none"
    curve = answered_curve(probs, label)
    assert curve.x == pytest.approx([0.2, 0.4, 0.6, 1.0]) and curve.y == pytest.approx([1, 1, 2 / 3, 3 / 5])
    assert curve.threshold == pytest.approx([0.99, 0.9, 0.8, 0.7])


def test_weights_count_as_copies_of_the_images() -> None:
    probs, label = _draw(40, 1)
    times = np.random.default_rng(0).integers(0, 3, 40)
    copies = np.repeat(np.arange(40), times)
    weighted = selective_scores(probs, label)(times[None].astype(np.float64))
    copied = score_set(selective_scores(probs[copies], label[copies]), len(copies))
    assert {name: float(value[0]) for name, value in weighted.items()} == pytest.approx(copied)


def test_a_confidence_that_tells_nothing_has_the_error_rate_as_its_area() -> None:
    probs = np.tile([0.6, 0.4], (50, 1))
    label = (np.arange(50) % 5 == 0).astype(np.int64)
    found = score_set(selective_scores(probs, label), 50)
    assert found["risk_coverage_area"] == pytest.approx(0.2) == pytest.approx(1 - found["accuracy_answered_90"])


def test_a_long_curve_is_thinned_to_its_ends() -> None:
    probs, label = _draw(1000, 3)
    curve = answered_curve(probs, label)
    assert len(curve.x) == 200 and curve.x[0] == 0.001 and curve.x[-1] == 1
    assert curve.y[-1] == pytest.approx((probs.argmax(1) == label).mean())
