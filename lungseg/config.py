"""What can be configured: one frozen dataclass a section, with types, choices, ranges and units.

`lungseg.configuration` reads files and `key=value` words into these; commands hand plain values on.
Every field is set by a shipped config or sweep, or is a place or a name that only the user can know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Head = Literal["linear", "conv"]
Pooling = Literal["average", "lung"]


def _check(holds: bool, key: str, rule: str, value: object) -> None:
    """Raise a ValueError that names the full key, the rule and the value got."""
    if not holds:
        raise ValueError(f"{key}: must be {rule}, got {value!r}")


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
    monitor: str = "val/score"
    """Logged metric that picks the best checkpoint; `val/score` is the mean of dice and balanced accuracy."""
    mode: Literal["max", "min"] = "max"
    patience: int | None = None
    """Epochs without a better `monitor` before training stops; null never stops early."""
    tensorboard: bool = False
    """Also log to TensorBoard (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check(self.seed >= 0, "run.seed", ">= 0", self.seed)
        _check(self.patience is None or self.patience >= 1, "run.patience", ">= 1 epoch or null", self.patience)
        _check(
            self.name is None or self.name.strip(" ./") == self.name != "", "run.name", "a plain folder name", self.name
        )


@dataclass(frozen=True)
class PhantomConfig:
    """The synthetic set used when `data.root` is null."""

    train: int = 140
    """Images in Train, spread evenly over the classes."""
    val: int = 30
    test: int = 30
    size_px: int = 256
    """Side of the square images written, pixels."""
    seed: int = 0
    shortcut: Literal["none", "train", "all"] = "none"
    """Plant a class-coded marker outside the lungs: nowhere, in Train and Val only, or in all splits."""
    dir: str = "phantoms"
    """Folder that takes one sub-folder per distinct phantom set."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("train", "val", "test"):
            count = getattr(self, name)
            _check(count >= 3, f"data.phantom.{name}", ">= 3 (one a class)", count)
        _check(64 <= self.size_px <= 2048, "data.phantom.size_px", "in 64..2048 pixels", self.size_px)
        _check(self.seed >= 0, "data.phantom.seed", ">= 0", self.seed)


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they reach the network."""

    root: str | None = None
    """A data set (see README, "Your data") or a CSV manifest; null writes and uses the phantom set."""
    label_map: list[str] = field(default_factory=list)
    """`FOLDER=CLASS` for class folders that bear other names than the classes."""
    fold: int | None = None
    """Val is this one of `folds` parts of what is not Test; null keeps the splits that the data has."""
    folds: int = 5
    exclude_leaks: bool = False
    """Leave out training images that are copies, exact or near, of Val or Test images."""
    image_size: int = 256
    """Side of the square the network sees, pixels; any size works, multiples of 32 waste nothing."""
    batch_size: int = 32
    """Images per process and step."""
    workers: int | None = None
    """Loader processes per training process; null chooses from the cores there are."""
    balanced: bool = False
    """Draw each class equally often in training."""
    test_fraction: float = 0.0
    """Share of Train carved out as Test (seeded, stratified) when the data has no Test split; in [0, 0.5]."""
    keep_aspect: bool = True
    """Letterbox images that are not square; false stretches them."""
    cache: bool = True
    """Decode all images once into a file that later epochs, runs and processes share; 1.25 bytes a pixel."""
    cache_dir: str | None = None
    """Folder of these files; null takes `$LUNGSEG_CACHE`, else `~/.cache/lungseg`. Old ones may be deleted any time."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        _check(32 <= self.image_size <= 2048, "data.image_size", "in 32..2048 pixels", self.image_size)
        _check(self.batch_size >= 1, "data.batch_size", ">= 1", self.batch_size)
        _check(self.workers is None or self.workers >= 0, "data.workers", ">= 0 or null", self.workers)
        _check(self.fold is None or 0 <= self.fold < self.folds, "data.fold", f"in 0..{self.folds - 1}", self.fold)
        _check(all(m.count("=") == 1 for m in self.label_map), "data.label_map", "FOLDER=CLASS each", self.label_map)
        _check(0 <= self.test_fraction <= 0.5, "data.test_fraction", "in [0, 0.5]", self.test_fraction)


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; every strength 0 switches its transform off."""

    shift: float = 0.05
    """Largest shift as a share of the side, in [0, 0.5]."""
    scale: float = 0.1
    """Largest relative change of size, in [0, 0.5]."""
    rotate: float = 10.0
    """Largest rotation, degrees, in [0, 180]."""
    flip: float = 0.0
    """Probability of a left-right flip, in [0, 1]; off by default because it moves the heart."""
    brightness: float = 0.15
    """Largest change of brightness as a share of full scale, in [0, 1]."""
    contrast: float = 0.15
    """Largest relative change of contrast, in [0, 1]."""
    gamma: float = 0.2
    """Largest relative change of gamma, in [0, 0.9]."""
    noise: float = 0.02
    """Largest standard deviation of Gaussian noise as a share of full scale, in [0, 0.5]."""

    def __post_init__(self) -> None:
        """Check ranges."""
        limits = {"shift": 0.5, "scale": 0.5, "rotate": 180, "flip": 1, "brightness": 1, "contrast": 1}
        limits |= {"gamma": 0.9, "noise": 0.5}
        for name, high in limits.items():
            value = getattr(self, name)
            _check(0 <= value <= high, f"augment.{name}", f"in [0, {high}]", value)


@dataclass(frozen=True)
class ModelConfig:
    """The multi-output network."""

    architecture: str = "Unet"
    """An architecture of segmentation_models_pytorch, by class name."""
    encoder: str = "resnet34"
    """An encoder of segmentation_models_pytorch, `tu-` names of timm included."""
    encoder_depth: int | None = 5
    """Stages used: the deepest features are 2**depth times smaller than the image. Null: the architecture's own."""
    encoder_weights: str | None = None
    """null (random), `imagenet` (downloaded), `lite0` (extra `lite0`, no download), or a file with weights."""
    decoder_channels: list[int] | None = None
    """Channels of the decoder's stages, deepest first, one a stage; null: the architecture's own."""
    head: Head = "linear"
    """Classifier on the deepest features: one 1x1 convolution, or a CNN module before it (as in the paper)."""
    head_channels: int = 128
    """Channels of the `conv` head's module."""
    dropout: float = 0.2
    """Dropout before the 1x1 convolution, in [0, 1)."""
    pooling: Pooling = "average"
    """`average` over the map, or `lung`: weighted by the predicted lung, detached."""
    infection: bool = False
    """Predict the infection mask too; images without one do not enter its loss."""

    def __post_init__(self) -> None:
        """Check ranges."""
        depth, channels = self.encoder_depth, self.decoder_channels
        _check(depth is None or 3 <= depth <= 5, "model.encoder_depth", "3, 4, 5 or null", depth)
        _check(channels is None or all(c >= 1 for c in channels), "model.decoder_channels", "positive", channels)
        _check(self.head_channels >= 1, "model.head_channels", ">= 1", self.head_channels)
        _check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the named terms; a term of weight 0 is left out."""

    dice: float = 1.0
    bce: float = 1.0
    cross_entropy: float = 1.0
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights each class by the inverse of its share of the training labels."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("dice", "bce", "cross_entropy"):
            _check(getattr(self, name) >= 0, f"loss.{name}", ">= 0", getattr(self, name))
        _check(self.dice + self.bce + self.cross_entropy > 0, "loss", "above 0 in sum", 0)
        _check(0 <= self.label_smoothing < 1, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then a cosine to zero, stepped every optimiser step."""

    lr: float = 1e-3
    """Peak learning rate."""
    encoder_lr_factor: float = 1.0
    """The encoder's learning rate relative to `lr`; below 1 for pretrained weights."""
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, epochs; fractions are allowed."""
    frozen_encoder_epochs: int = 0
    """Epochs at the start in which the encoder's weights do not move."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check(0 < self.lr <= 1, "optim.lr", "in (0, 1]", self.lr)
        _check(0 < self.encoder_lr_factor <= 1, "optim.encoder_lr_factor", "in (0, 1]", self.encoder_lr_factor)
        _check(self.weight_decay >= 0, "optim.weight_decay", ">= 0", self.weight_decay)
        _check(self.warmup_epochs >= 0, "optim.warmup_epochs", ">= 0", self.warmup_epochs)
        _check(self.frozen_encoder_epochs >= 0, "optim.frozen_encoder_epochs", ">= 0", self.frozen_encoder_epochs)


@dataclass(frozen=True)
class TrainerConfig:
    """What Lightning's Trainer takes, under its own names."""

    max_epochs: int = 50
    accelerator: str = "auto"
    devices: Any = "auto"
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
        """Check ranges; names of accelerators, strategies and precisions are Lightning's to check."""
        _check(self.max_epochs >= 1, "trainer.max_epochs", ">= 1", self.max_epochs)
        _check(self.num_nodes >= 1, "trainer.num_nodes", ">= 1", self.num_nodes)
        clip, limit = self.gradient_clip_val, self.limit_train_batches
        _check(clip is None or clip > 0, "trainer.gradient_clip_val", "> 0 or null", clip)
        _check(limit is None or 0 < limit <= 1, "trainer.limit_train_batches", "in (0, 1] or null", limit)
        _check(
            self.accumulate_grad_batches >= 1, "trainer.accumulate_grad_batches", ">= 1", self.accumulate_grad_batches
        )
        _check(self.log_every_n_steps >= 1, "trainer.log_every_n_steps", ">= 1", self.log_every_n_steps)


@dataclass(frozen=True)
class CamConfig:
    """The overlays drawn while training."""

    samples: int = 6
    """Validation images followed through the run, spread over the classes."""
    every_n_epochs: int = 1
    max_sheets: int = 100
    """Most contact sheets a run writes; when epochs exceed it they are thinned evenly, the last is always kept."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("samples", "every_n_epochs", "max_sheets"):
            _check(getattr(self, name) >= 1, f"cam.{name}", ">= 1", getattr(self, name))


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
    cam: CamConfig = field(default_factory=CamConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
