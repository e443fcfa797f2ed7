"""A sweep without a server: every run once, whatever is killed in between, and nothing left running."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from optuna.trial import Trial, TrialState
from processes import is_gone, wait_until

from lungseg.errors import SweepError
from lungseg.runs.run import Run
from lungseg.sweeping import local, trials
from lungseg.sweeping.checking import load_sweep
from lungseg.sweeping.child import Stop, share_of
from lungseg.sweeping.local import Worker, epochs_of, run_sweep
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.trials import STORAGE, draw, open_study, requeue, run_name, runs_of

REPOSITORY = Path(__file__).parents[2]
PYTHON = sys.executable
BASE = "data: {image_size: 64}\ntrainer: {max_epochs: 3, accelerator: cpu}\n"
COMMAND = (
    "command: ['${env}', '${interpreter}', -m, lungseg.fit, --config, base.yaml, run.seed=7, '${args_no_hyphens}']\n"
)
HEAD = "name: tiny\nprogram: lungseg/fit.py\nmetric: {name: val/score, goal: maximize}\n" + COMMAND
RANDOM = HEAD + "method: random\nparameters: {optim.lr: {distribution: log_uniform_values, min: 0.0001, max: 1.0}}\n"
GRID = HEAD + "method: grid\nparameters: {augment.flip: {values: [0.0, 0.5]}, data.batch_size: {values: [1, 2, 4]}}\n"
FAKE = """#!{python} -S
import json, os, subprocess, sys, time
words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
run = os.path.join(words["run.dir"], words["run.name"])
words["rank"] = os.environ.get("SLURM_PROCID", "none")
with open("calls.jsonl", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words.get("run.resume") != "True":
    os.makedirs(run)
os.makedirs(os.path.join(run, "checkpoints"), exist_ok=True)
lr = float(words.get("optim.lr", 0.001))
if os.path.exists("fail") and lr > 0.01:
    print("epoch 0", "error: train/loss is nan", "bye", sep="\\n")
    sys.exit(2)
with open(os.path.join(run, "metrics.csv"), "w") as file:
    file.write("epoch,step,val/score,train/loss\\n")
    for epoch in range(3):
        open(os.path.join(run, "checkpoints", "last.ckpt"), "w").close()
        file.write("%d,%d,%r,1\\n" % (epoch, epoch, lr * (epoch + 1)))
        file.flush()
        if os.path.exists("slow"):
            time.sleep(0.5)
        if os.path.exists("hold"):
            grandchild = subprocess.Popen(["sleep", "600"])
            with open("pids.part", "w") as pids:
                pids.write("%d %d" % (os.getpid(), grandchild.pid))
            os.rename("pids.part", "pids")
            time.sleep(600)
with open(os.path.join(run, "metrics.json"), "w") as file:
    json.dump({{"val/score": lr * 3, "fit/best_epoch": 2}}, file)
"""
DRIVER = """import sys
from pathlib import Path
sys.executable = {fake!r}
from lungseg.sweeping import local, trials
from lungseg.sweeping.spec import read_sweep  # `load_sweep` would import torch
local._POLL_S, trials.HEARTBEAT_S, trials.GRACE_S = 0.02, 1, 2
sys.exit(local.run_sweep(read_sweep(Path("sweep.yaml")), count={count}))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a base config, and a stand-in for Python that writes what a fit would."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    fake = tmp_path / "fake_python"
    fake.write_text(FAKE.format(python=PYTHON))
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.delenv(STORAGE, raising=False)
    for module, name, value in ((local, "_POLL_S", 0.02), (trials, "HEARTBEAT_S", 1), (trials, "GRACE_S", 2)):
        monkeypatch.setattr(module, name, value)


def _run(text: str, count: int | None = None, workers: int = 1) -> int:
    Path("sweep.yaml").write_text(text)
    return run_sweep(load_sweep(Path("sweep.yaml")), count, workers)


def _calls() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]


def _states() -> dict[int, str]:
    """State of each run by its number."""
    trials = open_study(load_sweep(Path("sweep.yaml")), create=False).get_trials()
    return {number: trial.state.name for number, trial in runs_of(trials).items()}


