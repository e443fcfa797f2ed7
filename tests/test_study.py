from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from lungseg.command import run_command
from lungseg.study import _parser, main
from lungseg.sweeping.study import load_study

REPOSITORY = Path(__file__).parents[1]
STUDIES = sorted((REPOSITORY / "sweeps" / "studies").glob("*.yaml"))
STUDY = """name: tiny
config: base.yaml
variants:
  average: []
  lung: [model.pooling=lung]
seeds: [0, 1]
"""
PHANTOMS = """
data: {image_size: 64, batch_size: 8, workers: 0, phantom: {dir: ph, train: 24, val: 12, test: 6}}
model: {encoder: resnet18, encoder_depth: 3, decoder_channels: [8, 8, 8]}
trainer: {max_epochs: 2, accelerator: cpu}
overlays: {samples: 3}
wandb: {mode: disabled}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("data: {image_size: 64}\n")
    Path("study.yaml").write_text(STUDY)


def _done(evaluated_run: Path, name: str) -> None:
    run = Path(shutil.copytree(evaluated_run, Path("runs/tiny") / name))
    (run / "metrics.json").write_text(json.dumps({"fit/minutes": 2.5}))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_shipped_study_is_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert load_study(path.relative_to(REPOSITORY)).runs


def test_check_lists_the_runs_and_starts_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, _parser(), ["study.yaml", "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study.yaml: good; 4 runs, measured on test:" and "  lung-seed1  model.pooling=lung" in lines
    assert not Path("runs").exists()


def test_the_table_of_what_is_done_says_what_is_not(evaluated_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("average-seed0", "average-seed1", "lung-seed0"):
        _done(evaluated_run, name)
    assert run_command(main, _parser(), ["study.yaml", "--table"]) == 0
    out = capsys.readouterr().out
    assert "1 of 4 runs are not done" in out and "one training alone of lung" in out
    folder = Path("runs/tiny")
    names = {path.name for path in folder.glob("study.*")}
    assert names == {f"study.{end}" for end in ("html", "md", "tex", "csv", "json")}
    rows = (folder / "predictions.csv").read_text().splitlines()
    images = len((evaluated_run / "evaluation/test/per_image.csv").read_text().splitlines()) - 1
    assert rows[0].startswith("variant,training,fold,id,digest,") and len(rows) == 1 + 3 * images
    content = json.loads((folder / "study.json").read_text())
    assert content["cost"]["average"] == {"trainings": 2, "minutes": 2.5, "minutes_sd": 0.0}
    assert content["differences"]["lung"]["segmentation/dice"]["value"] == 0  # copies of one run
    page = (folder / "study.html").read_text()
    assert "Lung dice, mean over images" in page and str(Path.cwd()) not in page


def test_before_anything_is_done_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, _parser(), ["study.yaml", "--table"]) == 2
    assert capsys.readouterr().err == "error: runs/tiny: nothing has run there yet; leave --table out\n"
    Path("runs/tiny/logs").mkdir(parents=True)
    assert run_command(main, _parser(), ["study.yaml", "--table"]) == 0
    assert capsys.readouterr().out == "no table yet: no seed of a variant has all its runs, of 4 runs in all\n"
    assert run_command(main, _parser(), ["study.yaml", "--workers", "0"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_killed_twice_ends_with_the_table_of_an_unbroken_one(tmp_path: Path) -> None:
    Path("base.yaml").write_text(PHANTOMS)
    command = [sys.executable, "-m", "lungseg.study", "study.yaml"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    tables = []
    for name, kills in (("unbroken", ()), ("broken", (signal.SIGKILL, signal.SIGTERM))):
        Path("study.yaml").write_text(STUDY.replace("tiny", name) + "folds: 2\n")
        for place, number in enumerate(kills):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            lines = (line for line in iter(process.stdout.readline, "") if "output in" in line)
            assert len(list(islice(lines, 2 + place))) == 2 + place
            process.send_signal(number)
            assert process.wait(100) != 0
        assert subprocess.run(command, env=environment, check=False).returncode == 0
        tables.append((tmp_path / "runs" / name / "study.csv").read_text())
        calls = (tmp_path / "runs" / name / "logs").glob("*.log")
        assert sum(path.read_text().count("best epoch") for path in calls) == 8
    assert tables[0] == tables[1]
