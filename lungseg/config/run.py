"""Sections `run`, `trainer`, `overlays` and `wandb`: one run, what drives it, and what it shows."""

import math
from dataclasses import dataclass, field
from typing import Literal

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
    """Continue `dir/name` from its `last.ckpt`."""
    init: str | None = None
    """A run folder, a checkpoint or a .safetensors model that a new run takes all weights from (fine-tuning)."""
    monitor: str = "val/score"
    """Logged metric that picks the best checkpoint; `val/score` is the mean of dice and balanced accuracy."""
    mode: Literal["max", "min"] = "max"
    patience: int | None = None
    """Epochs without a better `monitor` before training stops; null never stops early."""
    report: bool = True
    """Evaluate the best checkpoint at the end, as `python -m lungseg.evaluate` does, with fewer images where a study
    shows the network each of them many times; `evaluation/test/report.html` (Val where there is no Test)."""
    tensorboard: bool = False
    """Also log to TensorBoard (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        check(self.seed >= 0, "run.seed", ">= 0", self.seed)
        check(self.patience is None or self.patience >= 1, "run.patience", ">= 1 epoch or null", self.patience)
        plain = self.name is None or self.name.strip(" ./") == self.name != ""  # else `..` would leave `dir`
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
    precision: str = "32-true"
    """`32-true`, `16-mixed`, `bf16-mixed`, ..."""
    gradient_clip_val: float | None = 1.0
    """Largest global norm of the gradient; null switches clipping off."""
    accumulate_grad_batches: int = 1
    sync_batchnorm: bool = False
    limit_train_batches: float | None = None
    """Share of the batches used an epoch, in (0, 1]; null: all."""
    log_every_n_steps: int = 10

    def __post_init__(self) -> None:
        # Names of accelerators, strategies and precisions are Lightning's to check: it knows those of this machine.
        for name in ("max_epochs", "num_nodes", "accumulate_grad_batches", "log_every_n_steps"):
            check(getattr(self, name) >= 1, f"trainer.{name}", ">= 1", getattr(self, name))
        clip, limit = self.gradient_clip_val, self.limit_train_batches
        check(clip is None or 0 < clip < math.inf, "trainer.gradient_clip_val", "> 0 and finite, or null", clip)
        check(limit is None or 0 < limit <= 1, "trainer.limit_train_batches", "in (0, 1] or null", limit)


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
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    images: bool = True
    """Send the overlays (X-ray pixels) too."""
