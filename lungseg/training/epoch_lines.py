"""What a person sees while it trains: a bar on a terminal, one plain line an epoch everywhere, and the throughput."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

SHOWN = {
    "train/loss": "train loss",
    "val/loss": "val loss",
    "val/dice": "dice",
    "val/accuracy": "accuracy",
    "val/evidence_in_lungs": "evidence in lungs",
}


class EpochLines(Callback):
    """Prints one line an epoch with the headline numbers and images a second, on rank zero."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        """Images trained on and the seconds that took, validation and overlays not counted."""
        self._start = self._first = 0.0
        self._epoch_images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._first = self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._start, self._epoch_images = time.perf_counter(), 0

    def on_train_batch_end(  # type: ignore[no-untyped-def]
        self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        """Count, and time up to the last training batch."""
        self._epoch_images += len(batch["image"]) * trainer.world_size
        self._elapsed = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        self.images += self._epoch_images
        self.seconds += self._elapsed
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        parts = [f"{title} {float(values[name]):.4f}" for name, title in SHOWN.items() if name in values]
        rate = self._epoch_images / max(self._elapsed, 1e-9)
        minutes, seconds = divmod(int(time.perf_counter() - self._first), 60)
        line = f"epoch {trainer.current_epoch} ({trainer.current_epoch + 1}/{trainer.max_epochs})  {'  '.join(parts)}"
        say(trainer, f"{line}  {rate:.0f} images/s  {minutes}:{seconds:02d}")


class Bar(TQDMProgressBar):
    """The bar of a terminal, gone when its epoch is over: the line says what is worth keeping."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Without Lightning's version number, which means nothing here."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


def say(trainer: Trainer, line: str) -> None:
    """Print a line without breaking a progress bar that may be on the screen."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, TQDMProgressBar):
        bar.print(line)
    else:
        print(line, flush=True)


def progress_callbacks(lines: EpochLines) -> Iterable[Callback]:
    """The lines, and a bar where standard error is a terminal."""
    return [lines, Bar(leave=False)] if sys.stderr.isatty() else [lines]
