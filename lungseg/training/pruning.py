"""Stops a training whose local sweep has better ones: the decision is made on rank zero and holds on all ranks."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lungseg.training.trial import JOURNAL, TRIAL, RunningTrial, hold_lifeline


class PruningCallback(Callback):
    """Reports the sweep's metric after every epoch and ends the training, as early stopping does, if told to.

    Optuna is imported on rank zero alone. The last epoch is reported and not judged: nothing is left to save.

    Args:
        journal: File of the sweep.
        number: Of the trial in it.
    """

    def __init__(self, journal: Path, number: int):
        self._journal, self._number = journal, number
        self._trial: RunningTrial | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask, after the epoch's validation, and tell all ranks."""
        stop = self._is_over(trainer) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _is_over(self, trainer: Trainer) -> bool:
        if self._trial is None:
            self._trial = RunningTrial(self._journal, self._number)
        if self._trial.metric not in trainer.callback_metrics:
            return False
        epochs = trainer.current_epoch + 1
        over = self._trial.report(float(trainer.callback_metrics[self._trial.metric]), epochs)
        if not over or epochs >= (trainer.max_epochs or 0):
            return False
        self._trial.stopped(epochs)
        return True


def trial_callbacks() -> list[Callback]:
    """The callback of a training that a local sweep started, which also ends with it; of any other none."""
    if JOURNAL not in os.environ:
        return []
    hold_lifeline()
    return [PruningCallback(Path(os.environ[JOURNAL]), int(os.environ[TRIAL]))]
