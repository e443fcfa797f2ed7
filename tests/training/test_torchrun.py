"""Processes that other launchers start: torchrun, srun, one command on each node. All slow: of the default tests, those
of `test_two_processes` run under torchrun."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from launching import FIT, TORCHRUN, Running, check_one_run, rows

pytestmark = pytest.mark.timeout(600)


@pytest.mark.slow
def test_torchrun_and_lightnings_launcher_give_the_same_run(tmp_path: Path) -> None:
    for words in ((*TORCHRUN, *FIT, "--config", "tiny.yaml"), (*FIT, "--config", "tiny.yaml", "trainer.devices=2")):
        running = Running(tmp_path, words)
        assert running.wait() == 0, running.said()
    first, second = (tmp_path / "runs" / name / "metrics.csv" for name in ("tiny", "tiny-2"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_torchrun_resumes_a_run_by_name(tmp_path: Path) -> None:
    for words in ((), ("run.resume=true", "trainer.max_epochs=3")):
        running = Running(tmp_path, (*TORCHRUN, *FIT, "--config", "tiny.yaml", "run.name=mine", *words))
        assert running.wait() == 0, running.said()
    assert [row["epoch"] for row in rows(tmp_path / "runs/mine") if row["train/loss"]] == ["0", "1", "2"]
    again = Running(tmp_path, (*TORCHRUN, *FIT, "--config", "tiny.yaml", "run.name=mine"))
    assert again.wait() == 1 and again.err.read_text().count("run folder 'runs/mine' exists") == 1


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.slow
def test_srun_makes_one_run_without_a_name(tmp_path: Path) -> None:
    """Two processes as srun starts them; Slurm's own programs are not needed for that."""
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": "fit", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"MASTER_PORT": str(_free_port())}
    tasks = [job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (1, 0)]
    _together(tmp_path, tasks)


@pytest.mark.slow
def test_one_command_on_each_node_makes_one_run(tmp_path: Path) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    _together(tmp_path, [place | {"NODE_RANK": str(rank)} for rank in (0, 1)], "trainer.num_nodes=2")


def _together(folder: Path, environments: list[dict[str, str]], *words: str) -> None:
    arguments = (*FIT, "--config", "tiny.yaml", "wandb.mode=offline", *words)
    tasks = [Running(folder, arguments, environment) for environment in environments]
    assert [task.wait() for task in tasks] == [0, 0], "".join(task.said() for task in tasks)
    assert [run.name for run in (folder / "runs").iterdir()] == ["tiny"]
    check_one_run(folder / "runs" / "tiny", "".join(task.said() for task in tasks), epochs=2)
    assert [task.left(within_s=5) for task in tasks] == [[], []]


@pytest.mark.slow
def test_nodes_without_an_address_are_refused_at_once(tmp_path: Path) -> None:
    running = Running(tmp_path, (*FIT, "--config", "tiny.yaml", "trainer.num_nodes=2"))
    assert running.wait() == 2
    assert "error: trainer.num_nodes: several nodes need torchrun, srun, or MASTER_ADDR" in running.said()
    assert not (tmp_path / "runs").exists()
