"""Several findings an image, masks alone, classes alone: each from fit to report, predictions and export."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from finding_set import FINDINGS, write_finding_set

from lungseg import compare, evaluate, export, fit, predict
from lungseg.command import run_command

TINY = [
    *("data.image_size=64", "data.batch_size=4", "data.workers=0", "model.encoder=tu-test_efficientnet"),
    *("model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
    *("overlays.samples=2", "wandb.mode=disabled", "run.report=false"),
]
FEW = ["--faithfulness", "3", "--robustness", "3", "--shortcuts", "3", "--bootstraps", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `set`, a manifest of findings with lung masks, and `bare`, class folders without masks."""
    folder = tmp_path_factory.mktemp("outputs")
    rows = csv.DictReader(write_finding_set(folder / "set", 14, 14, 14).open())
    for row in rows:
        target = folder / "bare" / row["split"] / ("ill" if "|" in row["label"] else "well") / row["image"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "set" / row["image"], target)
    return folder


def run(command: Any, *words: str) -> int:
    return run_command(command.main, command._parser(), list(words))


def measured(run_folder: Path) -> dict[str, Any]:
    return dict(json.loads((run_folder / "evaluation" / "test" / "metrics.json").read_text()))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_several_findings_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)
    words = ["data.root=set/manifest.csv", "data.multi_label=true", "augment.mixup=0.4", "loss.class_weights=balanced"]
    assert run(fit, *TINY, *words, "run.name=a", "run.monitor=val/auroc") == 0
    header = set(rows_of(folder / "runs/a/metrics.csv")[0])
    assert {"val/auroc", "val/average_precision", "val/f1_marker", "val/sensitivity_opacities"} <= header
    assert not {"val/accuracy", "val/balanced_accuracy"} & header

    assert run(evaluate, "--checkpoint", "runs/a", *FEW) == 0
    found = measured(folder / "runs/a")
    assert {"auroc", "average_precision", "f1", "f1_marker", "auroc_opacities"} <= found["classification"].keys()
    assert found["verdict"] is None and found["operating_points"]["sensitivity_wanted"] is None
    assert "auroc" in found["robustness"]["curves"]["noise"]["points"][-1]["scores"]
    assert any("evidence for it against its absence" in note for note in found["notes"])
    table = rows_of(folder / "runs/a/evaluation/test/per_image.csv")
    assert len({row["label"] for row in table}) == 7
    for row in table:
        there = [name for name in sorted(FINDINGS) if row[f"true_{name}"] == "1"]
        assert row["label"] == ("|".join(there) or "none")
    assert (folder / "runs/a/evaluation/test/report.html").is_file()

    # What is called follows from the thresholds kept with the run, whatever the backend.
    assert run(export, "--checkpoint", "runs/a", "--output", "a.onnx") == 0
    for model, output in (("runs/a", "out"), ("a.onnx", "out-onnx")):
        assert run(predict, "set/image1.png", "set/image7.png", "--checkpoint", model, "--output", output) == 0
    one, other = (rows_of(folder / name / "predictions.csv") for name in ("out", "out-onnx"))
    assert [row["predicted"] for row in one] == [row["predicted"] for row in other]
    for row in one:
        named = [] if row["predicted"] == "none" else row["predicted"].split("|")
        probs = [float(row[f"prob_{name}"]) for name in named]
        assert probs == sorted(probs, reverse=True) and set(named) <= set(FINDINGS)
        picture = cv2.imread(str(folder / "out" / row["overlay"]))
        assert picture is not None and picture.shape[1] == 64 * max(1, len(named))  # a picture a finding

    assert run(fit, *TINY, *words[:2], "run.name=b", "run.seed=1") == 0
    assert run(evaluate, "--checkpoint", "runs/b", *FEW, "--no-report") == 0
    assert run(compare, "runs/a", "runs/b", "--output", "both") == 0
    content = json.loads((folder / "both" / "comparison.json").read_text())
    assert "classification/auroc" in content["differences"]["b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run.monitor=val/accuracy"], "run.monitor: no run logs 'val/accuracy'"),
        (["loss.localization_weight=1"], "loss.localization_weight: must be 0 where an image has several findings"),
        (["data.classes=[]"], "data.multi_label: must be false without classes"),
        (["data.classes=[consolidation]"], "names no class: 2 ('marker'"),
    ],
)
def test_what_several_findings_exclude_is_one_line(
    folder: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    base = ["data.root=set/manifest.csv", "data.multi_label=true", "run.name=none"]
    assert run(fit, *TINY, *base, *words) == 2
    assert message in capfd.readouterr().err and not (folder / "runs/none").exists()


def test_masks_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    assert run(fit, *TINY, "data.root=set/manifest.csv", "data.classes=[]", "run.name=masks") == 0
    assert "classes: none, masks alone are learned" in capfd.readouterr().out
    assert run(evaluate, "--checkpoint", "runs/masks", *FEW) == 0
    found = measured(folder / "runs/masks")
    assert "dice" in found["segmentation"] and not found["classification"] and not found["class_maps"]
    assert set(found["robustness"]["curves"]["blur"]["points"][0]["scores"]) == {"dice"}
    assert any("the network knows no classes" in note for note in found["notes"])
    assert run(export, "--checkpoint", "runs/masks", "--output", "masks.onnx") == 0
    for model, output in (("runs/masks", "m"), ("masks.onnx", "m-onnx")):
        assert run(predict, "set/image1.png", "--checkpoint", model, "--output", output) == 0
        (row,) = rows_of(folder / output / "predictions.csv")
        assert row["predicted"] == "" and int(row["lung_left_px"]) >= 0 and (folder / output / row["mask"]).is_file()


def test_classes_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(folder)
    assert run(fit, *TINY, "data.root=bare", "model.pooling=lung", "run.name=bare") == 0
    assert "classes alone are learned, as with model.lung=false model.pooling=average" in caplog.text
    section = yaml.safe_load((folder / "runs/bare/config.yaml").read_text())["model"]
    assert section["lung"] is False and section["pooling"] == "average"
    assert "val/dice" not in rows_of(folder / "runs/bare/metrics.csv")[0]
    assert run(evaluate, "--checkpoint", "runs/bare", *FEW) == 0
    found = measured(folder / "runs/bare")
    assert "accuracy" in found["classification"] and not found["segmentation"]
    assert found["class_maps"]["cam"]["evidence"]["all"]["evidence_in_lungs"] is None and found["verdict"] is None
    assert any("lung masks are not measured: the network predicts none" in note for note in found["notes"])
    assert any("no lungs that are known, or a class map without" in note for note in found["notes"])
    points = [point["scores"] for curve in found["robustness"]["curves"].values() for point in curve["points"]]
    assert points and all(scores["evidence_in_lungs"]["value"] is None for scores in points)
    assert run(export, "--checkpoint", "runs/bare", "--output", "bare.onnx") == 0
    for model, output in (("runs/bare", "c"), ("bare.onnx", "c-onnx")):
        assert run(predict, "bare/test", "--checkpoint", model, "--output", output) == 0
        rows = rows_of(folder / output / "predictions.csv")
        assert all(row["predicted"] in ("ill", "well") and row["mask"] == row["lung_left_px"] == "" for row in rows)
        assert not (folder / output / "masks").exists() and (folder / output / rows[0]["overlay"]).is_file()
    capped = np.array([row["evidence_in_lungs"] for row in rows])
    assert (capped == "").all()


def test_a_run_of_findings_refuses_to_be_measured_as_one_of_classes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run(evaluate, "--checkpoint", "runs/a", "data.multi_label=false") == 2
    assert "data.multi_label: the checkpoint's is true" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words", [["data.classes=[]", "loss.dice=0", "loss.bce=0"], ["model.lung=false", "loss.cross_entropy=0"]]
)
def test_a_loss_of_nothing_that_is_predicted_is_one_line(
    folder: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert (
        run(fit, *TINY, "data.root=set/manifest.csv", "data.label_map=[No Finding=none]", "run.name=none", *words) == 2
    )
    assert "loss: must be above 0 in sum for what is predicted" in capfd.readouterr().err


@pytest.mark.slow
def test_several_findings_are_learned_at_the_size_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = Path(__file__).parents[1] / "configs" / "demo.yaml"
    manifest = write_finding_set(tmp_path / "findings", 240, 60, 60, size_px=256)
    words = [f"data.root={manifest}", "data.multi_label=true", "run.report=false", "wandb.mode=disabled"]
    assert run(fit, "--config", str(demo), *words) == 0
    numbers = json.loads((tmp_path / "runs/demo/metrics.json").read_text())
    assert numbers["test/auroc"] >= 0.95 and numbers["test/dice"] >= 0.95
