from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lungseg.config import DataConfig
from lungseg.data.sample import Sample
from lungseg.evaluation.measure import Measured, image_columns, measure, read_spacings
from lungseg.evaluation.outputs import CLOSED_FORM, Picture, collect_outputs
from lungseg.evaluation.segmentation import measure_masks
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.evaluation.temperature import nothing


@pytest.fixture(scope="module")
def target(untrained: Path) -> EvaluationTarget:
    return load_target(untrained, [], "val")


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return []


@pytest.fixture(scope="module")
def measured(target: EvaluationTarget, pictures: list[Picture]) -> Measured:
    return measure(target, show=pictures.append)


@pytest.fixture(scope="module")
def everything(target: EvaluationTarget) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, true lungs, mask logits and class logits of the split."""
    batches = list(target.batches())
    images, lung = (torch.cat([batch[name] for batch in batches]) for name in ("image", "lung"))
    with torch.no_grad():
        output = target.network(images)
    return images[:, 0], lung[:, 0] > 0.5, output.mask_logits[:, 0], output.class_logits


def broken(target: EvaluationTarget) -> EvaluationTarget:
    """The same with a network that gives NaN only."""
    network = copy.deepcopy(target.network)
    for parameter in network.parameters():
        parameter.data.fill_(torch.nan)
    return dataclasses.replace(target, network=network)


def test_logits_labels_and_masks_are_those_of_the_network(measured: Measured, everything) -> None:
    _, lung, mask_logits, class_logits = everything
    assert measured.logits == pytest.approx(class_logits.numpy(), abs=1e-5)
    assert measured.probs == pytest.approx(class_logits.softmax(1).numpy(), abs=1e-6)
    assert measured.label.tolist() == [sample.label for sample in measured.samples]
    expected = measure_masks((mask_logits > 0).numpy(), lung.numpy(), lungs=True)
    assert measured.masks.keys() == {"lung"}  # this network predicts no infection
    assert measured.masks["lung"].index.tolist() == list(range(6))
    for name, values in measured.masks["lung"].scores.items():
        assert values == pytest.approx(expected[name], nan_ok=True), name


def test_every_picture_comes_with_what_is_shown_of_it(measured: Measured, pictures: list[Picture], everything) -> None:
    images, lung, mask_logits, _ = everything
    ordered = sorted(pictures, key=lambda picture: picture.number)
    assert [picture.number for picture in ordered] == list(range(6))
    for picture, image, true, logits in zip(ordered, images, lung, mask_logits, strict=True):
        assert np.array_equal(picture.image, image.numpy()) and np.array_equal(picture.lung, true.numpy())
        assert np.array_equal(picture.predicted_lung, (logits > 0).numpy())
        assert picture.predicted_infection is None and picture.infection is not None
        assert picture.cam.shape == (64, 64)


def test_masks_are_kept_small_and_come_back_as_they_were(target: EvaluationTarget, everything) -> None:
    outputs = collect_outputs(target, [CLOSED_FORM])
    assert torch.equal(torch.cat([one.mask("lung") for one in outputs]), everything[1])
    assert torch.equal(torch.cat([one.mask("predicted_lung") for one in outputs]), everything[2] > 0)
    assert not outputs[0].mask("predicted_infection").any()
    assert sum(len(bits) for bits in outputs[0].packed.values()) < 64 * 64  # of two images, three masks each


def test_without_true_lungs_the_predicted_ones_hold_the_evidence(target: EvaluationTarget) -> None:
    batch_outputs = collect_outputs(target, [CLOSED_FORM])[0]
    batch_outputs.known["lung"] = np.array([True, False])
    assert torch.equal(batch_outputs.lung()[0], batch_outputs.mask("lung")[0])
    assert torch.equal(batch_outputs.lung()[1], batch_outputs.mask("predicted_lung")[1])


def test_val_is_passed_over_for_what_is_tuned_there_and_not_measured_with_itself(
    untrained: Path, measured: Measured
) -> None:
    test = measure(load_target(untrained, [], "test"))
    assert test.val_logits == pytest.approx(measured.logits, abs=1e-5)
    assert test.val_label is not None and test.val_label.tolist() == measured.label.tolist()
    assert measured.val_logits is None


def test_rows_hold_what_was_measured(measured: Measured) -> None:
    columns = image_columns(measured, CLOSED_FORM, nothing(6, 3))
    assert columns["id"] == [sample.id for sample in measured.samples]
    predicted = measured.logits.argmax(axis=1)
    assert columns["predicted"] == [measured.classes[index] for index in predicted]
    pairs = zip(columns["predicted"], columns["label"], strict=True)
    assert columns["correct"] == [one == other for one, other in pairs]
    assert columns["confidence"] == pytest.approx(measured.probs[range(6), predicted])
    assert columns["dice"] == measured.masks["lung"].scores["dice"].tolist()
    assert columns["pixels_true"] == measured.masks["lung"].scores["pixels_true"].tolist()
    assert columns["has_infection_mask"] == [True] * 6


@pytest.mark.filterwarnings("error")
def test_outputs_that_are_not_finite_are_marked_and_never_scored(target: EvaluationTarget) -> None:
    found = measure(broken(target))
    assert np.isnan(found.probs).all() and found.broken_masks == 6 and found.maps[CLOSED_FORM].broken == 6
    assert found.masks["lung"].scores["dice"].tolist() == [0.0] * 6
    row = {name: values[0] for name, values in image_columns(found, CLOSED_FORM, nothing(6, 3)).items()}
    assert row["predicted"] == "" and np.isnan(row["correct"]) and np.isnan(row["prob_Normal"])
    assert np.isnan(row["evidence_in_lungs"]) and np.isnan(row["lungs_hit"])
    assert found.maps[CLOSED_FORM].localisation["lungs"]["all"]["undefined"] == 6


def test_halves_part_every_other_image_and_keep_groups_together(target: EvaluationTarget) -> None:
    assert target.halves().tolist() == [0, 1, 0, 1, 0, 1]
    groups = ["a", "a", "b", None, "b", "a"]
    samples = [dataclasses.replace(s, group=g) for s, g in zip(target.samples, groups, strict=True)]
    data = copy.copy(target.data)
    data.samples = {**target.data.samples, "val": samples}
    assert dataclasses.replace(target, data=data).halves().tolist() == [0, 0, 1, 0, 1, 0]


def test_the_size_of_a_pixel_is_that_of_the_square_the_network_sees(tmp_path: Path, phantoms: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns, dataset.PixelSpacing = 100, 200, [0.5, 0.25]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(100 * 200)
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    png = next(phantoms.rglob("*.png"))
    samples = [Sample(name.name, name, None, None, None, "test") for name in (tmp_path / "x.dcm", png)]
    letterboxed = read_spacings(samples, DataConfig(image_size=64))
    assert letterboxed[0] == pytest.approx([0.5 * 100 / 32, 0.25 * 200 / 64])  # 64 x 32 inside the square
    assert np.isnan(letterboxed[1]).all()
    stretched = read_spacings(samples, DataConfig(image_size=64, keep_aspect=False))
    assert stretched[0] == pytest.approx([0.5 * 100 / 64, 0.25 * 200 / 64])
