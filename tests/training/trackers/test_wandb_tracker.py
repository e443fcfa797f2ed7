from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb

from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.tracker import Layer, Picture
from lungseg.training.trackers.wandb_tracker import WandbTracker, finish_wandb


class Recorder:
    """Stands for a W&B run: what each call of `log` was given."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.defined: dict[str, dict[str, Any]] = {}
        self.name = ""
        self.artifacts: list[tuple[Any, list[str]]] = []

    def define_metric(self, name: str, **how: Any) -> None:
        self.defined[name] = how

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(WandbTracker, "experiment", recorder)
    return recorder


def test_pictures_have_their_layers_as_masks_and_may_be_kept_back(recorder: Recorder, tmp_path: Path) -> None:
    layer = Layer(np.eye(8, dtype=np.uint8), {1: "lung"})
    picture = Picture(np.zeros((8, 8, 3), np.uint8), {"true": layer}, "#1\n#2")
    tracker = WandbTracker(save_dir=tmp_path, offline=True)
    tracker.log_images("overlays", [picture], 3)
    tracker.finalize("failed")
    (row,) = recorder.logged
    (image,) = row["overlays"]
    assert row["epoch"] == 3 and isinstance(image, wandb.Image) and image._caption == "#1\n#2"
    assert set(image._masks) == {"true"} and image._masks["true"]._val["class_labels"] == {1: "lung"}
    recorder.logged.clear()
    tracker = WandbTracker(images=False, save_dir=tmp_path, offline=True)
    tracker.log_images("overlays", [picture], 3)
    tracker.finalize("success")
    assert not recorder.logged


PICTURE = Picture(np.zeros((4, 4), np.uint8), {}, "")


def test_all_of_an_epoch_stands_in_one_row_and_steps_have_their_own(recorder: Recorder, tmp_path: Path) -> None:
    tracker = WandbTracker(save_dir=tmp_path, offline=True)
    for epoch in (0, 1):
        tracker.log_metrics({"train/step_loss": 2.0, "epoch": epoch}, 10 * epoch + 5)
        tracker.log_images("overlays", [PICTURE], epoch)
        tracker.log_metrics({"val/dice": 0.5, "epoch": epoch}, 10 * epoch + 9)
        tracker.log_metrics({"train/loss": 1.0, "epoch": epoch}, 10 * epoch + 9)
        assert len(recorder.logged) == 2 * (epoch + 1), "the row is there when its epoch ends"
    step, epoch, *_ = recorder.logged
    assert step == {"train/step_loss": 2.0, "epoch": 0, "trainer/global_step": 5}
    assert epoch.keys() == {"overlays", "val/dice", "train/loss", "epoch", "trainer/global_step"}
    assert {name: how["step_metric"] for name, how in recorder.defined.items()} == dict.fromkeys(
        ("overlays", "val/dice", "train/loss"), "epoch"
    )


def test_each_validation_within_an_epoch_has_a_row(recorder: Recorder, tmp_path: Path) -> None:
    tracker = WandbTracker(save_dir=tmp_path, offline=True)
    for step in (4, 9):
        tracker.log_images("overlays", [PICTURE], 0)
        tracker.log_metrics({"val/dice": step / 10, "epoch": 0}, step)
    tracker.log_metrics({"train/loss": 1.0, "epoch": 0}, 9)
    tracker.log_metrics({"test/dice": 1.0, "epoch": 1}, 9)
    tracker.finalize("success")
    assert [(row["trainer/global_step"], "overlays" in row, "train/loss" in row) for row in recorder.logged] == [
        (4, True, False),
        (9, True, True),
        (9, False, False),
    ]


def test_the_summary_keeps_the_best_by_the_direction_of_a_score_and_the_best_epoch(
    recorder: Recorder, tmp_path: Path
) -> None:
    tracker = WandbTracker(save_dir=tmp_path, offline=True)
    for epoch, (dice, loss) in enumerate([(float("nan"), 3.0), (0.9, 1.0), (0.7, 2.0)]):
        tracker.log_metrics({"val/dice": dice, "val/loss": loss, "epoch": epoch}, epoch)
        tracker.log_metrics({"train/dice_loss": loss, "epoch": epoch}, epoch)
    assert recorder.summary == {"val/dice": 0.9, "val/loss": 1.0, "train/dice_loss": 1.0}
    tracker.log_result({"fit/best_epoch": 2, "val/dice": 0.7, "test/dice": 0.8})
    assert recorder.summary["best_epoch"] == 2 and recorder.summary["best/val/dice"] == 0.7
    assert recorder.summary["val/dice"] == 0.9 and recorder.summary["test/dice"] == 0.8
    recorder.summary.clear()
    rows = [{"epoch": "0", "train/step_loss": "0.1", "val/dice": "0.95", "val/loss": "3.0", "val/hit": ""}]
    resumed = WandbTracker(before=rows, save_dir=tmp_path, offline=True)
    resumed.log_metrics({"val/dice": 0.8, "val/loss": 1.0, "epoch": 1}, 1)
    resumed.finalize("success")
    assert recorder.summary == {"val/dice": 0.95, "val/loss": 1.0}


def test_wandb_gets_numbers_tables_and_curves_but_no_names_of_files(
    reported: Reported, untrained: Path, recorder: Recorder, tmp_path: Path
) -> None:
    results = reported.results
    WandbTracker(save_dir=tmp_path, offline=True).log_evaluation(reported)
    assert len(recorder.logged) == 1, "one step"
    logged = recorder.logged[0]
    assert logged["evaluation_test/dice"] == results.segmentation["dice"].value
    matrix = logged["evaluation_test/confusion_matrix"]
    assert isinstance(matrix, wandb.Table)
    assert [row[2] for row in matrix.data] == [count for row in results.confusion for count in row]
    assert {"evaluation_test/roc_curve", "evaluation_test/precision_recall_curve"} <= logged.keys()
    assert recorder.summary == {"evaluation_test/shortcuts": results.verdict.flag if results.verdict else None}
    said = repr([table.data for table in logged.values() if isinstance(table, wandb.Table)])
    assert str(untrained.parent) not in said and ".png" not in said


def test_a_model_is_an_artifact_called_as_its_run(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "model" / "checkpoints").mkdir(parents=True)
    (tmp_path / "model" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    recorder.name = "claims/both seed0"
    WandbTracker(save_dir=tmp_path, offline=True).log_model(tmp_path / "model", {"data_fingerprint": "abc"})
    ((artifact, aliases),) = recorder.artifacts
    assert (artifact.name, artifact.type, aliases) == ("claims-both-seed0", "model", ["best", "claims-both-seed0"])
    assert (
        list(artifact.manifest.entries) == ["checkpoints/best.ckpt"] and artifact.metadata["data_fingerprint"] == "abc"
    )


def test_what_a_server_has_not_taken_at_the_end_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def finish(exit_code: int) -> None:
        raise TimeoutError("Timed out finishing run.")

    run = SimpleNamespace(dir="/runs/one/wandb/run-1/files", offline=False)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run, finish=finish))
    finish_wandb(0)
    assert capsys.readouterr().out == "W&B         sending what is left, for 60 s at most\n"
    assert "not all was sent in 60 s; send the rest with: wandb sync /runs/one/wandb/run-1" in caplog.text

    def broken(exit_code: int) -> None:
        raise ConnectionError("its service is gone")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run, finish=broken))
    finish_wandb(0)
    assert caplog.messages[-1] == "W&B: its run could not be ended: its service is gone"
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None, finish=finish))
    finish_wandb(0)
    assert capsys.readouterr().out == ""
