"""The command on phantoms, every mistake ending in one line; tests of training start it in processes of its own."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from lightning.pytorch import Trainer

from lungseg import fit
from lungseg.command import run_command
from lungseg.models.losses import Term

CONFIG = """
data: {image_size: 64, batch_size: 4, workers: 0}
model: {encoder: tu-test_efficientnet, encoder_depth: 4, decoder_channels: [16, 16, 8, 8]}
trainer: {max_epochs: 2, accelerator: cpu}
overlays: {samples: 3}
wandb: {mode: disabled}
run: {report: false}
"""


def _here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Run the command in this process, which saves the imports: exit code and standard error."""
    (folder / "tiny.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    code = run_command(fit.main, fit._parser(), ["--config", "tiny.yaml", *words])
    return code, capfd.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "tiny.yaml").write_text(CONFIG)
    words = [f"data.root={phantoms}", "run.name=first", "run.report=true", "wandb.mode=offline"]
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    torch.set_num_threads(1)
    wandb.teardown()  # its process, left by an earlier test, would write below the folder it was started in
    with (
        contextlib.chdir(folder),
        out.open("w") as stdout,
        err.open("w") as stderr,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        code = run_command(fit.main, fit._parser(), ["--config", "tiny.yaml", *words])
    assert code == 0, err.read_text()
    return folder / "runs" / "first"


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_holds_what_was_promised(run: Path) -> None:
    for name in ("config.yaml", "environment.json", "metrics.csv", "metrics.json", "checkpoints/best.ckpt"):
        assert (run / name).is_file(), name
    assert (run / "checkpoints/last.ckpt").is_file()
    assert [p.name for p in sorted((run / "overlays").iterdir())] == [
        "epoch_000.png",
        "epoch_001.png",
        "samples.csv",
    ]
    assert (run / "evaluation/test/report.html").is_file()
    assert list(run.glob("wandb/offline-run-*")) and not list(run.rglob("*.part*"))


def test_checkpoints_load_as_tensors_and_plain_values(run: Path) -> None:
    for name in ("best", "last"):
        content = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
        assert content["lungseg"]["classes"] == ["COVID-19", "Non-COVID", "Normal"]


def test_metrics_csv_has_one_row_an_epoch_with_losses_and_scores(run: Path) -> None:
    epochs = {row["epoch"]: row for row in _rows(run) if row["train/loss"]}
    assert set(epochs) == {"0", "1"}
    for row in epochs.values():
        total = sum(float(row[f"train/{name}"]) for name in ("dice_loss", "bce_loss", "cross_entropy"))
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-4)
        assert 0 <= float(row["val/dice"]) <= 1 and row["val/accuracy"] and row["val/evidence_in_lungs"]


def test_metrics_json_names_stage_and_metric_and_tests_the_best_checkpoint(run: Path) -> None:
    numbers = json.loads((run / "metrics.json").read_text())
    assert {"fit/minutes", "val/dice", "test/dice", "test/accuracy", "test/sensitivity_Normal"} <= set(numbers)
    best = max((row for row in _rows(run) if row["val/score"]), key=lambda row: float(row["val/score"]))
    assert numbers["fit/best_epoch"] == int(best["epoch"])
    assert numbers["val/dice"] == float(best["val/dice"])


def test_output_is_plain_lines_ending_with_the_table_and_the_places(run: Path) -> None:
    text = (run.parents[1] / "stdout.txt").read_text()
    assert text.startswith("config: tiny.yaml, data.root="), "before anything that takes seconds"
    assert "epoch 1 (2/2)" in text and "Accuracy of the class, images" in text and "overlays    runs/first" in text
    assert text.endswith("report      runs/first/evaluation/test/report.html\n")
    assert "wandb sync runs/first/wandb/offline-run-" in text and "not a medical device" in text
    assert "Warning" not in (run.parents[1] / "stderr.txt").read_text()


def test_written_config_loads_back_and_environment_names_the_data(run: Path) -> None:
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["image_size"] == 64
    assert len(json.loads((run / "environment.json").read_text())["data_fingerprint"]) >= 8


