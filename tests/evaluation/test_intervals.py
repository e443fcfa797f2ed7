from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.evaluation.classification import class_scores, ranking_scores
from lungseg.evaluation.intervals import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_differences,
    defined_in_all,
    draw_weights,
)
from lungseg.evaluation.statistics import Statistic, means
from lungseg.evaluation.temperature import calibration_scores

CLASSES = ("a", "b", "c")
Floats = NDArray[np.float64]


def _statistics(kept: NDArray[np.int64], images: int = 40) -> list[Statistic]:
    """Every kind of score of some of 40 images, each as often as it is named."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, images)
    logits = generator.normal(size=(images, 3)) + np.eye(3)[label]
    probs = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2)
    dice = np.where(generator.random(images) < 0.1, np.nan, generator.random(images))
    probs, label, dice = probs[kept], label[kept], dice[kept]
    return [
        means({"dice": dice}, {"a": label == 0}),
        class_scores(probs, label, CLASSES),
        ranking_scores(probs, label, CLASSES),
        calibration_scores(probs, label),
    ]


@pytest.mark.parametrize("groups", [None, [f"patient {index // 3}" for index in range(40)]])
def test_every_interval_equals_that_of_resampling_one_by_one(groups: list[str] | None) -> None:
    found = bootstrap(_statistics(np.arange(40)), 40, groups, replicates=60, seed=3)
    counts = np.concatenate(list(draw_weights(40, groups, 60, 3))).astype(np.int64)
    naive: dict[str, list[float]] = {name: [] for name in found}
    for row in counts:
        kept = np.repeat(np.arange(40), row)
        for statistic in _statistics(kept):
            for name, value in statistic(np.ones((1, len(kept)))).items():
                naive[name].append(float(value[0]))
    for name, values in naive.items():
        limits = np.nanpercentile(values, [2.5, 97.5])
        assert (found[name].low, found[name].high) == pytest.approx(tuple(limits)), name
        assert found[name].undefined == np.isnan(values).sum()


def test_draws_hold_as_many_images_as_the_set_and_do_not_depend_on_chunks() -> None:
    whole = np.concatenate(list(draw_weights(30, None, 500, 7)))
    assert whole.shape == (500, 30) and (whole.sum(axis=1) == 30).all()
    assert whole.mean(axis=0) == pytest.approx(1, abs=0.2)
    for chunk in (1, 100, 30 * 33):
        assert np.array_equal(np.concatenate(list(draw_weights(30, None, 500, 7, chunk))), whole)


def test_draws_stay_within_the_memory_they_are_given() -> None:
    chunks = list(draw_weights(50, None, 100, 0, chunk=1000))
    assert [len(chunk) for chunk in chunks] == [20] * 5
    assert [len(chunk) for chunk in draw_weights(50, None, 3, 0, chunk=10)] == [1, 1, 1]


def test_images_of_a_group_are_drawn_together_and_unknown_ones_alone() -> None:
    groups = ["p", None, "q", "p", None, "q"]
    weights = np.concatenate(list(draw_weights(6, groups, 200, 0)))
    assert np.array_equal(weights[:, 0], weights[:, 3]) and np.array_equal(weights[:, 2], weights[:, 5])
    assert not np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 2, 4]].sum(axis=1) == 4).all()
    alone = [np.concatenate(list(draw_weights(6, names, 9, 0))) for names in (None, [None] * 6, list("abcdef"))]
    assert np.array_equal(alone[0], alone[1]) and np.array_equal(alone[0], alone[2])


def test_copies_of_an_image_in_one_group_make_no_interval_narrower() -> None:
    values = np.random.default_rng(0).normal(size=50)
    once = bootstrap([means({"x": values})], 50, replicates=400)
    four = means({"x": np.repeat(values, 4)})
    groups = [str(index // 4) for index in range(200)]
    assert bootstrap([four], 200, groups, replicates=400)["x"] == pytest.approx(once["x"])
    naive = bootstrap([four], 200, replicates=400)["x"]
    assert naive.high - naive.low < 0.6 * (once["x"].high - once["x"].low)


def test_the_same_seed_gives_the_same_interval() -> None:
    statistics = _statistics(np.arange(40))
    first, again, other = (bootstrap(statistics, 40, replicates=50, seed=seed) for seed in (1, 1, 2))
    assert first == again and first["accuracy"] != other["accuracy"]


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 500)
    found, half = bootstrap([means({"x": values})], 500)["x"], 1.96 * values.std() / math.sqrt(500)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


@pytest.mark.filterwarnings("error")
def test_one_image_has_an_interval_without_width() -> None:
    found = bootstrap([means({"dice": np.array([0.7]), "hd95": np.array([np.nan])})], 1, replicates=20)
    assert found["dice"] == Interval(0.7, 0.7, 0.7, 0)
    assert all(math.isnan(value) for value in found["hd95"][:3]) and found["hd95"].undefined == 20


def test_resamples_that_do_not_define_a_score_are_counted() -> None:
    values = np.array([0.25] + [np.nan] * 9)
    found = bootstrap([means({"x": values})], 10, replicates=1000)["x"]
    drawn = np.concatenate(list(draw_weights(10, None, 1000, 0)))[:, 0]
    assert found == (0.25, 0.25, 0.25, (drawn == 0).sum()) and found.undefined > 200


def test_faults_of_a_call_are_told() -> None:
    with pytest.raises(ValueError, match="at least one image, got 0"):
        bootstrap([], 0)
    with pytest.raises(ValueError, match="group of each of 3 images, got 2"):
        bootstrap([means({"x": np.zeros(3)})], 3, ["p", "q"])
    with pytest.raises(ValueError, match="'x' twice"):
        bootstrap([means({"x": np.zeros(3)})] * 2, 3)


def _differences(first: Floats, second: Floats, replicates: int = 2000, seed: int = 0) -> Difference:
    statistics = [means({"x": values}) for values in (first, second)]
    return bootstrap_differences([statistics[0]], [statistics[1]], len(first), None, replicates, seed)["x"]


def test_a_run_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(0).random(30)
    assert _differences(values, values) == Difference(0, 0, 0, 1, 0)


def test_a_constant_difference_is_certain_and_its_p_value_the_least_there_is() -> None:
    values = np.random.default_rng(0).random(30)
    found = _differences(values + 0.25, values)
    assert found[:3] == pytest.approx((0.25, 0.25, 0.25)) and found.p_value == 2 / 2001
    assert _differences(values, values + 0.25).value == pytest.approx(-0.25)


def test_pairs_leave_out_what_the_images_have_in_common() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(size=200)
    first, second = hard + 0.05 * generator.normal(size=200), hard + 0.05 * generator.normal(size=200)
    paired, alone = _differences(first, second), bootstrap([means({"x": first})], 200)["x"]
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, -0.15])
def test_p_values_are_near_those_of_a_paired_t_test(shift: float) -> None:
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(1)
    first, second = generator.normal(shift, 1, 300), generator.normal(0, 1, 300)
    assert _differences(first, second, 10_000).p_value == pytest.approx(ttest_rel(first, second).pvalue, abs=0.02)


def test_differences_are_of_the_scores_both_have_on_the_same_resamples() -> None:
    first, second = (class_scores(np.eye(3)[guess], np.arange(3), CLASSES) for guess in ([0, 1, 2], [0, 1, 1]))
    found = bootstrap_differences([first, means({"dice": np.ones(3)})], [second], 3, replicates=300)
    assert "dice" not in found and found["accuracy"].value == pytest.approx(1 / 3)
    assert found["sensitivity_c"].value == 1 and found["sensitivity_c"].undefined > 30
    assert math.isnan(found["precision_c"].p_value) and math.isnan(found["precision_c"].low)


def test_defined_in_all_pairs_what_each_lacks() -> None:
    first = {"dice": np.array([1.0, np.nan, 0.5]), "alone": np.zeros(3)}
    second = {"dice": np.array([np.nan, 0.25, 0.75])}
    pair = defined_in_all([first, second])
    assert pair[0].keys() == pair[1].keys() == {"dice"}
    assert np.array_equal(pair[0]["dice"], [np.nan, np.nan, 0.5], equal_nan=True)
    assert np.array_equal(pair[1]["dice"], [np.nan, np.nan, 0.75], equal_nan=True)


def test_intervals_of_a_mean_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        found = bootstrap([means({"x": generator.normal(size=100)})], 100, replicates=300, seed=trial)["x"]
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / 300 <= 0.98


@pytest.mark.slow
def test_intervals_of_an_area_hold_the_truth_and_p_values_are_uniform_without_a_difference() -> None:
    from scipy.stats import norm

    generator, held, small = np.random.default_rng(0), 0, 0
    truth, trials = norm.cdf(1 / math.sqrt(2)), 400
    for trial in range(trials):
        label = np.arange(150) % 2
        scores = [label + generator.normal(size=150) for _ in range(2)]
        areas = [ranking_scores(np.stack([-score, score], axis=1), label, ("a", "b")) for score in scores]
        found = bootstrap(areas[:1], 150, replicates=500, seed=trial)["auroc_b"]
        held += found.low <= truth <= found.high
        difference = bootstrap_differences(areas[:1], areas[1:], 150, replicates=500, seed=trial)["auroc_b"]
        small += difference.p_value < 0.1
    assert 0.92 <= held / trials <= 0.975 and 0.06 <= small / trials <= 0.14
