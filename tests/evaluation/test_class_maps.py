from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lungseg.cam.localize import ThresholdTuner, measure_localisation
from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.evaluation.class_maps import MapMeasurements, map_statistic, measure_maps
from lungseg.evaluation.faithfulness_study import measure_trust
from lungseg.evaluation.measure import CAM, measure
from lungseg.evaluation.outputs import Target, Way, look_at
from lungseg.evaluation.statistics import score_set
from lungseg.evaluation.target import Subject, load_subject


@pytest.fixture(scope="module")
def subject(untrained: Path) -> Subject:
    return load_subject(untrained, [], "val")


def maps_of(subject: Subject, way: Way = CAM, target: Target = "predicted") -> MapMeasurements:
    return measure(subject, [way], target).maps[way]


def test_rows_are_those_of_the_split_in_order(subject: Subject) -> None:
    rows = maps_of(subject).per_image
    batches = list(subject.batches())
    images, lung = (torch.cat([batch[name] for batch in batches]) for name in ("image", "lung"))
    with torch.no_grad():
        output = subject.network(images)
    predicted = output.class_logits.argmax(1)
    cam = resize_map(class_map_of(output, predicted), 8, (64, 64))
    share = evidence_in_lungs(cam, lung[:, 0] > 0.5)
    assert [row["evidence_in_lungs"] for row in rows] == pytest.approx(share.tolist(), abs=1e-5, nan_ok=True)


def test_images_without_infection_are_counted_as_undefined_and_never_scored(subject: Subject) -> None:
    found = maps_of(subject)
    whole = found.localisation["infection"]["all"]
    infected = sum(not math.isnan(row["infected_share"]) for row in found.per_image)
    assert 0 < infected < len(found.per_image)
    assert (whole["n"], whole["undefined"]) == (infected, len(found.per_image) - infected)
    assert all(math.isnan(row["infection_hit"]) == math.isnan(row["infected_share"]) for row in found.per_image)
    assert found.localisation["lungs"]["all"]["n"] == len(found.per_image)


def test_means_are_those_of_the_rows(subject: Subject) -> None:
    found = maps_of(subject)
    shares = [row["evidence_in_lungs"] for row in found.per_image if not math.isnan(row["evidence_in_lungs"])]
    assert found.evidence["all"].evidence_in_lungs == pytest.approx(sum(shares) / len(shares))
    assert found.evidence["all"].n + found.evidence["all"].no_evidence == len(found.per_image)
    hits = [row["lungs_hit"] for row in found.per_image]
    assert found.localisation["lungs"]["all"]["hit"] == pytest.approx(sum(hits) / len(hits))


def test_the_threshold_is_never_tuned_on_the_images_it_is_measured_on(untrained: Path) -> None:
    val = maps_of(load_subject(untrained, [], "val"))
    test = maps_of(load_subject(untrained, [], "test"))
    assert len(val.threshold["lungs"]) == 2  # of two halves, each tuned on the other
    assert len(test.threshold["lungs"]) == 1  # of Val


def test_the_threshold_of_a_half_is_that_of_the_other_half_alone(untrained: Path) -> None:
    subject = load_subject(untrained, [], "val")
    halves = subject.halves()
    looks = look_at(subject, [CAM])
    both = measure_maps(subject, CAM, looks, None, halves)
    tuner = ThresholdTuner()
    for look, half in zip(looks, np.split(halves, 3), strict=True):
        chosen = torch.from_numpy(half == 1)
        tuner.update(resize_map(look.maps[CAM], 8, look.size)[chosen], look.lung()[chosen])
    assert both.threshold["lungs"][0] == tuner.best()
    first = int(np.flatnonzero(halves == 0)[0])
    cam, lung = resize_map(looks[0].maps[CAM], 8, (64, 64))[:1], looks[0].lung()[:1]
    expected = measure_localisation(cam, lung, threshold=tuner.best())["iou_tuned"]
    assert first == 0 and both.per_image[0]["lungs_iou_tuned"] == pytest.approx(float(expected))


def test_the_batch_size_does_not_matter(untrained: Path, subject: Subject) -> None:
    whole = maps_of(load_subject(untrained, ["data.batch_size=6"], "val"))
    for one, other in zip(whole.per_image, maps_of(subject).per_image, strict=True):
        assert one == pytest.approx(other, abs=1e-4, nan_ok=True)


def test_intervals_are_around_the_means_by_group(subject: Subject) -> None:
    measured = measure(subject)
    found = measured.maps[CAM]
    scores = score_set(map_statistic(found, measured.label, measured.classes), len(measured.label))
    assert scores["evidence_in_lungs"] == pytest.approx(found.evidence["all"].evidence_in_lungs)
    for name in measured.classes:
        assert scores[f"lungs_hit_{name}"] == pytest.approx(found.localisation["lungs"][name]["hit"])
        assert scores[f"infection_energy_{name}"] == pytest.approx(
            found.localisation["infection"][name]["energy"], nan_ok=True
        )


def test_the_true_class_can_be_asked_for(subject: Subject) -> None:
    measured = measure(subject)
    asked = maps_of(subject, target="label").per_image
    right = measured.logits.argmax(axis=1) == measured.label
    for first, second, correct in zip(measured.maps[CAM].per_image, asked, right, strict=True):
        same = first["evidence_in_lungs"] == pytest.approx(second["evidence_in_lungs"], nan_ok=True)
        assert same == correct


@pytest.mark.parametrize("way", [("grad_cam", "features"), ("layer_cam", "encoder.2"), ("eigen_cam", "decoder.2")])
def test_other_methods_and_layers_are_measured_at_the_images_size(subject: Subject, way: tuple[str, str]) -> None:
    rows = maps_of(subject, way).per_image
    assert len(rows) == 6 and all(0 <= row["peak_row_px"] < 64 for row in rows if not math.isnan(row["peak_row_px"]))


def test_trust_holds_curves_and_every_stage(subject: Subject) -> None:
    found = measure_trust(subject, CAM, images=4)
    assert found.images == 4 and len(found.deletion_curve) == 21
    assert list(found.randomisation)[:2] == ["classifier", "merge"]
    interval = found.intervals["deletion_area"]
    assert interval.value is not None and interval.low is not None
    assert interval.value == pytest.approx(found.deletion_area)
    assert interval.low <= interval.value
    gain = found.random_deletion_area - found.deletion_area
    assert found.intervals["deletion_gain"].value == pytest.approx(gain, abs=1e-6)
    assert found.deletion_curve[0] == pytest.approx(found.insertion_curve[-1], abs=1e-5)
