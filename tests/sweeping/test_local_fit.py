"""A sweep of real fits on phantoms: it finds what was planted, saves epochs, and survives a kill."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import is_gone, wait_until

from lungseg.config import PhantomConfig
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.runs.run import Run
from lungseg.sweeping.checking import load_sweep
from lungseg.sweeping.local import epochs_of
from lungseg.sweeping.trials import open_study

REPOSITORY = Path(__file__).parents[2]
TINY = """
data: {{root: {root}, image_size: 64, batch_size: 4, workers: 0}}
model: {{encoder: tu-test_efficientnet, encoder_depth: 4, decoder_channels: [16, 16, 8, 8]}}
trainer: {{max_epochs: 8, accelerator: cpu}}
overlays: {{samples: 3, every_n_epochs: 8}}
wandb: {{mode: disabled}}
run: {{report: false}}
"""
PLANTED = """
name: planted
program: lungseg/fit.py
method: bayes
metric: {name: val/dice, goal: maximize}
early_terminate: {type: hyperband, min_iter: 2, strict: true}
parameters:
  optim.lr: {distribution: log_uniform_values, min: 0.0000001, max: 1.0}
  augment.flip: {distribution: uniform, min: 0.0, max: 0.5}
command: ['${env}', '${interpreter}', -m, lungseg.fit, --config, tiny.yaml, '${args_no_hyphens}']
"""


def _sweep(*arguments: str) -> subprocess.Popen[str]:
    """The real command, of which every run is a real fit."""
    return subprocess.Popen(
        [sys.executable, "-m", "lungseg.sweep", *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep file on 24 phantoms: of seven decades of learning rates, one is good in eight epochs."""
    monkeypatch.chdir(tmp_path)
    root = write_phantoms(PhantomConfig(train=24, val=12, test=3, size_px=64, dir=str(tmp_path / "phantoms")))
    Path("tiny.yaml").write_text(TINY.format(root=root))
    Path("planted.yaml").write_text(PLANTED)
    return Path("planted.yaml")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_runs_find_the_planted_learning_rate_and_save_a_third_of_the_epochs(planted: Path) -> None:
    out, _ = _sweep("run", str(planted), "--count", "20").communicate()
    assert "20 runs: " in out.splitlines()[-1], out
    text, _ = _sweep("status", str(planted)).communicate()
    print(out, text)
    sweep = load_sweep(planted)
    study = open_study(sweep, create=False)
    assert 4e-3 < study.best_trial.params["optim.lr"] < 6e-2 and study.best_value > 0.9
    trials = study.get_trials()
    assert sum(len(trial.intermediate_values) for trial in trials) <= 20 * 8 * 2 / 3
    assert "importance  optim.lr " in text and Path("runs/planted/sweep.html").is_file()
    for trial in trials:
        run = Run(Path(f"runs/planted/trial-{trial.number:04d}"))
        assert run.metrics_json.is_file() == (trial.state.name == "COMPLETE") and run.best_checkpoint.is_file()
        reported = trial.intermediate_values
        assert {count: epochs_of(run, "val/dice")[count] for count in reported} == pytest.approx(reported)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["sigterm", "sigkill"])
def test_a_real_run_ends_with_its_sweep_and_goes_on_from_its_checkpoint(planted: Path, number: signal.Signals) -> None:
    process = _sweep("run", str(planted), "--count", "1")
    run = Run(Path("runs/planted/trial-0000"))
    wait_until(lambda: len(epochs_of(run, "val/dice")) == 2, "two epochs", seconds=1200)
    children = "".join(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")).split()
    process.send_signal(number)
    process.wait(240)
    wait_until(lambda: all(is_gone(int(pid)) for pid in children), "the end of the fit", seconds=240)
    before = epochs_of(run, "val/dice")[1]
    assert not run.metrics_json.exists()
    # after SIGKILL it waits until the heartbeat has stood still for GRACE_S
    out, _ = _sweep("run", str(planted), "--count", "1").communicate()
    assert "run 0: continued, optim.lr=" in out and "1 runs: 1 finished" in out, out
    with run.metrics_csv.open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file) if row["val/dice"]] == list("01234567")
    assert epochs_of(run, "val/dice")[1] == before
