"""Two small callbacks of every training: what dropout draws is seeded, and a loss that is no number ends the run."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lungseg.errors import UserError


class SeedEachEpoch(Callback):
    """Seeds what dropout draws by (seed, epoch, rank), so that a resumed run draws what the unbroken one would have."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(  # type: ignore[no-untyped-def]
        self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx: int
    ) -> None:
        """Seed torch's generators before the first batch; Lightning skips the epoch's own hook after a resume."""
        if batch_idx == 0:
            torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class StopOnNonFinite(Callback):
    """Ends a run whose training loss is no longer a number, with one line that says so."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the epoch's mean loss, the same on every process."""
        loss = float(trainer.callback_metrics.get("train/loss", 0.0))
        if not math.isfinite(loss):
            raise UserError(
                f"train/loss is {loss} in epoch {trainer.current_epoch}; lower optim.lr "
                f"lengthen optim.warmup_epochs, or use trainer.precision=32-true"
            )
