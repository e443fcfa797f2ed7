"""Who a process is under each launcher, and which Trainer it gets."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lungseg.config import LossConfig, TrainerConfig
from lungseg.runs.rank import Rank, detect_rank
from lungseg.training.trainer import build_trainer

CPU = TrainerConfig(accelerator="cpu")
NAMES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *SLURM, "SLURM_JOB_NAME", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def _set(monkeypatch: pytest.MonkeyPatch, **environment: int | str) -> Rank:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return detect_rank()


def test_a_process_of_its_own_is_rank_zero_and_leaves_devices_to_the_config() -> None:
    place = detect_rank()
    assert (place.launcher, place.is_zero, place.world_size) == ("Lightning", True, None)
    assert isinstance(build_trainer(CPU, LossConfig(), place).strategy, SingleDeviceStrategy)
    assert build_trainer(dataclasses.replace(CPU, devices=2), LossConfig(), place).world_size == 2


def test_what_lightning_starts_is_not_rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    child = _set(monkeypatch, LOCAL_RANK=1, SLURM_PROCID=0, SLURM_NTASKS=1)
    assert (child.rank, child.is_zero, child.is_child) == (1, False, True)
    other_node = _set(monkeypatch, LOCAL_RANK=0, NODE_RANK=1)
    assert (other_node.node_rank, other_node.is_zero, other_node.is_child) == (1, False, False)


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    place = _set(monkeypatch, TORCHELASTIC_RUN_ID="a", RANK=3, LOCAL_RANK=1, WORLD_SIZE=4, LOCAL_WORLD_SIZE=2)
    assert place == Rank("torchrun", 3, 1, world_size=4, nodes=2)
    trainer = build_trainer(CPU, LossConfig(), place)
    assert (trainer.world_size, trainer.num_nodes, trainer.global_rank) == (4, 2, 3)


def test_torchrun_inside_of_srun_is_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    place = _set(
        monkeypatch,
        **{"TORCHELASTIC_RUN_ID": "a", "RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4},
        **{"SLURM_PROCID": 1, "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 1},
    )
    assert place.launcher == "torchrun" and place.is_zero


def test_srun_says_how_many_processes_there_are_and_requeueing_is_not_lightnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"SLURM_PROCID": 5, "SLURM_LOCALID": 1, "SLURM_NODEID": 1, "SLURM_NTASKS": 8, "SLURM_NNODES": 2}
    place = _set(monkeypatch, SLURM_NTASKS_PER_NODE=4, SLURM_JOB_ID=7, SLURM_JOB_NAME="fit", **environment)
    assert place == Rank("srun", 5, 1, world_size=8, nodes=2)
    trainer = build_trainer(CPU, LossConfig(), place)
    assert (trainer.world_size, trainer.num_nodes, trainer.global_rank) == (8, 2, 5)
    assert not trainer.strategy.cluster_environment.auto_requeue  # type: ignore[attr-defined]


def test_a_slurm_job_of_one_task_starts_its_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    place = _set(monkeypatch, SLURM_PROCID=0, SLURM_NTASKS=1, SLURM_NTASKS_PER_NODE=1, SLURM_JOB_NAME="agents")
    trainer = build_trainer(dataclasses.replace(CPU, devices=2), LossConfig(), place)
    assert trainer.world_size == 2
    assert not trainer.strategy.cluster_environment.creates_processes_externally  # type: ignore[attr-defined]


def test_srun_without_tasks_per_node_is_told_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    place = _set(monkeypatch, SLURM_PROCID=0, SLURM_NTASKS=2, SLURM_JOB_NAME="fit")
    with pytest.raises(ValueError, match=r"trainer: .*--ntasks=2.*Use `--ntasks-per-node=2` instead"):
        build_trainer(CPU, LossConfig(), place)


@pytest.mark.parametrize("devices", [1, 3])
def test_devices_that_the_launcher_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch, devices: object) -> None:
    place = _set(monkeypatch, TORCHELASTIC_RUN_ID="a", RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2)
    with pytest.raises(ValueError, match=r"trainer\.devices: .*torchrun started 2; leave trainer\.devices=auto"):
        build_trainer(dataclasses.replace(CPU, devices=devices), LossConfig(), place)


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("fsdp", "shares out parameters, and the memory of this network is its activations"),
        ("deepspeed_stage_2", "shares out parameters"),
        ("ddp_spawn", "starts processes that cannot hand a run back"),
        ("ddp_notebook", "starts processes that cannot hand a run back"),
        ("dpp", "is none of auto, ddp"),
    ],
)
def test_strategies_that_do_not_fit_are_refused_with_the_reason(strategy: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.strategy: '{strategy}' {re.escape(reason)}.*; use 'ddp'"):
        build_trainer(dataclasses.replace(CPU, devices=2, strategy=strategy), LossConfig(), detect_rank())


@pytest.mark.parametrize(
    ("loss", "looks"),
    [(LossConfig(), False), (LossConfig(cross_entropy=0), True), (LossConfig(dice=0, bce=0), True)],
)
def test_processes_look_for_weights_without_a_gradient_where_a_loss_is_switched_off(
    loss: LossConfig, looks: bool
) -> None:
    trainer = build_trainer(dataclasses.replace(CPU, devices=2), loss, detect_rank())
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs.get("find_unused_parameters", False) is looks


def test_processes_wait_for_each_other_as_long_as_the_config_says() -> None:
    section = dataclasses.replace(CPU, devices=2, timeout_minutes=0.5)
    strategy = build_trainer(section, LossConfig(), detect_rank()).strategy
    assert isinstance(strategy, DDPStrategy) and strategy._timeout == timedelta(seconds=30)


def test_synchronised_batchnorm_without_gpus_is_refused_where_it_would_matter() -> None:
    section = dataclasses.replace(CPU, sync_batchnorm=True)
    assert build_trainer(section, LossConfig(), detect_rank()).world_size == 1
    with pytest.raises(ValueError, match=r"trainer\.sync_batchnorm: torch has it for GPUs only"):
        build_trainer(dataclasses.replace(section, devices=2), LossConfig(), detect_rank())


@pytest.mark.parametrize(
    ("gpu", "in_bf16", "section", "precision", "benchmark"),
    [
        (False, False, TrainerConfig(), "32-true", None),
        (True, True, TrainerConfig(), "bf16-mixed", True),
        (True, False, TrainerConfig(), "32-true", True),
        (True, True, TrainerConfig(accelerator="cpu"), "32-true", None),
        (True, True, TrainerConfig(precision="32-true", deterministic=True), "32-true", False),
        (True, True, TrainerConfig(precision="16-mixed", benchmark=False), "16-mixed", False),
    ],
)
def test_precision_and_benchmark_follow_the_device_where_they_are_left_to_it(
    gpu: bool,
    in_bf16: bool,
    section: TrainerConfig,
    precision: str,
    benchmark: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: in_bf16 and not including_emulation)
    monkeypatch.setattr("lungseg.training.trainer.Trainer", lambda **options: given.update(options) or Planned())
    build_trainer(section, LossConfig(), Rank("Lightning"))
    assert (given["precision"], given["benchmark"]) == (precision, benchmark)


class Planned:
    """What is asked of a Trainer that was made."""

    num_devices = num_nodes = world_size = 1
