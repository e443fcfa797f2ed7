"""The learning rate of each optimiser step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lungseg.config import OptimConfig


def lr_schedule(optimizer: Optimizer, optim: OptimConfig, steps: int, steps_per_epoch: float) -> LambdaLR:
    """Warm-up and cosine for both groups of an optimiser, the encoder's first; a frozen encoder has rate 0."""
    warmup, frozen = optim.warmup_epochs * steps_per_epoch, optim.frozen_encoder_epochs * steps_per_epoch

    def factor(step: int) -> float:
        return lr_factor(step, steps, warmup, optim.final_lr_factor)

    def encoder_factor(step: int) -> float:
        return 0.0 if step < frozen else factor(step)

    return LambdaLR(optimizer, [encoder_factor, factor])


def lr_factor(step: int, steps: int, warmup: float, final: float = 0.0) -> float:
    """Linear warm-up to 1 over `warmup` steps, then half a cosine to `final` at `steps`.

    Loshchilov, Hutter, "SGDR", ICLR 2017, without restarts.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
