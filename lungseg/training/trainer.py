"""How this process was started (alone, by Lightning, torchrun or srun), and the Trainer that fits that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lungseg.config import LossConfig, TrainerConfig
from lungseg.errors import UserError
from lungseg.runs.rank import Rank

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


def cluster_environment(rank: Rank) -> ClusterEnvironment:
    """Lightning's view of the launcher; Slurm's requeueing is left to the job script, which resumes by name."""
    if rank.launcher == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if rank.launcher == "srun" else LightningEnvironment()


def build_trainer(
    section: TrainerConfig, loss: LossConfig, rank: Rank, callbacks: Sequence[Callback] = (), loggers: Any = False
) -> Trainer:
    """Make the Trainer of a config under a launcher; `devices: auto` takes what the launcher started.

    Raises:
        ValueError: One line: what Lightning, or a run of several processes, cannot do.
    """
    strategy = _strategy(section.strategy)
    trainer = _trainer(section, strategy, rank, callbacks, loggers)
    planned = trainer.num_devices * trainer.num_nodes
    if rank.world_size not in (None, planned):
        raise UserError(
            f"trainer.devices: {section.devices!r} on {section.num_nodes} node(s) makes {planned} process(es), and "
            f"{rank.launcher} started {rank.world_size}; leave trainer.devices=auto"
        )
    if trainer.world_size == 1:
        return trainer
    if section.sync_batchnorm and trainer.strategy.root_device.type != "cuda":
        raise UserError("trainer.sync_batchnorm: torch has it for GPUs only; set it to false, or trainer.devices=1")
    if strategy in ("auto", "ddp") and _leaves_weights_unused(loss):
        return _trainer(section, "ddp_find_unused_parameters_true", rank, callbacks, loggers)
    return trainer


def _strategy(name: str) -> str:
    if name in _STRATEGIES:
        return name
    reason = next((reason for part, reason in _REFUSED.items() if part in name), f"is none of {', '.join(_STRATEGIES)}")
    raise UserError(f"trainer.strategy: {name!r} {reason}; use 'ddp', or 'auto'")


def _leaves_weights_unused(loss: LossConfig) -> bool:
    """Whether a loss weight of 0 leaves weights without a gradient, for which the other processes would wait."""
    return loss.cross_entropy == 0 or loss.dice + loss.bce == 0


def _trainer(section: TrainerConfig, strategy: str, rank: Rank, callbacks: Sequence[Callback], loggers: Any) -> Trainer:
    devices, nodes = section.devices, section.num_nodes
    if rank.world_size is not None and devices == "auto":
        devices, nodes = rank.world_size // rank.nodes, rank.nodes
    try:
        return Trainer(
            **{name: getattr(section, name) for name in _OPTIONS},
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            plugins=[cluster_environment(rank)],
            callbacks=list(callbacks),
            logger=loggers,
            enable_checkpointing=bool(callbacks),
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