def _start(text: str, count: int) -> subprocess.Popen[str]:
    """Start the sweep in a process of its own."""
    Path("sweep.yaml").write_text(text)
    code = DRIVER.format(fake=str(Path("fake_python").resolve()), count=count)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([PYTHON, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_runs_are_ordinary_run_folders_with_the_values_as_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(RANDOM, 3) == 0
    calls = _calls()
    assert [call["run.name"] for call in calls] == [f"trial-000{number}" for number in range(3)]
    assert {call["run.dir"] for call in calls} == {"runs/tiny"} and {call["run.seed"] for call in calls} == {"7"}
    assert all(Path(f"runs/tiny/trial-000{number}/metrics.json").is_file() for number in range(3))
    best = max(range(3), key=lambda number: float(calls[number]["optim.lr"]))
    out = capfd.readouterr().out
    assert f"best is run {best}, {3 * float(calls[best]['optim.lr']):.4f}" in out.splitlines()[-2]
    assert "3 runs: 3 finished" in out.splitlines()[-1]
    # The same command again starts nothing, and a larger count adds new values.
    assert _run(RANDOM, 3) == 0 and len(_calls()) == 3
    assert _run(RANDOM, 4) == 0
    values = [call["optim.lr"] for call in _calls()]
    assert len(set(values)) == 4
    # Where the sweep was interrupted changes no value.
    Path("calls.jsonl").unlink()
    assert _run(RANDOM.replace("name: tiny", "name: at once"), 4) == 0
    assert [call["optim.lr"] for call in _calls()] == values


def test_two_processes_share_a_grid_each_point_once() -> None:
    both = [_start(GRID, 99), _start(GRID, 99)]
    assert [process.wait(100) for process in both] == [0, 0]
    points = [(call["augment.flip"], call["data.batch_size"]) for call in _calls()]
    assert sorted(points) == sorted((flip, size) for flip in ("0.0", "0.5") for size in "124")
    assert _states() == dict.fromkeys(range(6), "COMPLETE")


def test_workers_that_ask_at_the_same_time_do_not_run_more_than_wanted() -> None:
    assert _run(RANDOM, 5, workers=4) == 0
    assert len(_calls()) == 5 == len({call["optim.lr"] for call in _calls()})


def test_a_failing_run_is_counted_and_shown_and_the_sweep_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    Path("fail").touch()
    assert _run(RANDOM, 6) == 0
    lrs = [float(call["optim.lr"]) for call in _calls()]
    assert list(_states().values()) == ["FAIL" if lr > 0.01 else "COMPLETE" for lr in lrs]
    assert 0 < sum(lr > 0.01 for lr in lrs) < 6
    assert capfd.readouterr().out.count("failed: error: train/loss is nan\n") == sum(lr > 0.01 for lr in lrs)


def test_a_run_that_logs_no_such_metric_has_failed_and_a_sweep_without_success_ends_with_code_1() -> None:
    assert _run(RANDOM.replace("val/score", "val/dice"), 1) == 1
    assert _states() == {0: "FAIL"}


def test_stopping_the_sweep_leaves_no_process_and_the_same_command_continues() -> None:
    Path("hold").touch()
    process = _start(RANDOM, 2)
    wait_until(Path("pids").exists, "the first run")
    assert _run(RANDOM, 1) == 0  # a run that is alive elsewhere is left alone
    assert len(_calls()) == 1 and _states() == {0: "RUNNING"}
    process.send_signal(signal.SIGINT)
    assert process.wait(100) == 128 + signal.SIGINT
    assert all(is_gone(int(pid)) for pid in Path("pids").read_text().split())
    assert _states() == {0: "WAITING"}
    Path("hold").unlink()
    assert _run(RANDOM, 2) == 0
    first, again, second = _calls()
    assert again == first | {"run.resume": "True"} and second["run.name"] == "trial-0002"  # trial 1 is run 0 again
    assert _states() == {0: "COMPLETE", 2: "COMPLETE"}


def test_a_killed_sweep_leaves_no_run_behind_and_its_run_is_continued_in_the_same_folder() -> None:
    Path("hold").touch()
    process = _start(RANDOM, 1)
    wait_until(Path("pids").exists, "the first run")
    process.kill()
    process.wait()
    wait_until(lambda: all(is_gone(int(pid)) for pid in Path("pids").read_text().split()), "the end of the run")
    Path("hold").unlink()
    assert _run(RANDOM, 1) == 0  # there is nothing else to do: it waits to see whether the run is alive elsewhere
    first, again = _calls()
    assert again == first | {"run.resume": "True"}
    assert _states() == {0: "COMPLETE"}


def test_a_run_that_ended_just_before_the_kill_is_not_repeated() -> None:
    run = _cut_short()
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,step,val/score,train/loss\n0,0,0.25,1\n1,1,0.5,1\n")
    (run / "metrics.json").write_text('{"val/score": 0.5}')
    assert _run(RANDOM, 1) == 0
    assert not Path("calls.jsonl").exists() and _states() == {0: "COMPLETE"}


def test_a_run_cut_short_before_its_first_checkpoint_is_resumed_too() -> None:
    run = _cut_short()
    run.mkdir()
    (run / "config.yaml").write_text("")
    assert _run(RANDOM, 1) == 0
    assert _calls()[0]["run.resume"] == "True"


def _cut_short() -> Path:
    """Folder of the only run of a sweep, whose process is no more and which is queued again."""
    Path("sweep.yaml").write_text(RANDOM)
    sweep = load_sweep(Path("sweep.yaml"))
    begun = open_study(sweep, create=True)
    begun.optimize(lambda trial: _record(trial, sweep), n_trials=1)
    requeue(begun, begun.trials[0])
    return Path("runs/tiny") / run_name(0)


def _record(trial: Trial, sweep: Sweep) -> float:
    """Draw the values of a run that then fails."""
    trial.set_user_attr("values", {name: draw(trial, one, False) for name, one in sweep.parameters.items()})
    return math.nan


def test_a_process_that_stood_still_gives_up_a_run_that_was_queued_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hold").touch()
    Path("sweep.yaml").write_text(RANDOM)
    sweep = load_sweep(Path("sweep.yaml"))
    own, other = (open_study(sweep, create=True) for _ in range(2))
    worker = threading.Thread(target=Worker(sweep, own, 1, Stop(), {}).work, daemon=True)
    worker.start()
    wait_until(Path("pids").exists, "the run")
    pids = Path("pids").read_text().split()
    Path("hold").unlink()
    monkeypatch.setattr(trials, "HEARTBEAT_S", 0)
    requeue(other, other.trials[0])
    other.tell(0, state=TrialState.FAIL)  # as another process does after `GRACE_S`
    worker.join(100)
    assert not worker.is_alive() and all(is_gone(int(pid)) for pid in pids)
    assert [trial.state.name for trial in other.trials] == ["FAIL", "COMPLETE"]
    assert [call.get("run.resume") for call in _calls()] == [None, "True"]


def test_workers_run_at_the_same_time_on_their_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [share_of(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["3,5", "6,7"]
    assert "CUDA_VISIBLE_DEVICES" not in share_of(0, 5)
    assert share_of(0, 1) == {"CUDA_VISIBLE_DEVICES": "3,5,6,7"} and share_of(1, 99)["OMP_NUM_THREADS"] == "1"


def test_folder_from_the_command_database_from_the_environment_and_a_rank_from_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv(STORAGE, "sqlite:///elsewhere.db")
    assert _run(RANDOM.replace("'${args_no_hyphens}'", "'${args_no_hyphens}', run.dir=elsewhere"), 1) == 0
    assert _calls()[0]["rank"] == "none"
    assert _calls()[0]["run.dir"] == "elsewhere/tiny" and Path("elsewhere/tiny/trial-0000/metrics.json").is_file()
    assert Path("elsewhere.db").is_file() and not Path("elsewhere/tiny/sweep.db").exists()
    assert _states() == {0: "COMPLETE"}


def test_a_sweep_ends_when_a_run_has_reached_the_target() -> None:
    text = RANDOM.replace("goal: maximize", "goal: maximize, target: 0.0")
    assert _run(text, 5) == 0
    assert len(_calls()) == 1


def test_a_sweep_has_an_end_and_one_set_of_parameters() -> None:
    with pytest.raises(SweepError, match="run_cap: missing, and a random sweep has no end; say --count N"):
        _run(RANDOM)
    _run(RANDOM, 1)
    with pytest.raises(SweepError, match=r"sweep.yaml: optim.lr: the runs in 'runs/tiny' were made with 'log_uni.*min"):
        _run(RANDOM.replace("max: 1.0", "max: 0.5"), 2)
    assert _run(RANDOM + "run_cap: 2\n", 9) == 0  # another run_cap is no other sweep
    assert len(_calls()) == 2


@pytest.mark.parametrize("url", ["postgres", "nosuch://host/name", "sqlite:////no/such/folder/x.db"])
def test_a_database_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(STORAGE, url)
    with pytest.raises(SweepError, match=r"^LUNGSEG_SWEEP_STORAGE: cannot be used: [^\n]+$"):
        _run(RANDOM, 1)


EARLY = RANDOM + "early_terminate: {type: hyperband, min_iter: 1, strict: true}\n"


def test_a_run_that_falls_behind_is_ended_and_keeps_its_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    Path("slow").touch()
    assert _run(EARLY, 2) == 0
    assert _states() == {0: "COMPLETE", 1: "PRUNED"}
    trial = open_study(load_sweep(Path("sweep.yaml")), create=False).trials[1]
    assert list(trial.intermediate_values) == [1] and trial.value == trial.intermediate_values[1]
    run = Path("runs/tiny/trial-0001")
    assert (run / "checkpoints/last.ckpt").is_file() and not (run / "metrics.json").exists()
    assert "run 1: stopped early, after 1 epochs, val/score" in capfd.readouterr().out


def test_an_epoch_counts_when_all_of_it_is_on_disk(tmp_path: Path) -> None:
    rows = ["epoch,step,val/score,train/step_loss,train/loss", "0,1,,2.0,", "0,2,0.5,,1.0", "1,4,0.75,,", "2,5,0.9,,1"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))  # the last one is being written
    assert epochs_of(Run(tmp_path), "val/score") == {1: 0.5}
