"""What can be configured: one frozen dataclass a section, with types, choices, ranges and units.

`lungseg.config.loading` reads files and `key=value` words into these; commands hand plain values on.
Every field is set by a shipped config or sweep, or is a place or a name that only the user can know.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from lungseg.config.data import AugmentConfig as AugmentConfig
from lungseg.config.data import DataConfig as DataConfig
from lungseg.config.data import PhantomConfig as PhantomConfig
from lungseg.config.model import LossConfig as LossConfig
from lungseg.config.model import ModelConfig as ModelConfig
from lungseg.config.model import OptimConfig as OptimConfig
from lungseg.errors import check


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives, how it is seeded, when it stops, what counts as best."""

    name: str | None = None
    """Run folder below `dir`; null takes the config's name and counts up (`demo`, `demo-2`, ...)."""
    dir: str = "runs"
    seed: int = 0
    """Seeds weights, order and augmentation; 0 or more."""
    resume: bool = False
    """Continue `dir/name` from its `last.ckpt`; without one, start anew in that folder."""
    init: str | None = None
    """A run folder, a checkpoint or a .safetensors model that a new run takes all weights from (fine-tuning)."""
    monitor: str = "val/score"
    """Logged metric that picks the best checkpoint; `val/score` is the mean of dice and balanced accuracy (AUROC where
    an image may have several findings), or what there is of them."""
    mode: Literal["max", "min"] = "max"
    patience: int | None = None
    """Epochs without a better `monitor` before training stops; null never stops early."""
    report: bool = True
    """Evaluate the best checkpoint at the end, as `python -m lungseg.evaluate` does, with fewer images where a study
    shows the network each of them many times; `evaluation/test/report.html` (Val where there is no Test)."""
    tensorboard: bool = False
    """Also log to TensorBoard (extra `tensorboard`)."""
    mlflow: bool = False
    """Also log to MLflow (extra `mlflow`), at `$MLFLOW_TRACKING_URI`, else in `dir/mlflow.db`."""

    def __post_init__(self) -> None:
        check(self.seed >= 0, "run.seed", ">= 0", self.seed)
        check(self.patience is None or self.patience >= 1, "run.patience", ">= 1 epoch or null", self.patience)
        # Folders in folders, as of a study, are fine; `..`, an empty part or a name that no file system takes are not.
        parts = [] if self.name is None else re.split(r"[/\\]", self.name)
        plain = all(part.strip(" .") == part != "" and part.isprintable() and len(part) <= 100 for part in parts)
        check(plain, "run.name", "a plain folder name", self.name)


