"""The callbacks of every training: seeds, a check of the loss, averaged weights, checkpoints, what a person sees."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lungseg.config import Config
from lungseg.errors import NonFiniteLossError
from lungseg.runs.run import Run
from lungseg.training.overlays import OverlayCallback
from lungseg.training.trackers.alerts import AlertCallback

_SHOWN = {
    "train/loss": "train loss",
    "val/loss": "val loss",
    "val/dice": "dice",
    "val/accuracy": "accuracy",
    "val/auroc": "AUROC",
    "val/evidence_in_lungs": "evidence in lungs",
}


class SeedEachEpoch(Callback):
    """Seeds what dropout draws by (seed, epoch, rank), so that a resumed run draws what the unbroken one would have."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed torch's generators before the first batch; Lightning skips the epoch's own hook after a resume."""
        if batch_idx == 0:
            # By rank too: the same dropout on all ranks would be drawn for different images.
            torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class StopOnNonFinite(Callback):
    """Ends a run whose training loss is no longer a number, with one line that says so."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the epoch's mean loss, which is the same on every rank: rank zero alone says so."""
        # Once an epoch, as reading a loss in every step would make the GPU wait.
        loss = float(trainer.callback_metrics.get("train/loss", 0.0))
        if not math.isfinite(loss) and trainer.is_global_zero:
            raise NonFiniteLossError(
                f"train/loss is {loss} in epoch {trainer.current_epoch}; lower optim.lr, lengthen "
                "optim.warmup_epochs, or use trainer.precision=32-true"
            )


