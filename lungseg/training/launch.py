"""How this process was started (alone, by Lightning, torchrun or srun), and the Trainer that fits that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lungseg.config import LossConfig, TrainerConfig
from lungseg.reporting.run_folder import is_rank_zero

_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_REFUSED = {
    "fsdp": "shares out parameters, and the memory of this network is its activations",
    "deepspeed": "shares out parameters, and its checkpoints are no plain files",
    "spawn": "starts processes that cannot hand a run back",
    "fork": "starts processes that cannot hand a run back",
    "notebook": "starts processes that cannot hand a run back",
}
_OPTIONS = (
    *("max_epochs", "accelerator", "precision", "limit_train_batches", "gradient_clip_val"),
    *("accumulate_grad_batches", "sync_batchnorm", "log_every_n_steps"),
)


@dataclass(frozen=True)
class Launch:
    """This process among those of its run, as its environment tells before anything is set up."""

    by: str
    """`torchrun`, `srun`, or `Lightning`, whose launcher starts the other processes of a node from the first."""
    name: str
    """As in `rank 1`."""
    is_zero: bool
    """Whether this is the process that makes the run folder, logs and prints."""
    is_child: bool = False
    """Whether another process of the run started this one."""
    processes: int | None = None
    """All that the launcher started; None where the config decides."""
    nodes: int = 1

    @classmethod
    def detect(cls) -> Launch:
        """Read the environment; torchrun inside of srun is torchrun, and a Slurm job of one task is none of Slurm's."""
        if TorchElasticEnvironment.detect():
            processes, a_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
            name = f"rank {os.environ['RANK']}"
            return cls("torchrun", name, is_rank_zero(), processes=processes, nodes=processes // a_node)
        if os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive") and int(_env("SLURM_NTASKS", "1")) > 1:
            name, nodes = f"rank {_env('SLURM_PROCID', '0')}", int(_env("SLURM_NNODES", "1"))
            return cls("srun", name, is_rank_zero(), processes=int(os.environ["SLURM_NTASKS"]), nodes=nodes)
        node, place = _env("NODE_RANK", "0"), _env("LOCAL_RANK", "0")
        name = f"rank {place}" if node == "0" else f"rank {place} of node {node}"
        return cls("Lightning", name, is_rank_zero(), is_child=place != "0")

    def environment(self) -> ClusterEnvironment:
        """Lightning's view of the launcher; Slurm's requeueing is left to the job script, which resumes by name."""
        if self.by == "torchrun":
            return TorchElasticEnvironment()
        return SLURMEnvironment(auto_requeue=False) if self.by == "srun" else LightningEnvironment()


def _env(name: str, default: str) -> str:
    return os.environ.get(name) or default


def build_trainer(
    section: TrainerConfig, loss: LossConfig, launch: Launch, callbacks: Sequence[Callback] = (), loggers: Any = False
) -> Trainer:
    """Make the Trainer of a config under a launcher; `devices: auto` takes what the launcher started.

    Raises:
        ValueError: One line: what Lightning, or a run of several processes, cannot do.
    """
    strategy = _strategy(section.strategy)
    trainer = _trainer(section, strategy, launch, callbacks, loggers)
    planned = trainer.num_devices * trainer.num_nodes
    if launch.processes not in (None, planned):
        raise ValueError(
            f"trainer.devices: {section.devices!r} on {section.num_nodes} node(s) makes {planned} process(es), and "
            f"{launch.by} started {launch.processes}; leave trainer.devices=auto"
        )
    if trainer.world_size == 1:
        return trainer
    if section.sync_batchnorm and trainer.strategy.root_device.type != "cuda":
        raise ValueError("trainer.sync_batchnorm: torch has it for GPUs only; set it to false, or trainer.devices=1")
    if strategy in ("auto", "ddp") and _leaves_weights_unused(loss):
        return _trainer(section, "ddp_find_unused_parameters_true", launch, callbacks, loggers)
    return trainer


def _strategy(name: str) -> str:
    if name in _STRATEGIES:
        return name
    reason = next((reason for part, reason in _REFUSED.items() if part in name), f"is none of {', '.join(_STRATEGIES)}")
    raise ValueError(f"trainer.strategy: {name!r} {reason}; use 'ddp', or 'auto'")


def _leaves_weights_unused(loss: LossConfig) -> bool:
    """Whether a loss weight of 0 leaves weights without a gradient, for which the other processes would wait."""
    return loss.cross_entropy == 0 or loss.dice + loss.bce == 0


def _trainer(
    section: TrainerConfig, strategy: str, launch: Launch, callbacks: Sequence[Callback], loggers: Any
) -> Trainer:
    devices, nodes = section.devices, section.num_nodes
    if launch.processes is not None and devices == "auto":
        devices, nodes = launch.processes // launch.nodes, launch.nodes
    try:
        return Trainer(
            **{name: getattr(section, name) for name in _OPTIONS},
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            plugins=[launch.environment()],
            callbacks=list(callbacks),
            logger=loggers,
            enable_checkpointing=bool(callbacks),
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error
