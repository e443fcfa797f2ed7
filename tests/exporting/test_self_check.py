"""The check passes what is right and finds what is not; a smaller file's loss is measured, not supposed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungseg.errors import ExportError
from lungseg.exporting.files import _passed
from lungseg.exporting.graph import DeployedNetwork
from lungseg.exporting.quantisation_drop import Batch, compare, find_exam
from lungseg.exporting.self_check import Arrays, check_file
from lungseg.inference.torch_backend import TorchBackend, load_torch
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run


@pytest.fixture(scope="module")
def backend(untrained: Path) -> TorchBackend:
    return load_torch(Run.open(untrained), "cpu")


def _runner(backend: TorchBackend, planted: dict[str, Any]) -> Run:
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
    assert "largest difference from the network" in _passed(check, "the network")


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
        _passed(check, "the network")


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
    batch = Batch(np.zeros((3, 4, 4), np.uint8), lung, np.array([True, True, False]), np.array([0, 1, -1]))
    scores = compare({"x": lambda _: {"mask_probs": found, "label": np.array([0, 2, 2])}}, iter([batch, batch]))["x"]
    assert scores.images == 6
    assert scores.dice == pytest.approx((0.5 + 0) / 2)
    assert scores.pixel_accuracy == pytest.approx((8 / 16 + 12 / 16) / 2)
    assert scores.accuracy == 0.5


def test_val_and_train_of_a_run_or_phantoms_with_the_reason(untrained: Path, tmp_path: Path) -> None:
    info = ModelInfo(("COVID-19", "Non-COVID", "Normal"), 64, True, 8)
    own = find_exam(untrained, info)
    assert own.note == "" and own.name.startswith("Val of ")
    assert [len(batch.label) for batch in own.batches()] == [2, 2, 2]
    assert len(own.calibration()) == 12 and own.calibration()[0].shape == (64, 64)
    other = find_exam(tmp_path, info)
    assert "no checkpoint in" in other.note and "phantoms" in other.name
    batch = next(other.batches())
    assert batch.images.shape == (1, 64, 64) and batch.label.tolist() == [0] and batch.lung.any()