class AveragedWeights(WeightAveraging):
    """Exponential moving average of weights and BatchNorm statistics, updated every optimiser step.

    It is what is validated, drawn, saved as best, and tested in place of the last step's weights. The decay rises as
    `min(decay, (1 + n) / (10 + n))` with the step n, so that the random start is soon forgotten.
    Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 1992.

    Args:
        decay: Share of the average that stays at each step, in (0, 1).
    """

    def __init__(self, decay: float):
        self._updates = 0  # Before this step's; torch's own count may lie on a GPU, which would have to be waited for.

        def average(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
            if averaged[0].is_floating_point():
                keep = min(decay, (1 + self._updates) / (10 + self._updates))
                get_ema_multi_avg_fn(keep)(averaged, current, 0)  # type: ignore[no-untyped-call]
                return
            for mean, value in zip(averaged, current, strict=True):  # BatchNorm's counts of batches
                mean.copy_(value)

        super().__init__(multi_avg_fn=torch.no_grad()(average))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the average where the weights will be, which Lightning moves there only after this, but not its count."""
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None and stage == "fit":
            self._average_model.to(trainer.strategy.root_device)
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, after each optimiser step."""
        self._updates = trainer.global_step - 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take both sets of weights up again when training is resumed; else the averaged ones, just loaded, stay."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class MovableCheckpoint(ModelCheckpoint):
    """Saves names of files without their folder: they tell nobody where the run lay, and it may be moved."""

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps, with names for paths."""
        return _renamed(super().state_dict(), lambda path: Path(path).name) | {"dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Find the files in the folder where they are now."""
        folder = str(self.dirpath)
        state = _renamed(state_dict, lambda path: str(Path(folder) / Path(path).name))
        super().load_state_dict(state | {"dirpath": folder})


def _renamed(state: dict[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """The state of a checkpoint callback with every file, where there is one, under another name."""
    paths = {name: path and rename(path) for name, path in state.items() if name.endswith("_path")}
    best = {rename(path): score for path, score in state["best_k_models"].items()}
    return state | paths | {"best_k_models": best}


class EpochLines(Callback):
    """Prints one line an epoch with the headline numbers and images a second, on rank zero; knows where time went.

    All clocks start with the first training batch: what comes before it (the sanity check, the start of the loader's
    workers, the loading of that batch) is none of the training's speed.

    Args:
        started: Of `time.perf_counter`, when this process began with the run.
        earlier_s: Seconds that the run took before it was resumed, up to the checkpoint that it goes on from.
    """

    def __init__(self, started: float, earlier_s: float = 0.0):
        self._started, self._earlier_s = started, earlier_s
        self.images = 0
        self.seconds = 0.0
        """Images trained on and the seconds that took, validation and overlays not counted."""
        self.speed: dict[str, float] = {}
        """At the end of the fit: images a second in training, and shares of all its time, in [0, 1].

        `share_waiting` is that in which the training loop of this rank stood still for its loader, seen from the host:
        a GPU may still have had work to do then, so it is the most that a faster loader would gain.
        """
        self._validating_s = 0.0  # Overlays not counted.
        self._start = self._first = 0.0
        self._validation = (0.0, 0.0)  # When it started, and the seconds of drawing until then.
        self._epoch_images = 0

    @property
    def total_s(self) -> float:
        """Seconds of the whole run so far, those before it was resumed included."""
        return self._earlier_s + time.perf_counter() - self._started

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._start, self._epoch_images = time.perf_counter(), 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clocks at the first batch."""
        if not self._first:
            self._first = self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation."""
        self._validation = time.perf_counter(), _drawing_s(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time of a validation, and take it out of that of the epoch within which it may lie."""
        started, drawn_s = self._validation
        spent_s = time.perf_counter() - started
        if not trainer.sanity_checking:
            self._start += spent_s
            self._validating_s += spent_s - (_drawing_s(trainer) - drawn_s)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up where the time went, if anything was trained."""
        if not self.seconds:
            return
        loader: Any = trainer.train_dataloader  # a TimedLoader, which Lightning drops before the test
        total_s = time.perf_counter() - self._first
        self.speed = {
            "images_per_second": self.images / self.seconds,
            "share_waiting": loader.waited_s / total_s,
            "share_validating": self._validating_s / total_s,
            "share_drawing": _drawing_s(trainer) / total_s,
        }

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images, and take the time: validation comes before the epoch's end."""
        # The other ranks have batches of the same size: no collective call is needed to count theirs.
        self._epoch_images += len(batch["image"]) * trainer.world_size
        self._elapsed = time.perf_counter() - self._start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the epoch's training scores, which Lightning logs only when the checkpoint is written, and the time."""
        scores = trainer.callback_metrics.items()
        checkpoint["fit_seconds"] = self.total_s
        checkpoint["train_scores"] = {
            name: float(value) for name, value in scores if name.startswith("train/") and name != "train/step_loss"
        }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        self.images += self._epoch_images
        self.seconds += self._elapsed
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        scores = [f"{title} {float(values[name]):.4f}" for name, title in _SHOWN.items() if name in values]
        rate = self._epoch_images / max(self._elapsed, 1e-9)
        minutes, seconds = divmod(int(time.perf_counter() - self._first), 60)
        epoch = f"epoch {trainer.current_epoch} ({trainer.current_epoch + 1}/{trainer.max_epochs})"
        line = f"{epoch}  {'  '.join(scores)}  {rate:.0f} images/s  {minutes}:{seconds:02d}"
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.print(line)  # above the bar, which a plain print would break
        else:
            print(line, flush=True)


def _drawing_s(trainer: Trainer) -> float:
    """Seconds that overlays have taken so far."""
    # Lightning does not say what it calls `callbacks`.
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return sum(callback.drawing_s for callback in callbacks if isinstance(callback, OverlayCallback))


class _Bar(TQDMProgressBar):
    """The bar of a terminal, gone when its epoch is over: the line says what is worth keeping."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The loss as it was last logged; what a bar gets in every step, Lightning reads from the device each time."""
        loss = trainer.logged_metrics.get("train/step_loss")
        return {} if loss is None else {"loss": float(loss)}


def progress_callbacks(lines: EpochLines) -> list[Callback]:
    """The lines, and a bar where standard error is a terminal."""
    return [lines, _Bar(leave=False)] if sys.stderr.isatty() else [lines]


def run_callbacks(config: Config, run: Run, lines: EpochLines, monitor: str, mode: str) -> list[Callback]:
    """In the order in which Lightning calls them, checkpoints being put last by Lightning itself."""
    callbacks: list[Callback] = [
        SeedEachEpoch(config.run.seed),
        StopOnNonFinite(),
        OverlayCallback(config.overlays, run.overlays),
        *progress_callbacks(lines),  # after the overlays: an epoch whose line is printed is complete
        _checkpoint(run.best_checkpoint, monitor, mode),
        _checkpoint(run.last_checkpoint),  # its own callback: `save_last` of the other waits for a new best one
    ]
    if config.wandb.alerts:
        callbacks.append(AlertCallback())
    if config.optim.average is not None:
        # After the overlays, which draw the averaged weights: at the end of validation it takes them out again.
        callbacks.append(AveragedWeights(config.optim.average))
    if config.run.patience is not None:
        callbacks.append(EarlyStopping(monitor, patience=config.run.patience, mode=mode))
    return callbacks


def _checkpoint(path: Path, monitor: str | None = None, mode: str = "min") -> ModelCheckpoint:
    """Keep one file: of the best epoch by `monitor`, or, without it, of the last one."""
    return MovableCheckpoint(
        path.parent,
        filename=path.stem,
        monitor=monitor,
        mode=mode,
        auto_insert_metric_name=False,
        enable_version_counter=False,  # overwrite: a second file `best-v1.ckpt` would be found by nobody
    )
