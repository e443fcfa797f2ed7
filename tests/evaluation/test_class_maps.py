from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.evaluation.class_maps import measure_class_maps
from lungseg.evaluation.subject import Subject, load_subject
from lungseg.evaluation.trust import measure_trust

CAM = ("cam", "features")


@pytest.fixture(scope="module")
def subject(untrained: Path) -> Subject:
    return load_subject(untrained, [], "val")


def test_rows_are_those_of_the_split_in_order_with_what_the_network_says(subject: Subject) -> None:
    rows = measure_class_maps(subject)[CAM].per_image
    assert [row["id"] for row in rows] == [sample.id for sample in subject.samples]
    batches = list(subject.batches())
    images, lung = (torch.cat([batch[name] for batch in batches]) for name in ("image", "lung"))
    with torch.no_grad():
        output = subject.network(images)
    predicted = output.class_logits.argmax(1)
    cam = resize_map(class_map_of(output, predicted), 8, (64, 64))
    share = evidence_in_lungs(cam, lung[:, 0] > 0.5)
    assert [row["predicted"] for row in rows] == [subject.classes[int(label)] for label in predicted]
    assert [row["evidence_in_lungs"] for row in rows] == pytest.approx(share.tolist(), abs=1e-5, nan_ok=True)
    masks = output.mask_logits[:, 0] > 0
    dice = 2 * (masks & (lung[:, 0] > 0.5)).sum((1, 2)) / (masks.sum((1, 2)) + (lung[:, 0] > 0.5).sum((1, 2)))
    assert [row["dice"] for row in rows] == pytest.approx(dice.tolist(), abs=1e-6)


def test_images_without_infection_are_counted_as_undefined_and_never_scored(subject: Subject) -> None:
    found = measure_class_maps(subject)[CAM]
    whole = found.localisation["infection"]["all"]
    infected = sum(not math.isnan(row["infected_share"]) for row in found.per_image)
    assert 0 < infected < len(found.per_image)
    assert (whole["n"], whole["undefined"]) == (infected, len(found.per_image) - infected)
    assert all(math.isnan(row["infection_hit"]) == math.isnan(row["infected_share"]) for row in found.per_image)
    assert found.localisation["lungs"]["all"]["n"] == len(found.per_image)


def test_means_are_those_of_the_rows(subject: Subject) -> None:
    found = measure_class_maps(subject)[CAM]
    shares = [row["evidence_in_lungs"] for row in found.per_image if not math.isnan(row["evidence_in_lungs"])]
    assert found.evidence["all"]["evidence_in_lungs"] == pytest.approx(sum(shares) / len(shares))
    assert found.evidence["all"]["n"] + found.evidence["all"]["no_evidence"] == len(found.per_image)
    hits = [row["lungs_hit"] for row in found.per_image]
    assert found.localisation["lungs"]["all"]["hit"] == pytest.approx(sum(hits) / len(hits))


def test_the_threshold_is_never_tuned_on_the_images_it_is_measured_on(untrained: Path) -> None:
    val = measure_class_maps(load_subject(untrained, [], "val"))[CAM]
    test = measure_class_maps(load_subject(untrained, [], "test"))[CAM]
    assert len(val.threshold["lungs"]) == 2  # of two halves, each tuned on the other
    assert len(test.threshold["lungs"]) == 1  # of Val
    whole = load_subject(untrained, ["data.batch_size=6"], "val")
    assert "iou_tuned" not in measure_class_maps(whole)[CAM].localisation["lungs"]["all"]  # one batch: nothing to part


def test_the_true_class_can_be_asked_for(subject: Subject) -> None:
    shown = measure_class_maps(subject)[CAM].per_image
    asked = measure_class_maps(subject, target="label")[CAM].per_image
    for first, second in zip(shown, asked, strict=True):
        same = first["evidence_in_lungs"] == pytest.approx(second["evidence_in_lungs"], nan_ok=True)
        assert same == (first["predicted"] == first["label"])


@pytest.mark.parametrize("way", [("grad_cam", "features"), ("layer_cam", "encoder.2"), ("eigen_cam", "decoder.2")])
def test_other_methods_and_layers_are_measured_at_the_images_size(subject: Subject, way: tuple[str, str]) -> None:
    rows = measure_class_maps(subject, [way])[way].per_image
    assert len(rows) == 6 and all(0 <= row["peak_row_px"] < 64 for row in rows if not math.isnan(row["peak_row_px"]))


def test_trust_holds_curves_and_every_stage(subject: Subject) -> None:
    found = measure_trust(subject, CAM, images=4)
    assert found["images"] == 4 and len(found["deletion_curve"]) == 21
    assert list(found["randomisation"])[:2] == ["classifier", "merge"]
    assert found["deletion_curve"][0] == pytest.approx(found["insertion_curve"][-1], abs=1e-5)
