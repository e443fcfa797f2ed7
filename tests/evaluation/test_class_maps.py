from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lungseg.cam.localize import THRESHOLDS, best_threshold, measure_localisation
from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.config import ModelConfig
from lungseg.evaluation.class_maps import MapMeasurements, map_statistic, measure_baselines, measure_maps
from lungseg.evaluation.measure import measure
from lungseg.evaluation.outputs import CLOSED_FORM, CamMethod, MapClass, collect_outputs
from lungseg.evaluation.sections import measure_faithfulness
from lungseg.evaluation.statistics import score_set
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.models.network import LungNetwork


@pytest.fixture(scope="module")
def target(untrained: Path) -> EvaluationTarget:
    return load_target(untrained, [], "val")


def maps_of(
    target: EvaluationTarget, method: CamMethod = CLOSED_FORM, map_class: MapClass = "predicted"
) -> MapMeasurements:
    return measure(target, [method], map_class).maps[method]


def test_rows_are_those_of_the_split_in_order(target: EvaluationTarget) -> None:
    found = maps_of(target).per_image
    batches = list(target.batches())
    images, lung = (torch.cat([batch[name] for batch in batches]) for name in ("image", "lung"))
    with torch.no_grad():
        output = target.network(images)
    predicted = output.class_logits.argmax(1)
    cam = resize_map(class_map_of(output, predicted), 8, (64, 64))
    share = evidence_in_lungs(cam, lung[:, 0] > 0.5)
    assert found["evidence_in_lungs"] == pytest.approx(share.numpy(), abs=1e-5, nan_ok=True)


def test_images_without_infection_are_counted_as_undefined_and_never_scored(target: EvaluationTarget) -> None:
    found = maps_of(target)
    whole = found.localisation["infection"]["all"]
    healthy = np.isnan(found.per_image["infected_share"])
    assert 0 < healthy.sum() < 6
    assert (whole["n"], whole["undefined"]) == (6 - healthy.sum(), healthy.sum())
    assert np.array_equal(np.isnan(found.per_image["infection_hit"]), healthy)
    assert found.localisation["lungs"]["all"]["n"] == 6


def test_without_predicted_lungs_there_is_no_cropped_map_to_score(
    target: EvaluationTarget, tiny_model: ModelConfig
) -> None:
    network = LungNetwork(dataclasses.replace(tiny_model, map_stride=8, lung=False), 3).eval()
    found = maps_of(dataclasses.replace(target, network=network)).per_image
    assert np.isnan(found["infection_in_lungs_hit"]).all() and not np.isnan(found["infection_hit"]).all()


def test_means_are_those_of_the_rows(target: EvaluationTarget) -> None:
    found = maps_of(target)
    assert found.evidence["all"].evidence_in_lungs == pytest.approx(np.nanmean(found.per_image["evidence_in_lungs"]))
    assert found.evidence["all"].n + found.evidence["all"].no_evidence == 6
    assert found.localisation["lungs"]["all"]["hit"] == pytest.approx(found.per_image["lungs_hit"].mean())


def test_the_threshold_is_never_tuned_on_the_images_it_is_measured_on(untrained: Path) -> None:
    val = maps_of(load_target(untrained, [], "val"))
    test = maps_of(load_target(untrained, [], "test"))
    assert len(val.threshold["lungs"]) == 2  # of two halves, each tuned on the other
    assert len(test.threshold["lungs"]) == 1  # of Val


def test_the_threshold_of_a_half_is_that_of_the_other_half_alone(untrained: Path) -> None:
    target = load_target(untrained, [], "val")
    halves = target.halves()
    outputs = collect_outputs(target, [CLOSED_FORM])
    both = measure_maps(target, CLOSED_FORM, outputs, None, halves)
    cams, lungs = [
        torch.cat(parts)
        for parts in zip(*((resize_map(o.maps[CLOSED_FORM], 8, o.size), o.lung()) for o in outputs), strict=True)
    ]
    ious = measure_localisation(cams, lungs, thresholds=THRESHOLDS)["ious"]
    best = best_threshold(ious[torch.from_numpy(halves == 1)])
    assert best is not None and both.threshold["lungs"][0] == best
    first = int(np.flatnonzero(halves == 0)[0])
    expected = ious[first, THRESHOLDS.index(best)]
    assert both.per_image["lungs_iou_tuned"][first] == pytest.approx(float(expected))


