"""Which process writes and speaks, as each launcher's environment tells it, and which ends with another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.errors import UserError
from lungseg.runs.rank import Rank, detect_rank, mistakes_said_once, own_cores


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank("Lightning")),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Rank("Lightning", 1, 1)),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, Rank("Lightning", 0, 0, node_rank=1)),
        (
            {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            Rank("torchrun", 3, 1, world_size=4, nodes=2),
        ),
        (  # torchrun inside of srun
            {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
            Rank("torchrun", 0, 0, world_size=4),
        ),
        (
            {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"},
            Rank("srun", 5, 1, world_size=8, nodes=2),
        ),
        (  # a shell inside of an allocation is one process, whatever the allocation could hold
            {"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
            Rank("Lightning"),
        ),
    ],
)
def test_rank_is_read_from_the_launchers_environment(environment: dict[str, str], rank: Rank) -> None:
    assert detect_rank(environment) == rank


@pytest.mark.parametrize(
    ("environment", "zero"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "0"}, True),
    ],
)
def test_one_process_of_a_run_is_rank_zero(environment: dict[str, str], zero: bool) -> None:
    assert detect_rank(environment).is_zero is zero


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, UserError),
        ({"LOCAL_RANK": "1"}, UserError),  # of Lightning's launcher: rank zero has found no mistake before it
        ({"RANK": "4", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, UserError),  # the first of another machine
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, SystemExit),
    ],
)
def test_a_mistake_is_said_by_one_process_of_a_machine(
    variables: dict[str, str], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error) as raised, mistakes_said_once():
        raise UserError("optim.lr: must be > 0")
    assert error is UserError or raised.value.code == 2  # type: ignore[attr-defined]


CHILD = "from lungseg.runs.rank import end_with_parent; end_with_parent(); print('up', flush=True); input()"
PARENT = f"""
import os, subprocess, sys
os.environ["LUNGSEG_PARENT_PID"] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", {CHILD!r}])
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has NCCL, which does not fail when a process dies")
def test_a_child_ends_with_its_parent_however_that_ends() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert parent.stdin is not None and parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    assert parent.stdout.read() == b""  # the child holds the other end of this pipe for as long as it lives


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_a_child_whose_parent_is_gone_before_it_is_up_ends_too() -> None:
    variables = os.environ | {"LUNGSEG_PARENT_PID": "1"}
    command = [sys.executable, "-c", CHILD]
    ended = subprocess.run(command, env=variables, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


SRUN = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_CPUS_ON_NODE": "32"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("environment", "usable", "local_world_size", "own"),
    [
        (SRUN, 8, 4, 8),  # bound to a quarter of the node
        (SRUN, 32, 4, 8),  # not bound: all four see all cores
        (SRUN | {"SLURM_NTASKS": "2"}, 32, 1, 32),  # one task a node
        (SRUN | {"SLURM_CPUS_ON_NODE": ""}, 32, 4, 8),
        (TORCHRUN, 32, 4, 8),
        (TORCHRUN | SRUN, 32, 4, 8),  # torchrun inside of srun: its four share what srun gave it
        (TORCHRUN | SRUN, 16, 4, 4),
        ({}, 32, 4, 8),  # Lightning's launcher
        ({}, 32, 1, 32),
        ({}, 2, 8, 1),
    ],
)
def test_own_cores_are_those_bound_or_a_share_of_the_nodes(
    environment: dict[str, str], usable: int, local_world_size: int, own: int
) -> None:
    assert own_cores(usable, local_world_size, environment) == own
