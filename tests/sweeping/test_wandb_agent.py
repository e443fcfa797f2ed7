"""The installed `wandb agent` against a stand-in of W&B: what a sweep hands out is what fits run, stop and leave."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from wandb_server import ENTITY, PROJECT, SWEEP, Run, WandbServer

from lungseg import fit
from lungseg.command import run_command

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for orphans in /proc"),
    pytest.mark.timeout(600),
]

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
data: {{root: {root}, image_size: 64, batch_size: 2, workers: 0}}
model: {{encoder: tu-test_efficientnet, encoder_depth: 4, decoder_channels: [16, 16, 8, 8]}}
trainer: {{max_epochs: 1, accelerator: cpu}}
overlays: {{samples: 3}}
wandb: {{project: another}}
run: {{report: false}}
"""
COMMAND = ["${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "tiny.yaml", "${args_no_hyphens}"]
SWEEP_FILE: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/score", "goal": "maximize"},
    "parameters": {"optim.lr": {"values": [0.001, 0.002, 0.003]}},
    "command": COMMAND,
}
FOREIGN = ("WANDB_", "SLURM_", "TORCHELASTIC_", "LUNGSEG_RUN")
RANKS = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
TWO = {"trainer.devices": 2}


@dataclass
class Agents:
    """`wandb agent` processes at work on one sweep in one folder."""

    folder: Path
    server: WandbServer
    marker: str

    def start(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one more agent and wait until it is known; its output and its runs' go to `agent-N.txt`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN) and k not in RANKS}
        home = str(self.folder / "home")
        own = {"HOME": home, "NETRC": f"{home}/netrc", "WANDB_DIR": str(self.folder), "XDG_CONFIG_HOME": home}
        own |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        own |= {
            "OMP_NUM_THREADS": "1",
            "LUNGSEG_TEST": self.marker,
            "WANDB_AGENT_KILL_DELAY": "120",
            **self.server.environment(),
            **environment,
        }
        number = len(list(self.folder.glob("agent-*.txt")))
        with (self.folder / f"agent-{number}.txt").open("wb") as out:
            process = subprocess.Popen(
                ["wandb", "agent", *options, f"{ENTITY}/{PROJECT}/{SWEEP}"],
                cwd=self.folder,
                env=inherited | own,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        while len(self.server.agents) == number and process.poll() is None:
            time.sleep(0.05)
        return process

    def output(self) -> str:
        """All that agents and runs have printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("agent-*.txt")))

    def left(self, within_s: float = 0) -> list[str]:
        """Processes started by the agents, agents included, that still live after a time of grace: `pid command`."""
        until = time.monotonic() + within_s
        while (found := list(_marked(self.marker))) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def kill(self) -> None:
        """End what a failed test has left."""
        for line in _marked(self.marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)

    def run_folder(self, run: Run) -> Path:
        """The run folder whose config has the run's learning rate."""
        folders = [path.parent for path in self.folder.glob("runs/*/config.yaml")]
        (found,) = [path for path in folders if _config(path)["optim"]["lr"] == run.values["optim.lr"]]
        return found


def _marked(marker: str) -> Iterator[str]:
    """`pid command` of every live process with the marker in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"LUNGSEG_TEST={marker}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield f"{folder.name} {words}"


def _config(run_folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((run_folder / "config.yaml").read_text())
    return config


def _epochs(run_folder: Path) -> list[int]:
    """Epochs whose training loss is in `metrics.csv`."""
    with (run_folder / "metrics.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row["train/loss"]]


@contextlib.contextmanager
def _sweep(folder: Path, root: Path, *queues: list[Run]) -> Iterator[Agents]:
    (folder / "home").mkdir()
    (folder / "tiny.yaml").write_text(CONFIG.format(root=root))
    with WandbServer(SWEEP_FILE, *queues) as server:
        agents = Agents(folder, server, uuid.uuid4().hex)
        try:
            yield agents
        finally:
            agents.kill()


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Iterator[Agents]:
    """Two agents that have worked off a sweep: a run stopped on two processes, two that fail, and one that ends.

    The first agent gives up at the first failure if no run of it has succeeded.
    """
    queues = [
        [
            Run("halted", {"optim.lr": 0.001, "trainer.max_epochs": 300, **TWO}, epochs=1),
            Run("late", {"optim.lr": 8.0}),
        ],
        [Run("wrong", {"optim.lr": 7.0}), Run("whole", {"optim.lr": 0.003, "model.encoder_weights": None})],
    ]
    with _sweep(tmp_path_factory.mktemp("sweep"), phantoms, *queues) as agents:
        started = [agents.start(WANDB_AGENT_MAX_INITIAL_FAILURES="1"), agents.start()]
        codes = [process.wait(timeout=500) for process in started]
        assert codes == [0, 0], agents.output()
        yield agents


def test_each_run_of_a_sweep_trains_with_its_own_values(agents: Agents) -> None:
    for run in (agents.server.runs[name] for name in ("halted", "whole")):
        config = _config(agents.run_folder(run))
        for key, value in run.values.items():
            section, name = key.split(".")
            assert config[section][name] == value and run.config[section][name] == value, key
            assert run.config[key] == value


def test_each_fit_is_exactly_one_run_of_the_sweep_on_one_process_and_on_two(agents: Agents) -> None:
    runs = agents.server.runs.values()
    assert {run.id: run.starts for run in runs} == {"halted": 1, "late": 0, "wrong": 0, "whole": 1}
    assert {run.sweep for run in runs if run.starts} == {SWEEP}
    assert len(list(agents.folder.glob("runs/*"))) == 2
    run = agents.server.runs["whole"]
    assert run.exit_code == 0 and run.scored == 1 and any("overlays" in path for path in run.files), run
    assert (agents.run_folder(run) / "metrics.json").is_file()


def test_a_run_that_fails_says_why_and_its_agent_goes_on(agents: Agents) -> None:
    assert agents.output().count("error: command line: optim.lr: must be in (0, 1], got 7.0") == 1
    assert agents.server.runs["whole"].agent == agents.server.runs["wrong"].agent is not None


def test_a_stopped_run_ends_cleanly_on_both_processes(agents: Agents) -> None:
    halted = agents.server.runs["halted"]
    assert halted.told >= 1 and 1 <= halted.scored < 300 and halted.exit_code is not None
    assert "Traceback" not in agents.output()


def test_a_stopped_run_is_no_failure_to_an_agent_that_gives_up_at_the_first(agents: Agents) -> None:
    assert agents.server.runs["late"].agent == agents.server.runs["halted"].agent is not None


def test_a_stopped_run_continues_after_its_last_whole_epoch(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = agents.run_folder(agents.server.runs["halted"])
    logged = _epochs(folder)
    kept = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"]
    assert kept in (logged[-1], logged[-1] - 1)  # the signal may come between the row and the checkpoint
    monkeypatch.chdir(agents.folder)
    monkeypatch.setenv("LUNGSEG_RUN_FOLDER", "")
    words = [
        f"run.name={folder.name}",
        "run.resume=true",
        f"trainer.max_epochs={kept + 2}",
        "wandb.mode=disabled",
    ]
    assert run_command(fit.main, fit._parser(), ["--config", "tiny.yaml", *words]) == 0
    assert _epochs(folder) == list(range(kept + 2))


def test_agents_leave_no_process_behind(agents: Agents) -> None:
    assert agents.left(within_s=5) == []


@pytest.mark.slow
@pytest.mark.parametrize("by", ["page", "exit"])
def test_a_run_on_two_processes_ended_from_its_page_or_with_its_sweep_leaves_none(
    tmp_path: Path, phantoms: Path, by: Literal["page", "exit"]
) -> None:
    """`exit` is the hard one: the agent kills the process that it started, which can clean up nothing."""
    run = Run("ended", {"optim.lr": 0.001, "trainer.max_epochs": 300, **TWO}, epochs=1, by=by)
    with _sweep(tmp_path, phantoms, [run]) as agents:
        assert agents.start().wait(timeout=500) == 0
        assert agents.left(within_s=20) == [] and run.told >= 1
        assert (run.exit_code is None) == (by == "exit") and "Traceback" not in agents.output()


@pytest.mark.slow
def test_an_agent_that_forwards_signals_ends_with_its_run_on_sigterm(tmp_path: Path, phantoms: Path) -> None:
    """What a cluster does to `wandb agent --count 1 --forward-signals` when the job's time is over."""
    run = Run("preempted", {"optim.lr": 0.001, "trainer.max_epochs": 300, **TWO})
    with _sweep(tmp_path, phantoms, [run]) as agents:
        agent = agents.start("--count", "1", "--forward-signals")
        until = time.monotonic() + 120
        while not run.scored and time.monotonic() < until:
            time.sleep(0.2)
        agent.send_signal(signal.SIGTERM)
        agent.wait(timeout=60)
        assert agents.left(within_s=5) == [] and "Traceback" not in agents.output()
        assert run.exit_code is not None and (agents.run_folder(run) / "checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_a_run_that_diverges_is_a_failure_on_its_page_too(tmp_path: Path, phantoms: Path) -> None:
    run = Run("diverged", {"optim.lr": 0.001, "loss.dice": 1e39})
    with _sweep(tmp_path, phantoms, [run]) as agents:
        assert agents.start().wait(timeout=500) == 0
        assert "error: train/loss is" in agents.output() and run.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize(("given", "started"), [({}, 3), ({"WANDB_AGENT_DISABLE_FLAPPING": "true"}, 4)])
def test_an_agent_gives_up_after_three_failures_in_its_first_minute_unless_told_otherwise(
    tmp_path: Path, phantoms: Path, given: dict[str, str], started: int
) -> None:
    runs = [Run(f"wrong-{number}", {"optim.lr": 7.0 + number}) for number in range(4)]
    with _sweep(tmp_path, phantoms, runs) as agents:
        assert agents.start(**given).wait(timeout=500) == 0
        assert sum(run.agent is not None for run in runs) == started