def test_the_batch_size_does_not_matter(untrained: Path, target: EvaluationTarget) -> None:
    whole = maps_of(load_target(untrained, ["data.batch_size=6"], "val"))
    for name, column in maps_of(target).per_image.items():
        assert whole.per_image[name] == pytest.approx(column, abs=1e-4, nan_ok=True)


def test_intervals_are_around_the_means_by_group(target: EvaluationTarget) -> None:
    measured = measure(target)
    found = measured.maps[CLOSED_FORM]
    scores = score_set(map_statistic(found, measured.label, measured.classes), len(measured.label))
    assert scores["evidence_in_lungs"] == pytest.approx(found.evidence["all"].evidence_in_lungs)
    for name in measured.classes:
        assert scores[f"lungs_hit_{name}"] == pytest.approx(found.localisation["lungs"][name]["hit"])
        assert scores[f"infection_energy_{name}"] == pytest.approx(
            found.localisation["infection"][name]["energy"], nan_ok=True
        )


def test_the_lungs_as_a_map_score_by_the_share_of_them_that_is_infected(target: EvaluationTarget) -> None:
    measured = measure(target)
    assert measured.baselines.keys() == {"lungs"}  # this network predicts no infection
    columns, share = measured.baselines["lungs"], measured.maps[CLOSED_FORM].per_image["infected_share"]
    for score in ("hit", "energy", "iou_tuned"):  # infection lies in the lungs, so all three are its share of them
        assert columns[f"infection_{score}"] == pytest.approx(share, abs=1e-6, nan_ok=True)


def test_predicted_infection_as_a_map_is_that_of_the_network(target: EvaluationTarget) -> None:
    model = dataclasses.replace(target.config.model, infection=True)
    torch.manual_seed(1)
    target = dataclasses.replace(target, network=LungNetwork(model, 3).eval())
    outputs = collect_outputs(target, [CLOSED_FORM])
    for kept, batch in zip(outputs, target.batches(), strict=True):
        with torch.no_grad():
            probs = target.network(batch["image"]).mask_logits[:, 1].sigmoid()
        expected = probs if batch["infection"].any() else torch.zeros_like(probs)
        torch.testing.assert_close(kept.infection_probs(), expected, atol=0.51 / 255, rtol=0)
    found = measure_baselines(target, outputs, None, target.halves())["predicted_infection"]
    cam, infection = outputs[0].infection_probs(), outputs[0].mask("infection")
    expected = measure_localisation(cam, infection)["average_precision"]
    assert found["infection_average_precision"][:2] == pytest.approx(expected.numpy(), nan_ok=True)


def test_the_true_class_can_be_asked_for(target: EvaluationTarget) -> None:
    measured = measure(target)
    asked = maps_of(target, map_class="label").per_image
    right = measured.logits.argmax(axis=1) == measured.label
    shares = (columns["evidence_in_lungs"] for columns in (measured.maps[CLOSED_FORM].per_image, asked))
    assert np.array_equal(np.isclose(*shares, equal_nan=True), right)


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam@encoder.2", "eigen_cam@decoder.2"])
def test_other_methods_and_layers_are_measured_at_the_images_size(target: EvaluationTarget, name: str) -> None:
    peaks = maps_of(target, CamMethod.parse(name)).per_image["peak_row_px"]
    assert len(peaks) == 6 and all(0 <= peak < 64 for peak in peaks if not math.isnan(peak))


def test_trust_holds_curves_and_every_stage(target: EvaluationTarget) -> None:
    found = measure_faithfulness(target, CLOSED_FORM, images=4)
    assert found.images == 4 and len(found.deletion_curve) == 21
    assert list(found.randomisation)[:2] == ["classifier", "merge"]
    interval = found.intervals["deletion_area"]
    assert interval.value is not None and interval.low is not None
    assert interval.value == pytest.approx(found.deletion_area)
    assert interval.low <= interval.value
    gain = found.random_deletion_area - found.deletion_area
    assert found.intervals["deletion_gain"].value == pytest.approx(gain, abs=1e-6)
    assert found.deletion_curve[0] == pytest.approx(found.insertion_curve[-1], abs=1e-5)
