"""The Trainer that fits how this process was started: alone, by Lightning's launcher, by torchrun or by srun.

These engines start, watch and end the processes of a run; nothing here does.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import DDPStrategy, Strategy

from lungseg.config import LossConfig, TrainerConfig
from lungseg.errors import UserError, check
from lungseg.runs.rank import Rank
from lungseg.runs.whole_files import whole_file

_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")
"""Of Lightning's; with weights in half or double precision this network does not run."""
_REFUSED = {
    "fsdp": "shares out parameters, and the memory of this network is its activations",
    "deepspeed": "shares out parameters, and its checkpoints are no plain files",
    **dict.fromkeys(("spawn", "fork", "notebook"), "starts processes that cannot hand a run back"),
}
_OPTIONS = (
    *("max_epochs", "accelerator", "precision", "limit_train_batches", "gradient_clip_val", "limit_val_batches"),
    *("accumulate_grad_batches", "sync_batchnorm", "log_every_n_steps", "gradient_clip_algorithm", "fast_dev_run"),
    *("limit_test_batches", "min_epochs", "max_steps", "max_time", "val_check_interval", "check_val_every_n_epoch"),
    *("num_sanity_val_steps", "deterministic", "benchmark", "detect_anomaly", "profiler"),
)


def build_trainer(
    section: TrainerConfig, loss: LossConfig, rank: Rank, callbacks: Sequence[Callback] = (), loggers: Any = False
) -> Trainer:
    """Make the Trainer of a config under a launcher; `devices: auto` takes what the launcher started.

    Raises:
        UserError: What Lightning, or a run of several processes, cannot do.
    """
    _check_strategy(section.strategy)
    for name, there in (("accelerator", _ACCELERATORS), ("precision", _PRECISIONS)):
        value = getattr(section, name)
        check(value in there, f"trainer.{name}", f"one of {', '.join(there)}", value)
    if rank.launcher == "Lightning" and section.num_nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise UserError(
            "trainer.num_nodes: several nodes need torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK in the "
            "environment of each"
        )
    trainer = _trainer(section, section.strategy, rank, callbacks, loggers)
    # Lightning would go on, and the processes that are too many would wait for ever.
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
    # Only now is it known that `auto` means several processes. A loss weight of 0 leaves weights without a gradient,
    # for which DDP would wait in vain unless it is told to look for them, which costs a pass over the graph a step.
    unused = section.strategy in ("auto", "ddp") and (loss.cross_entropy == 0 or loss.dice + loss.bce == 0)
    unused = unused or section.strategy.endswith("_true")
    strategy = DDPStrategy(
        find_unused_parameters=unused,
        gradient_as_bucket_view=True,  # else every gradient is there twice, and copied in each step
        timeout=timedelta(minutes=section.timeout_minutes),
    )
    return _trainer(section, strategy, rank, callbacks, loggers)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that the one before stays until this one is whole.

    Lightning writes to the system's temporary folder. From there to another file system, as a run folder on a cluster
    is, a file is not renamed but copied, into the one before, which is gone if that is interrupted.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, and let the disk have it before it gets its name."""
        with whole_file(Path(path)) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def rank_zero_first(trainer: Trainer, rank: Rank) -> Iterator[None]:
    """Let rank zero do the body, and then the others, where a launcher has started all processes at once.

    So a mistake is said once, and phantoms, caches and the run folder are made once. Lightning's own launcher needs no
    waiting: it starts its children when rank zero is through.

    Args:
        trainer: Joins the process group, which the Trainer of the training finds and uses.
        rank: Of this process.

    Raises:
        SystemExit: With exit code 2 where rank zero has found a mistake, said so and is gone.
        UserError: Rank zero takes longer than `trainer.timeout_minutes`.
    """
    if rank.world_size in (None, 1):
        yield
        return
    trainer.strategy.setup_environment()
    if not rank.is_zero:
        try:
            trainer.strategy.barrier()
        except RuntimeError as error:  # gloo's connection is closed; with NCCL the launcher ends this process
            if "timed out" in str(error).lower():
                raise UserError(
                    "trainer.timeout_minutes: rank zero was waited for in vain; allow it more if it writes a cache"
                ) from None
            raise SystemExit(2) from None
    yield
    # Not in a `finally`: where rank zero has failed, the others must not begin.
    if rank.is_zero:
        trainer.strategy.barrier()


def _check_strategy(name: str) -> None:
    if name in _STRATEGIES:
        return
    reason = next((reason for word, reason in _REFUSED.items() if word in name), f"is none of {', '.join(_STRATEGIES)}")
    raise UserError(f"trainer.strategy: {name!r} {reason}; use 'ddp', or 'auto'")


def _trainer(
    section: TrainerConfig, strategy: str | Strategy, rank: Rank, callbacks: Sequence[Callback], loggers: Any
) -> Trainer:
    devices, nodes = section.devices, section.num_nodes
    if rank.world_size is not None and devices == "auto":
        devices, nodes = rank.world_size // rank.nodes, rank.nodes
    given = {name: getattr(section, name) for name in _OPTIONS} | _for_device(section)
    if section.overfit_batches is not None:  # Lightning's own would put a sampler of its own in the place of ours
        given |= dict.fromkeys(("limit_train_batches", "limit_val_batches"), section.overfit_batches)
    try:
        return Trainer(
            **given,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            plugins=[_cluster_environment(rank), WholeCheckpoints()],
            callbacks=list(callbacks),
            logger=loggers,
            enable_checkpointing=bool(callbacks),
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            use_distributed_sampler=False,  # the data module's own samplers never repeat an image in the scores
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _for_device(section: TrainerConfig) -> dict[str, Any]:
    """Precision and cuDNN's benchmark, where they are left to the device."""
    on_gpu = section.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    precision, benchmark = section.precision, section.benchmark
    if precision == "auto":
        # Emulated it would be slower than float32. Losses and scores are computed in float32 in any case.
        in_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if in_bf16 else "32-true"
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it anyway
    if benchmark is None and on_gpu:
        benchmark = not section.deterministic  # images are of one size, so that what is tried once serves all steps
    return {"precision": precision, "benchmark": benchmark}


def _cluster_environment(rank: Rank) -> ClusterEnvironment:
    """Lightning's view of the launcher; Slurm's requeueing is left to the job script, which resumes by name."""
    if rank.launcher == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if rank.launcher == "srun" else LightningEnvironment()
