from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lungseg.data.sample import Sample
from lungseg.evaluation.intervals import Interval, bootstrap
from lungseg.evaluation.shortcut_study import LIMITS, RULE, ShownImages, verdict, view_scores
from lungseg.evaluation.shortcut_views import VIEWS

CLASSES = ("COVID-19", "Non-COVID", "Normal")


def _probs(label: np.ndarray, right: float, seed: int) -> np.ndarray:
    """Sure of the true class in a share of the images, spread over each class evenly, and blind in the others."""
    probs = np.random.default_rng(seed).dirichlet([1, 1, 1], len(label))
    place = np.array([np.count_nonzero(label[:i] == label[i]) for i in range(len(label))])
    knows = place < right * np.bincount(label)[label]
    probs[knows] = 0.02 + 0.94 * np.eye(3)[label[knows]]
    return probs


def _results(full: float, blanked: float, each: int = 40, groups: list[str | None] | None = None) -> ShownImages:
    """Results of a network that knows the class in these shares of the images."""
    label = np.tile(np.arange(3), each)
    groups = groups if groups is not None else [None] * len(label)
    shares = dict.fromkeys(VIEWS, blanked) | {"full": full, "lungs": full}
    probs = {name: _probs(label, right, seed) for seed, (name, right) in enumerate(shares.items())}
    return ShownImages(
        classes=CLASSES,
        samples=[Sample(str(i), Path("x"), None, None, i % 3, "test", group=group) for i, group in enumerate(groups)],
        label=label,
        lung_known=np.ones(len(label), np.bool_),
        probs=probs,
        scores={n: bootstrap([view_scores(p, label, CLASSES)], len(label), groups, 500) for n, p in probs.items()},
        evidence_in_lungs=np.full(len(label), 0.2),
        lung_area=np.full(len(label), 0.25),
        left_out={"label": 0, "lungs": 2, "finite probabilities": 0},
    )


def _with_blanked(shown: ShownImages, probs: np.ndarray, scores: dict[str, Interval]) -> ShownImages:
    changes = {"probs": shown.probs | {"blanked": probs}, "scores": shown.scores | {"blanked": scores}}
    return dataclasses.replace(shown, **changes)


def test_skill_left_is_the_share_of_what_exceeds_chance() -> None:
    results = _results(1.0, 0.5)
    found = verdict(results).skill_left
    for name, chance in (("balanced_accuracy", 1 / 3), ("auroc", 0.5)):
        full, blanked = results.scores["full"][name].value, results.scores["blanked"][name].value
        assert full == 1
        assert found[name].value == pytest.approx((blanked - chance) / (full - chance))


def test_a_network_that_knows_the_class_without_lungs_is_flagged() -> None:
    found = verdict(_results(1.0, 1.0))
    assert found.flag == "shortcut"
    assert "1.00 [1.00, 1.00] of the skill is left" in found.reasons[0]
    assert (found.rule, found.limits) == (RULE, LIMITS)


def test_a_network_that_guesses_without_lungs_shows_no_sign() -> None:
    assert verdict(_results(1.0, 0.0, each=100)).flag == "no sign"


def test_a_constant_guess_leaves_exactly_nothing() -> None:
    results = _results(1.0, 0.0)
    probs = np.tile([0.6, 0.3, 0.1], (120, 1))
    scores = bootstrap([view_scores(probs, results.label, CLASSES)], 120, None, 500)
    left = verdict(_with_blanked(results, probs, scores)).skill_left
    assert [(n.value, n.low, n.high) for n in left.values()] == [pytest.approx((0, 0, 0), abs=1e-12)] * 2


def test_a_bias_to_one_class_does_not_hide_what_the_probabilities_rank() -> None:
    results = _results(1.0, 1.0)
    probs = 0.05 * np.eye(3)[results.label] + [0.0, 0.0, 0.9]
    scores = bootstrap([view_scores(probs, results.label, CLASSES)], 120, None, 500)
    assert scores["balanced_accuracy"].value == pytest.approx(1 / 3)
    found = verdict(_with_blanked(results, probs, scores))
    assert found.flag == "shortcut" and "AUROC 1.00" in found.reasons[0]


def test_between_the_thresholds_and_on_few_images_it_is_unclear() -> None:
    assert verdict(_results(1.0, 0.1, each=12)).flag == "unclear"
    assert verdict(_results(1.0, 0.25, each=100)).flag == "shortcut"


def test_without_skill_on_full_images_it_is_unclear() -> None:
    found = verdict(_results(0.0, 0.0))
    assert found.flag == "unclear" and "too little skill" in found.reasons[0]


@pytest.mark.parametrize("each", [1, 9])
def test_too_few_images_are_not_judged(each: int) -> None:
    found = verdict(_results(1.0, 1.0, each))
    assert found.flag == "unclear" and f"COVID-19 {each}, Non-COVID {each}" in found.reasons[0]


def test_images_of_one_class_or_none_are_not_judged() -> None:
    results = _results(1.0, 1.0)
    for label in (np.zeros(120, np.int64), np.zeros(0, np.int64)):
        few = dataclasses.replace(results, label=label, samples=results.samples[: len(label)])
        assert verdict(few).flag == "unclear"


def test_images_of_one_patient_count_once() -> None:
    groups: list[str | None] = [f"patient {index % 3} {index // 30}" for index in range(120)]  # 4 of each class
    found = verdict(_results(1.0, 1.0, groups=groups))
    assert found.flag == "unclear" and "COVID-19 4" in found.reasons[0]


def test_reasons_tell_what_a_reader_must_know() -> None:
    results = dataclasses.replace(_results(1.0, 1.0), lung_known=np.arange(120) < 100)
    told = " | ".join(verdict(results).reasons)
    assert "0.20 of the evidence lies in the lungs, no more than the 0.25 of a uniform map" in told
    assert "20 of 120 images the lungs are predicted" in told
    assert "2 images without lungs are left out" in told and "without label" not in told


def test_the_same_results_give_the_same_verdict() -> None:
    results = _results(1.0, 0.4)
    assert verdict(results) == verdict(results)
