"""What can be configured: one frozen dataclass a section, with types, choices, ranges and units.

`lungseg.config.loading` reads files and `key=value` words into these; commands hand plain values on.
Every field is set by a shipped config or sweep, or is a place or a name that only the user can know.
"""

from dataclasses import dataclass, field

from lungseg.config.data import AugmentConfig, DataConfig, PhantomConfig
from lungseg.config.model import LossConfig, ModelConfig, OptimConfig
from lungseg.config.run import OverlayConfig, RunConfig, TrainerConfig, WandbConfig

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "OverlayConfig",
    "PhantomConfig",
    "RunConfig",
    "TrainerConfig",
    "WandbConfig",
]


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
