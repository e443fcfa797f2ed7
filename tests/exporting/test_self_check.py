"""The check passes what is right and finds what is not; a smaller file's loss is measured, not supposed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungseg.errors import ExportError
from lungseg.exporting.export_model import _passed
from lungseg.exporting.graph import DeployedNetwork
from lungseg.exporting.precision import compare, find_images
from lungseg.exporting.self_check import Arrays, ExportedModel, check_file
from lungseg.inference.torch_backend import TorchBackend, load_torch
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run


@pytest.fixture(scope="module")
def backend(untrained: Path) -> TorchBackend:
    return load_torch(Run.open(untrained), "cpu")


def _runner(backend: TorchBackend, planted: dict[str, Any]) -> ExportedModel:
    module = DeployedNetwork(backend.network, backend.info).eval()

    def run(images: Any) -> Arrays:
        with torch.inference_mode():
            found = {name: tensor.numpy() for name, tensor in module(torch.from_numpy(images)).items()}
        return found | {name: change(found[name]) for name, change in planted.items()}

    return run


def test_the_module_does_what_the_network_does(backend: TorchBackend) -> None:
    check = check_file(_runner(backend, {}), backend.network, backend.info)
    assert check.largest < 1e-5
    assert check.levels <= 1 and check.share < 0.05
    assert "largest difference from the network" in _passed(check)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mask_probs", lambda value: value + np.float32(2e-4)),
        ("class_probs", lambda value: value[:, ::-1]),
        ("label", lambda value: (value + 1) % 3),
        ("lung_map_full", lambda value: value * np.float32(0.99)),
        ("evidence_in_lungs", lambda value: value * np.float32(np.nan)),
    ],
)
def test_a_planted_fault_is_found_and_nothing_is_written(backend: TorchBackend, name: str, change: Any) -> None:
    check = check_file(_runner(backend, {name: change}), backend.network, backend.info)
    with pytest.raises(ExportError, match=r"the file differs from the network by .*not written"):
        _passed(check)


def test_the_outputs_of_infection_are_checked_too(untrained_infection: Path, backend: TorchBackend) -> None:
    infected = load_torch(Run.open(untrained_infection), "cpu")
    check = check_file(_runner(infected, {}), infected.network, infected.info)
    assert check.largest < 1e-5
    names = {"infection_probs", "infection_probs_full"}
    assert names <= set(check.differences)
    for name in names:
        planted = {name: lambda value: value + np.float32(2e-4)}
        assert check_file(_runner(infected, planted), infected.network, infected.info).worst == name
    without = DeployedNetwork(backend.network, backend.info)(torch.zeros(1, 64, 64, dtype=torch.uint16))
    assert not names & set(without)


def test_another_letterbox_is_reported(backend: TorchBackend) -> None:
    check = check_file(
        _runner(backend, {"square": lambda value: np.where(value < 250, value + 3, value)}),
        backend.network,
        backend.info,
    )
    assert check.levels >= 3 and check.share > 0.5


def test_scores_of_planted_masks_by_hand() -> None:
    lung = np.zeros((3, 4, 4), bool)
    lung[0, :2], lung[1, 0] = True, True
    found = np.zeros((3, 4, 4), np.float32)
    found[0, 1:3], found[2, 3] = 1.0, 1.0
    batch = {
        "image": torch.zeros(3, 1, 4, 4),
        "lung": torch.from_numpy(lung)[:, None].float(),
        "infection": torch.from_numpy(lung)[:, None].float(),
        "has_infection": torch.tensor([True, False, True]),  # of the last it is empty
        "label": torch.tensor([0, 1, -1]),
        "has_lung": torch.tensor([True, True, False]),
        "has_label": torch.tensor([True, True, False]),
    }
    outputs = {"mask_probs": found, "infection_probs": 1 - found, "label": np.array([0, 2, 2])}
    scores = compare({"x": lambda _: outputs}, [batch, batch])["x"]
    assert scores.images == 6
    assert scores.dice == pytest.approx((0.5 + 0) / 2)
    assert scores.pixel_accuracy == pytest.approx((8 / 16 + 12 / 16) / 2)
    assert scores.infection_dice == pytest.approx(0.5)  # of the first alone: 4 of its 8 pixels, and 8 predicted
    assert scores.accuracy == 0.5


def test_no_image_with_a_target_gives_no_score(recwarn: pytest.WarningsRecorder) -> None:
    nothing = {"has_lung": torch.tensor([False]), "has_label": torch.tensor([False]), "label": torch.tensor([-1])}
    empty = {name: torch.zeros(1, 1, 4, 4) for name in ("image", "lung", "infection")}
    batch = empty | nothing | {"has_infection": torch.tensor([False])}
    outputs = {"mask_probs": np.zeros((1, 4, 4), np.float32), "label": np.array([0])}
    scores = compare({"x": lambda _: outputs}, [batch])["x"]
    assert scores.images == 1 and np.isnan(scores[1:]).all()
    assert not recwarn.list


def test_val_and_train_of_a_run_or_phantoms_with_the_reason(untrained: Path, own_run: Path) -> None:
    info = ModelInfo(("COVID-19", "Non-COVID", "Normal"), 64, True, 8)
    own = find_images(Run.open(untrained), info)
    assert own.caveat == "" and own.name.startswith("Val of ")
    assert [len(batch["label"]) for batch in own.batches] == [2, 2, 2]
    calibration = list(own.calibration)
    assert len(calibration) == 12 and calibration[0].shape == (64, 64)
    config = own_run / "config.yaml"
    config.write_text(re.sub("root: .*", "root: gone", config.read_text(), count=1))
    other = find_images(Run.open(own_run), info)
    assert "gone" in other.caveat and "phantoms" in other.name
    batch = next(iter(other.batches))
    assert batch["image"].shape == (1, 1, 64, 64) and batch["label"].tolist() == [0] and batch["lung"].any()
