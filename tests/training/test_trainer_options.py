"""Lightning's own options under their own names: each does what Lightning says, and the run folder still adds up."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg import fit
from lungseg.command import run_command

TINY = [
    *("data.image_size=64", "data.batch_size=3", "data.workers=0", "model.encoder=tu-test_efficientnet"),
    *("model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]", "trainer.accelerator=cpu", "run.name=one"),
    *("overlays.samples=2", "wandb.mode=disabled", "run.report=false"),
]


def _fit(folder: Path, phantoms: Path, *words: str) -> int:
    with contextlib.chdir(folder):
        return run_command(fit.main, fit._parser(), [f"data.root={phantoms}", *TINY, *words])


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "one" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _numbers(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "runs" / "one" / "metrics.json").read_text())
    return found


def test_fast_dev_run_goes_through_everything_and_leaves_nothing(
    tmp_path: Path, phantoms: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _fit(tmp_path, phantoms, "trainer.fast_dev_run=2") == 0
    assert "trainer.fast_dev_run: 2 batch(es) of each split went through" in capfd.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert _fit(tmp_path, phantoms, "trainer.max_epochs=1") == 0
    assert _fit(tmp_path, phantoms, "trainer.fast_dev_run=true") == 0  # whatever bears the name already
    before = sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert _fit(tmp_path, phantoms, "trainer.fast_dev_run=true", "run.resume=true") == 2
    assert sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file()) == before


def test_nothing_of_fast_dev_run_is_left_in_the_temporary_folder(tmp_path: Path, phantoms: Path) -> None:
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "lungseg.fit", f"data.root={phantoms}", *TINY, "trainer.fast_dev_run=true"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "temporary").rglob("config.yaml")) and not (tmp_path / "runs").exists()


def test_limits_and_sparse_validation(tmp_path: Path, phantoms: Path) -> None:
    words = ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "trainer.limit_train_batches=2"]
    words += ["trainer.limit_val_batches=0.5", "trainer.limit_test_batches=1", "trainer.num_sanity_val_steps=0"]
    words += ["trainer.gradient_clip_algorithm=value", "trainer.deterministic=true", "trainer.detect_anomaly=true"]
    assert _fit(tmp_path, phantoms, *words) == 0
    rows = _rows(tmp_path)
    assert [row["epoch"] for row in rows if row["val/loss"]] == ["1", "3"]
    assert max(int(row["step"]) for row in rows if row["train/loss"]) == 4 * 2 - 1
    assert _numbers(tmp_path)["fit/best_epoch"] in (1, 3)


def test_a_run_that_ends_before_its_first_validation_keeps_its_last_weights(tmp_path: Path, phantoms: Path) -> None:
    assert _fit(tmp_path, phantoms, "trainer.max_steps=2", "trainer.num_sanity_val_steps=0") == 0
    rows = _rows(tmp_path)
    assert max(int(row["step"]) for row in rows if row["step"]) <= 2
    assert "test/dice" in _numbers(tmp_path)


def test_of_several_validations_in_an_epoch_the_best_counts(tmp_path: Path, phantoms: Path) -> None:
    assert _fit(tmp_path, phantoms, "trainer.max_epochs=1", "trainer.val_check_interval=0.25") == 0
    scores = {row["step"]: float(row["val/score"]) for row in _rows(tmp_path) if row.get("val/score")}
    assert len(scores) == 4
    assert _numbers(tmp_path)["val/score"] == max(scores.values())


def test_overfit_batches_trains_and_validates_on_the_same_few(tmp_path: Path, phantoms: Path) -> None:
    words = ["trainer.overfit_batches=1", "trainer.max_epochs=12", "optim.lr=0.01", "overlays.every_n_epochs=12"]
    assert _fit(tmp_path, phantoms, *words) == 0
    losses = [float(row["train/loss"]) for row in _rows(tmp_path) if row["train/loss"]]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]


def test_time_and_least_epochs(tmp_path: Path, phantoms: Path) -> None:
    assert _fit(tmp_path, phantoms, "trainer.max_epochs=500", "trainer.max_time=00:00:00:03") == 0
    assert 1 <= _numbers(tmp_path)["fit/epochs"] < 500


@pytest.mark.parametrize(
    "word",
    [
        *("limit_train_batches=0", "limit_val_batches=1.5", "overfit_batches=-1", "val_check_interval=0.0"),
        *("max_steps=0", "max_time=3 h", "min_epochs=99", "check_val_every_n_epoch=0", "num_sanity_val_steps=-2"),
        *("fast_dev_run=-1", "gradient_clip_algorithm=sum", "profiler=fast", "deterministic=2"),
    ],
)
def test_a_value_out_of_range_is_one_line_with_its_key(
    tmp_path: Path, phantoms: Path, capfd: pytest.CaptureFixture[str], word: str
) -> None:
    assert _fit(tmp_path, phantoms, f"trainer.{word}") == 2
    said = capfd.readouterr().err
    assert f"trainer.{word.partition('=')[0]}: " in said and said.count("\n") == 1 and not (tmp_path / "runs").exists()
