"""A moving average of the weights: what is validated, drawn, saved as best, and tested in place of the last step's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Exponential moving average of weights and BatchNorm statistics, updated every optimiser step.

    The decay rises as `min(decay, (1 + n) / (10 + n))` with the step n, so that the random start is soon forgotten.
    Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 1992.

    Args:
        decay: Share of the average that stays at each step, in (0, 1).
    """

    def __init__(self, decay: float):
        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            for mean, value in zip(averaged, current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value.to(mean.dtype), 1 - keep)
                else:
                    mean.copy_(value)

        super().__init__(multi_avg_fn=torch.no_grad()(average))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take both sets of weights up again when training is resumed; else the averaged ones, just loaded, stay."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