def test_offline_wandb_files_hold_no_path_of_this_machine(run: Path, phantoms: Path) -> None:
    for path in run.glob("wandb/offline-run-*/**/*"):
        if path.is_file() and "logs" not in path.parts:
            content = path.read_bytes()
            assert str(phantoms).encode() not in content and b"covid_" not in content, path


def test_wandb_holds_what_metrics_csv_and_metrics_json_hold(run: Path) -> None:
    (folder,) = run.glob("wandb/offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in said.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    epochs = [row for row in rows if "train/loss" in row]
    assert len(epochs) == 2 and all({"val/dice", "overlays.count"} <= row.keys() for row in epochs), "one row an epoch"
    for kept in csv.DictReader((run / "metrics.csv").open()):
        place = int(kept.pop("epoch")), int(kept.pop("step"))
        here = [row for row in rows if (row.get("epoch"), row.get("trainer/global_step")) == place]
        for name in filter(kept.get, kept):
            assert float(kept[name]) in [row.get(name) for row in here], (place, name)
    updates = [record["summary"].get("update", {}) for record in records if record["type"] == "summary"]
    summary = {name: value for update in updates for name, value in update.items()}
    final = json.loads((run / "metrics.json").read_text())
    assert summary["best_epoch"] == final["fit/best_epoch"]
    assert all(summary[f"best/{n}" if n.startswith("val/") else n] == value for n, value in final.items())
    (table,) = folder.glob("files/media/table/overlays_samples_*.json")
    kept = list(csv.reader((run / "overlays" / "samples.csv").open()))
    shown = json.loads(table.read_text())
    assert [shown["columns"], len(shown["data"])] == [kept[0], len(kept) - 1] and len(kept) == 1 + 3 * 2


def test_the_files_of_an_offline_wandb_run_are_bounded(run: Path) -> None:
    files = [path for path in run.glob("wandb/offline-run-*/**/*") if path.is_file()]
    assert len(files) <= 12 + 4 * 2, "a picture and three layers an epoch, a file a table, and W&B's own"


def test_the_same_config_and_seed_give_the_same_metrics_csv(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, stderr = _here(run.parents[1], monkeypatch, capfd, f"data.root={phantoms}", "run.name=second")
    assert code == 0, stderr
    assert (run / "metrics.csv").read_bytes() == (run.parent / "second" / "metrics.csv").read_bytes()


@pytest.mark.parametrize("killed", [False, True])
def test_a_resumed_run_ends_as_the_uninterrupted_one(
    killed: bool, run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stopped at the worst moment of the first of two epochs: its checkpoint is written, its row is not yet."""
    shutil.rmtree(run.parent / "third", ignore_errors=True)
    words = [f"data.root={phantoms}", "run.name=third"]
    save = Trainer.save_checkpoint

    def save_and_stop(trainer: Trainer, path: Path, *rest: Any, **options: Any) -> None:
        save(trainer, path, *rest, **options)
        if Path(path).stem == "last":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as planted, pytest.raises(SystemExit) as stopped:
        planted.setattr(Trainer, "save_checkpoint", save_and_stop)
        _here(run.parents[1], monkeypatch, capfd, *words)
    assert stopped.value.code == 143 and not (run.parent / "third" / "metrics.json").exists()
    assert [row["epoch"] for row in _rows(run.parent / "third")] == ["0"]
    if killed:  # then the row is not finished either
        row = {
            n: cell
            for n, cell in _rows(run.parent / "third")[0].items()
            if n[:6] != "train/" or n.endswith("step_loss")
        }
        (run.parent / "third" / "metrics.csv").write_text(
            f"{','.join(row)}\r\n{','.join(row.values())}\r\n", newline=""
        )
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words, "run.resume=true")
    assert code == 0, stderr
    assert (run / "metrics.csv").read_bytes() == (run.parent / "third" / "metrics.csv").read_bytes()


def test_last_is_the_last_epoch_even_where_an_earlier_one_is_the_best(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The highest training loss is that of the first epoch; who resumes goes on after the second all the same."""
    words = [f"data.root={phantoms}", "run.name=worse", "run.monitor=train/loss", "run.mode=max", "optim.lr=0.01"]
    assert _here(tmp_path, monkeypatch, capfd, *words)[0] == 0
    checkpoints = tmp_path / "runs" / "worse" / "checkpoints"
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in checkpoints.iterdir()}
    assert epochs == {"best": 0, "last": 1}


def _edit_png(root: Path, action: str) -> None:
    import cv2
    import numpy as np

    (tree,) = root.glob("Lung*")
    shutil.rmtree(next(root.glob("Infection*")))
    image = sorted(tree.rglob("Train/Normal/images/*.png"))[0]
    mask = image.parents[1] / "lung masks" / image.name
    if action == "no mask":
        mask.unlink()
    elif action == "unreadable":
        image.write_bytes(image.read_bytes()[:100])
    elif action == "mask size":
        cv2.imwrite(str(mask), np.zeros((32, 40), np.uint8))
    elif action == "no class":
        for path in (tree).rglob("Train/Normal/images/*.png"):
            path.unlink()


@pytest.mark.parametrize(
    ("action", "words", "named"),
    [
        ("", ["data.root=nowhere"], "nowhere"),
        ("", ["data.root=empty"], "empty"),
        ("no mask", ["data.root=set"], ".png"),
        ("unreadable", ["data.root=set", "data.workers=1"], ".png"),
        ("mask size", ["data.root=set"], ".png"),
        ("no class", ["data.root=set"], "Normal"),
        ("", ["data.root=set", "model.encoder=resnet81"], "model.encoder: unknown encoder 'resnet81'"),
        ("", ["data.root=set", "model.encodr=resnet18"], "command line: model.encodr"),
        ("", ["data.root=set", "optim.lr=fast"], "optim.lr"),
        ("", ["data.root=set", "run.name=taken"], "run.name: run folder 'runs/taken' exists"),
        ("", ["data.root=set", "run.monitor=val/dicee"], "did you mean 'val/dice'"),
        ("", ["data.root=set", "trainer.precision=64-true"], "trainer.precision: must be one of auto, 32-true"),
        ("", ["data.root=set", "trainer.accelerator=tpu"], "trainer.accelerator: must be one of auto, cpu"),
        ("", ["data.root=set", "run.name=a/../../b"], "run.name: must be a plain folder name"),
        ("", ["data.root=set", "run.name=${oc.env:HOME}"], "run.name: only ${section.key} is resolved"),
        ("", ["data.root=set", "run.resume=true"], "run.resume: needs run.name"),
    ],
)
def test_a_mistake_ends_with_one_line_exit_code_2_and_no_run_folder(
    tmp_path: Path,
    phantoms: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    action: str,
    words: list[str],
    named: str,
) -> None:
    shutil.copytree(phantoms, tmp_path / "set")
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    if action:
        _edit_png(tmp_path / "set", action)
    code, stderr = _here(tmp_path, monkeypatch, capfd, *words)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 2, stderr
    assert len(errors) == 1 and named in errors[0] and "Traceback" not in stderr
    assert not (tmp_path / "runs" / "taken" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.head=conv"], "run.resume: model.head is 'linear' in runs/first/config.yaml and 'conv' here;"),
        (["data.test_fraction=0.5", "optim.lr=0.5"], "data.test_fraction is 0.0 in runs/first/config.yaml and 0.5 he"),
        (["trainer.max_epochs=1"], "trainer.max_epochs: 2 epochs of runs/first are done, got 1"),
    ],
)
def test_a_run_is_resumed_as_what_it_is(
    run: Path,
    phantoms: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    named: str,
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    words = [f"data.root={phantoms}", "run.name=first", "run.resume=true", *words]
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words)
    assert code == 2 and named in stderr
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_run_without_a_whole_epoch_starts_anew_in_its_folder(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = run.parent / "cut"
    cut.mkdir()
    shutil.copy(run / "config.yaml", cut)
    header = (run / "metrics.csv").read_text().splitlines()[0]
    (cut / "metrics.csv").write_text(f"{header}\n0,9{',' * (header.count(',') - 1)}\n")
    words = [f"data.root={phantoms}", "run.name=cut", "run.resume=true"]
    assert _here(run.parents[1], monkeypatch, capfd, *words)[0] == 0
    assert (run / "metrics.csv").read_bytes() == (cut / "metrics.csv").read_bytes()


def test_a_run_starts_from_all_weights_of_another(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={phantoms}", "run.name=tuned", f"run.init={run}", "trainer.max_epochs=1", "optim.lr=1e-12"]
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words)
    assert code == 0, stderr
    before, after = (
        torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for folder in (run, run.parent / "tuned")
    )
    assert all(torch.allclose(before[name], after[name]) for name in before if name.endswith(("weight", "bias")))


def test_an_infection_output_is_added_to_a_network_that_had_none(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={phantoms}", "run.name=added", f"run.init={run}", "model.infection=true"]
    words += ["trainer.max_epochs=1", "optim.lr=1e-12"]
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words)
    assert code == 0, stderr
    before, after = (
        torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for folder in (run, run.parent / "added")
    )
    head = "network.segmenter.segmentation_head.0.weight"
    assert len(after[head]) == 2 and torch.allclose(before[head][0], after[head][0])


def test_weights_of_another_architecture_are_refused_by_name(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={phantoms}", "run.name=other", f"run.init={run}", "model.head=conv"]
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words)
    assert code == 2 and "run.init:" in stderr and "classifier.module" in stderr, stderr
    assert not (run.parent / "other").exists()


def test_weights_that_learned_from_the_images_to_be_measured_on_are_refused(
    run: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(phantoms, run.parents[1] / "without_test", ignore=shutil.ignore_patterns("Test"))
    words = [f"data.root={root}", "trainer.max_epochs=1", "data.test_fraction=0.2"]
    assert _here(run.parents[1], monkeypatch, capfd, *words, "run.name=zero")[0] == 0
    words += [f"run.init={run.parent / 'zero'}", "run.name=leaky"]
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words, "data.split_seed=1")
    assert (
        code == 2 and "run.init:" in stderr and "data.split_seed=0 data.test_fraction=0.2 data.fold=null" in stderr
    ), stderr
    assert not (run.parent / "leaky").exists()
    code, stderr = _here(run.parents[1], monkeypatch, capfd, *words, "optim.lr=1e-5")
    assert code == 0, stderr


def test_early_stopping_in_mixed_precision_keeps_the_last_overlay(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={phantoms}", "run.name=still", "run.patience=1", "trainer.precision=bf16-mixed"]
    words += ["trainer.max_epochs=6", "optim.lr=1e-12", "run.monitor=val/accuracy", "overlays.every_n_epochs=5"]
    code, stderr = _here(tmp_path, monkeypatch, capfd, *words)
    assert code == 0, stderr
    epochs = [row["epoch"] for row in _rows(tmp_path / "runs/still") if row["train/loss"]]
    assert 2 <= len(epochs) < 6
    sheets = [path.name for path in sorted((tmp_path / "runs/still/overlays").glob("*.png"))]
    assert sheets == ["epoch_000.png", f"epoch_00{epochs[-1]}.png"]


def test_a_loss_that_is_no_number_ends_the_run_with_advice(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lungseg.training.module.dice_term",
        lambda logits, mask, known: Term(logits.sum((1, 2)) * float("nan"), known.float()),
    )
    code, stderr = _here(tmp_path, monkeypatch, capfd, f"data.root={phantoms}", "run.name=nan")
    assert code == 2 and "train/loss is nan in epoch 0; lower optim.lr" in stderr


def test_print_config_loads_back_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> str:
        assert run_command(fit.main, fit._parser(), ["--print-config", *words]) == 0
        return capsys.readouterr().out

    (tmp_path / "tiny.yaml").write_text(CONFIG)
    first = printed("--config", str(tmp_path / "tiny.yaml"), "optim.lr=1e-4", "model.encoder_weights=None")
    (tmp_path / "again.yaml").write_text(first)
    assert printed("--config", str(tmp_path / "again.yaml")) == first and "0.0001" in first