@dataclass(frozen=True)
class TrainerConfig:
    """What Lightning's Trainer takes, under its own names."""

    max_epochs: int = 50
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    """A count, a list of indices, or `auto`."""
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    """`32-true`, `16-mixed` or `bf16-mixed`; `auto` is bf16-mixed on GPUs that compute in it, else 32-true."""
    gradient_clip_val: float | None = 1.0
    """Largest global norm of the gradient; null switches clipping off."""
    accumulate_grad_batches: int = 1
    sync_batchnorm: bool = False
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    limit_train_batches: int | float | None = None
    """Batches used an epoch, or a share of them (a number with a point, in (0, 1]); null: all."""
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    overfit_batches: int | float | None = None
    """Train on the first batches alone, always the same and not augmented, and validate on as many; to find out
    whether a network can learn at all."""
    fast_dev_run: int | bool = False
    """Run so many batches (true: 1) of each split through, and leave nothing behind."""
    min_epochs: int | None = None
    """Epochs before `run.patience` may end the run."""
    max_steps: int = -1
    """Optimiser steps after which the run ends, if `max_epochs` has not ended it; -1: no limit."""
    max_time: str | None = None
    """Ends the run after so long, as `DD:HH:MM:SS`, be it within an epoch."""
    val_check_interval: int | float | None = None
    """Validate after so many training batches, or so large a share (with a point, in (0, 1]) of an epoch; null: at
    its end."""
    check_val_every_n_epoch: int = 1
    num_sanity_val_steps: int = 2
    """Batches of Val that are tried before the training; -1: all."""
    deterministic: bool = False
    """Only operations of torch that give the same bits every time; an error where it has none."""
    benchmark: bool | None = None
    """Let cuDNN try which of its ways is the fastest; null: on GPUs, unless `deterministic`."""
    compile: bool = False
    """Train with the network compiled by `torch.compile`: minutes at the start; for GPUs, on a CPU it is slower."""
    detect_anomaly: bool = False
    """Find the operation that makes a gradient NaN; slow."""
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    """Time what is called, and print it at the end."""
    log_every_n_steps: int = 10
    timeout_minutes: float = 30.0
    """Longest that a process waits for another, be it one that hangs, or rank zero while it writes a cache."""

    def __post_init__(self) -> None:
        counts = ("max_epochs", "num_nodes", "accumulate_grad_batches", "log_every_n_steps", "check_val_every_n_epoch")
        for name in counts:
            check(getattr(self, name) >= 1, f"trainer.{name}", ">= 1", getattr(self, name))
        clip = self.gradient_clip_val
        check(clip is None or 0 < clip < math.inf, "trainer.gradient_clip_val", "> 0 and finite, or null", clip)
        limits = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")
        for name in (*limits, "val_check_interval"):
            limit = getattr(self, name)
            good = limit is None or (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1)
            check(good, f"trainer.{name}", "a whole number of batches from 1, a share in (0, 1], or null", limit)
        check(self.max_steps == -1 or self.max_steps >= 1, "trainer.max_steps", ">= 1, or -1", self.max_steps)
        check(self.num_sanity_val_steps >= -1, "trainer.num_sanity_val_steps", ">= -1", self.num_sanity_val_steps)
        check(int(self.fast_dev_run) >= 0, "trainer.fast_dev_run", "true, false or >= 1", self.fast_dev_run)
        least, most = self.min_epochs, self.max_epochs
        check(least is None or 1 <= least <= most, "trainer.min_epochs", "in 1..max_epochs, or null", least)
        time = self.max_time
        check(time is None or re.fullmatch(r"\d{2}:\d{2}:\d{2}:\d{2}", time), "trainer.max_time", "DD:HH:MM:SS", time)
        minutes = self.timeout_minutes
        check(0 < minutes <= 10_000, "trainer.timeout_minutes", "above 0 and at most 10,000", minutes)


@dataclass(frozen=True)
class OverlayConfig:
    """The contact sheets of overlays drawn after an epoch of training."""

    samples: int = 6
    """Validation images followed through the run, spread over the classes."""
    every_n_epochs: int = 1
    max_sheets: int = 100
    """Most contact sheets a run writes; when epochs exceed it they are thinned evenly, the last is always kept."""

    def __post_init__(self) -> None:
        for name in ("samples", "every_n_epochs", "max_sheets"):
            check(getattr(self, name) >= 1, f"overlays.{name}", ">= 1", getattr(self, name))


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto` is online where a key is known and offline elsewhere."""
    project: str = "lungseg"
    """Also the experiment in MLflow."""
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    images: bool = True
    """Send the overlays (X-ray pixels) too; to MLflow as well, with the report, which shows images."""
    artifacts: bool = False
    """Send the best checkpoint too, as a run folder that names no place; to MLflow as well."""
    alerts: bool = False
    """Send an alert when the loss is no number, and when `val/evidence_in_lungs` falls below 0.5."""


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    overlays: OverlayConfig = field(default_factory=OverlayConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        if self.loss.contrastive_weight > 0:
            check(self.augment.views > 1, "augment.views", "2 or more with loss.contrastive_weight", self.augment.views)
            # An image that is drawn twice would be its own view.
            check(not self.data.balanced, "data.balanced", "false with loss.contrastive_weight", self.data.balanced)
