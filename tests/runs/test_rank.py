"""Which process writes, as each launcher's environment tells it."""

from __future__ import annotations

import pytest

from lungseg.runs.rank import Rank, detect_rank


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
