"""Scores of several findings an image, against the same of one finding alone, and against hand-computed numbers."""

import numpy as np
import pytest

from lungseg.evaluation.classification import (
    class_caveats,
    operating_scores,
    operating_thresholds,
    ranking_scores,
    usable,
)
from lungseg.evaluation.statistics import score_set
from lungseg.evaluation.temperature import (
    calibration_scores,
    choose,
    cross_fit,
    fit_temperature,
    reliability,
    to_probabilities,
)

CLASSES = ("a", "b", "c")


def _draw(images: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    findings = rng.integers(-1, 2, (images, 3))
    return rng.normal(findings.clip(0) * 1.5, 1.0), findings


def test_rankings_are_those_of_each_finding_where_it_is_known() -> None:
    logits, findings = _draw()
    probs = to_probabilities(logits, multi_label=True)
    found = score_set(ranking_scores(probs, findings, CLASSES), len(probs))
    for index, name in enumerate(CLASSES):
        known = findings[:, index] >= 0
        pair = np.stack([1 - probs[known, index], probs[known, index]], axis=1)
        alone = score_set(ranking_scores(pair, findings[known, index], ("no", "yes")), int(known.sum()))
        assert found[f"auroc_{name}"] == pytest.approx(alone["auroc_yes"])
        assert found[f"average_precision_{name}"] == pytest.approx(alone["average_precision_yes"])
    assert found["auroc"] == pytest.approx(np.mean([found[f"auroc_{name}"] for name in CLASSES]))


def test_one_class_an_image_as_findings_gives_the_same_rankings_and_thresholds() -> None:
    rng = np.random.default_rng(1)
    label, probs = rng.integers(0, 3, 100), rng.dirichlet(np.ones(3), 100)
    one_hot = (label[:, None] == np.arange(3)).astype(np.int64)
    single, several = (score_set(ranking_scores(probs, truth, CLASSES), 100) for truth in (label, one_hot))
    assert single == several
    np.testing.assert_array_equal(
        operating_thresholds(probs, label, 0.9), operating_thresholds(probs, one_hot, sensitivity=0.9)
    )


def test_the_threshold_of_the_highest_f1_by_hand() -> None:
    probs = np.array([[0.9], [0.8], [0.7], [0.6], [0.5]])
    findings = np.array([[1], [0], [1], [-1], [0]])
    # Called from 0.9 on: 2/3; from 0.7 on: 2 * 2 / (3 + 2) = 0.8.
    assert operating_thresholds(probs, findings, None).tolist() == [0.7]
    found = score_set(operating_scores(probs, findings, ("a",), np.array([0.7])), 5)
    assert found["f1_at_threshold_a"] == found["f1_at_threshold"] == pytest.approx(0.8)
    assert found["sensitivity_at_threshold_a"] == 1 and found["specificity_at_threshold_a"] == 0.5
    assert np.isnan(operating_thresholds(probs, np.zeros_like(findings), None)).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    logits, findings = _draw(60, seed)
    probs = np.round(to_probabilities(logits, multi_label=True), 1)  # with ties
    best = operating_thresholds(probs, findings, None)
    for index in range(3):
        reached = [
            score_set(operating_scores(probs, findings, CLASSES, np.full(3, limit)), 60)[
                f"f1_at_threshold_{CLASSES[index]}"
            ]
            for limit in [*np.unique(probs), best[index]]
        ]
        assert reached[-1] == pytest.approx(max(reached))


def test_a_temperature_is_found_again_and_unknowns_do_not_move_it() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20000, 3))
    findings = (rng.random(logits.shape) < to_probabilities(logits, True)).astype(np.int64)
    assert fit_temperature(logits * 3, findings) == pytest.approx(3, rel=0.05)
    hidden = findings.copy()
    hidden[::2, 0], logits[::2, 0] = -1, 50.0
    assert fit_temperature(logits * 3, hidden) == pytest.approx(3, rel=0.05)


def test_calibration_counts_every_known_finding() -> None:
    probs = np.array([[0.9, 0.1], [0.9, 0.6]])
    findings = np.array([[1, 0], [0, -1]])
    found = score_set(calibration_scores(probs, findings), 2)
    assert found["brier"] == pytest.approx((0.01 + 0.01 + 0.81) / 3)
    assert found["ece"] == pytest.approx((abs(0.1 - 0) + abs(1.8 - 1)) / 3)
    assert sum(entry.images for entry in reliability(probs, findings)) == 3


def test_what_is_chosen_on_halves_serves_the_other() -> None:
    logits, findings = _draw(80)
    halves = np.arange(80) % 2
    tuned = cross_fit(logits, findings, halves, None)
    other = choose(logits[1::2], findings[1::2], None)
    assert tuned.temperature[0] == other.temperature and tuned.stored is not None
    np.testing.assert_array_equal(tuned.thresholds[0], other.thresholds)


def test_unknowns_are_told() -> None:
    findings = np.array([[1, 0, -1], [1, -1, -1], [-1, -1, -1]])
    assert usable(np.full((3, 3), 0.5), findings).tolist() == [True, True, False]
    caveats = class_caveats(np.full((3, 3), 0.5), findings, CLASSES)
    assert "1 of 3 images have no label" in caveats[0]
    assert "a: every image has it; AUROC and average precision are undefined" in caveats
    assert "b: unknown in 1 of 2 images, which are left out of its scores" in caveats
