"""Classes of one's own, from nothing to predictions, with names that a page or a path could stumble on."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lungseg import evaluate, fit, predict
from lungseg.command import run_command

NAMES = ("<i>TB & Co", "gesund ü")
TINY = [
    *("data.image_size=64", "data.batch_size=4", "data.workers=0", "model.encoder=tu-test_efficientnet"),
    *("model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
    *("overlays.samples=2", "wandb.mode=disabled", "run.name=own", "run.report=false"),
]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """A folder with `data`, two class folders of images and masks, and a run of one epoch on them."""
    folder = tmp_path_factory.mktemp("own_classes")
    tree = phantoms / "Lung Segmentation Data" / "Lung Segmentation Data" / "Train"
    for number, image in enumerate(sorted(tree.rglob("images/*.png"))):
        for part, source in (("images", image), ("masks", image.parents[1] / "lung masks" / image.name)):
            for copy in range(3):  # of which each split gets some
                target = folder / "data" / NAMES[number % 2] / part / f"{number}-{copy}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        assert run_command(fit.main, fit._parser(), ["data.root=data", *TINY]) == 0
    return folder


def test_they_travel_with_the_run(own: Path) -> None:
    run = own / "runs" / "own"
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["classes"] == list(NAMES)
    with (run / "metrics.csv").open(newline="") as file:
        assert {f"val/auroc_{name}" for name in NAMES} <= set(next(csv.reader(file)))


def test_they_are_evaluated_and_only_compared_with_what_is_comparable(
    own: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    few = ["--faithfulness", "0", "--robustness", "0", "--shortcuts", "3", "--bootstraps", "20"]
    assert run_command(evaluate.main, evaluate._parser(), ["--checkpoint", "runs/own", *few]) == 0
    found = own / "runs" / "own" / "evaluation" / "test"
    results = json.loads((found / "metrics.json").read_text())
    assert results["what"]["classes"] == list(NAMES) and results["scoreboard"] == []
    page = (found / "report.html").read_text()
    assert all(html.escape(name) in page for name in NAMES) and NAMES[0] not in page
    # of data of other classes what can be measured is: the lungs
    words = ["--checkpoint", "runs/own", f"data.root={phantoms}", *few, "--no-report"]
    assert run_command(evaluate.main, evaluate._parser(), words) == 0
    (other,) = [path for path in (own / "runs/own/evaluation").iterdir() if path.name != "test"]
    results = json.loads((other / "metrics.json").read_text())
    assert any(
        "of classes that the network does not know ('COVID-19', 'Non-COVID', 'Normal')" in c for c in results["notes"]
    )
    assert "accuracy" not in results["classification"] and "dice" in results["segmentation"]


def test_they_are_predicted(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    words = ["data", "--checkpoint", "runs/own", "--output", "out"]
    assert run_command(predict.main, predict._parser(), words) == 0
    with (own / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted"] for row in rows} <= set(NAMES) and {f"prob_{name}" for name in NAMES} <= rows[0].keys()


def test_one_class_alone_is_refused_with_the_way_out(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(own / "data" / NAMES[1], tmp_path / "data" / "all")
    monkeypatch.chdir(tmp_path)
    assert run_command(fit.main, fit._parser(), ["data.root=data", *TINY]) == 2
    assert "all images are of one class, 'all'" in capfd.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("classes", ["[a]", "[a,A]", "[a,'']"])
def test_names_that_cannot_be_told_apart_are_refused(classes: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(fit.main, fit._parser(), [f"data.classes={classes}"]) == 2
    assert "data.classes: must be names, none empty, twice (in lower case) or alone" in capfd.readouterr().err
