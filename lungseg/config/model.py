"""Sections `model`, `loss` and `optim`: the network and how it learns."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from lungseg.errors import check

Head = Literal["linear", "conv"]
Pooling = Literal["average", "lung"]


@dataclass(frozen=True)
class ModelConfig:
    """The multi-output network."""

    architecture: str = "Unet"
    """An architecture of segmentation_models_pytorch, by class name, or `PlainUNet` with encoder `plain`."""
    encoder: str = "resnet34"
    """An encoder of segmentation_models_pytorch, `tu-` names of timm included."""
    encoder_depth: int | None = 5
    """Stages used: the deepest features are 2**depth times smaller than the image. Null: the architecture's own."""
    encoder_weights: str | None = None
    """null (random), `imagenet` (downloaded), `lite0` to `lite2` (extra of that name, no download), or a file."""
    decoder_channels: list[int] | None = None
    """Channels of the decoder's stages, deepest first, one a stage; null: the architecture's own."""
    head: Head = "linear"
    """Classifier on the deepest features: one 1x1 convolution, or a CNN module before it (as in the paper)."""
    head_channels: int = 128
    """Channels of the `conv` head's module, and of the merged features that `map_stride` asks for."""
    map_stride: int | None = None
    """Input pixels per class-map pixel: 4, 8 or 16 merges finer encoder stages into what the classifier reads; null
    takes the deepest features alone (32 at depth 5)."""
    dropout: float = 0.2
    """Dropout before the 1x1 convolution, and in the two deepest levels of `PlainUNet`, in [0, 1)."""
    drop_path: float = 0.0
    """Stochastic depth of the encoder, in [0, 1): residual blocks left out in training, the deepest at this rate,
    earlier ones less; `tu-` encoders that have it."""
    pooling: Pooling = "average"
    """`average` over the map, or `lung`: weighted by the predicted lung, detached."""
    infection: bool = False
    """Predict the infection mask too; images without one do not enter its loss."""
    lung: bool = True
    """Predict the lung mask; false: classes and their maps alone, without a decoder. So it is where no training image
    has a lung mask."""

    def __post_init__(self) -> None:
        depth, channels = self.encoder_depth, self.decoder_channels
        check(depth is None or 3 <= depth <= 5, "model.encoder_depth", "3, 4, 5 or null", depth)
        check(channels is None or all(c >= 1 for c in channels), "model.decoder_channels", "positive", channels)
        check(self.head_channels >= 1, "model.head_channels", ">= 1", self.head_channels)
        check(self.map_stride in (None, 4, 8, 16), "model.map_stride", "4, 8, 16 or null", self.map_stride)
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        check(0 <= self.drop_path < 1, "model.drop_path", "in [0, 1)", self.drop_path)
        check(self.lung or not self.infection, "model.infection", "false without model.lung", self.infection)
        check(self.lung or self.pooling == "average", "model.pooling", "average without model.lung", self.pooling)

    def without_paths(self) -> "ModelConfig":
        """The same network, not telling from which file of this machine its encoder's first weights came."""
        named = self.encoder_weights in (None, "imagenet", "lite0", "lite1", "lite2")
        return self if named else replace(self, encoder_weights=None)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the named terms; a term of weight 0 is left out."""

    dice: float = 1.0
    bce: float = 1.0
    cross_entropy: float = 1.0
    evidence_weight: float = 0.0
    """Of the penalty on the share of positive evidence, over all classes, outside the lungs."""
    localization_weight: float = 0.0
    """Of the term that puts the true class's evidence on the infection, where an image has an infection mask."""
    evidence_warmup_epochs: float = 2.0
    """Epochs over which both weights of class maps, `evidence_weight` and `localization_weight`, rise linearly from 0:
    maps and lungs must mean something first."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights each class by the inverse of its share of the training labels; with `data.multi_label`, images
    with a finding by how many there are without it for one with it."""
    class_costs: list[str] = field(default_factory=list)
    """What a mistake costs, by the true class, as `Normal=0.5`; 1 where not named. They multiply `class_weights`."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1)."""
    teacher: str | None = None
    """A run folder, a checkpoint or a .safetensors model whose class and mask probabilities are learned too, of every
    training image (distillation)."""
    teacher_weight: float = 1.0
    """Of the divergence from the teacher, 0 or more; at 0 the teacher is not even loaded."""
    contrastive_weight: float = 0.0
    """Of the term that draws the features of an image's views (`augment.views`) together, and those of others apart."""

    def __post_init__(self) -> None:
        weights = [name for name in vars(self) if name.endswith("_weight")]
        for name in ("dice", "bce", "cross_entropy", "evidence_warmup_epochs", *weights):
            check(0 <= getattr(self, name) < math.inf, f"loss.{name}", ">= 0 and finite", getattr(self, name))
        check(self.dice + self.bce + self.cross_entropy > 0, "loss", "above 0 in sum", 0)
        check(0 <= self.label_smoothing < 1, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)
        self.costs()  # checks each entry

    def without_paths(self) -> "LossConfig":
        """The same losses, not telling where on this machine the teacher lies."""
        return replace(self, teacher=None)

    def costs(self) -> dict[str, float]:
        """Map the classes named in `class_costs` to their cost."""
        try:
            costs = {name: float(number) for name, number in (entry.split("=") for entry in self.class_costs)}
        except ValueError:
            costs = {}
        right = len(costs) == len(self.class_costs) and all(0 < cost < math.inf for cost in costs.values())
        check(right, "loss.class_costs", "CLASS=NUMBER each, above 0, a class once", self.class_costs)
        return costs


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then half a cosine, stepped every optimiser step."""

    lr: float = 1e-3
    """Peak learning rate."""
    encoder_lr_factor: float = 1.0
    """The encoder's learning rate relative to `lr`; below 1 for pretrained weights."""
    final_lr_factor: float = 0.0
    """Where the cosine ends, relative to `lr`, in [0, 1). Above 0 it is for `average`, which needs steps to average."""
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, epochs; fractions are allowed."""
    frozen_encoder_epochs: int = 0
    """Epochs at the start in which the encoder's weights do not move; all of them train the rest, faster an epoch."""
    average: float | None = None
    """Decay a step, in (0, 1), of a moving average of the weights, which is then what is validated, drawn, kept and
    tested; null keeps the weights as they are."""

    def __post_init__(self) -> None:
        check(0 < self.lr <= 1, "optim.lr", "in (0, 1]", self.lr)
        check(0 < self.encoder_lr_factor <= 1, "optim.encoder_lr_factor", "in (0, 1]", self.encoder_lr_factor)
        check(0 <= self.final_lr_factor < 1, "optim.final_lr_factor", "in [0, 1)", self.final_lr_factor)
        for name in ("weight_decay", "warmup_epochs", "frozen_encoder_epochs"):
            check(0 <= getattr(self, name) < math.inf, f"optim.{name}", ">= 0 and finite", getattr(self, name))
        check(self.average is None or 0 < self.average < 1, "optim.average", "in (0, 1) or null", self.average)
