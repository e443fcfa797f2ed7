"""What runs a network, whatever made it: the protocol, and the one place that tells the kinds of model files apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BOXED = Path(__file__).parents[1] / "models" / "boxed" / "lungseg.safetensors"
"""The model that comes with the package."""
HUB_CONFIG, HUB_WEIGHTS = "config.json", "model.safetensors"
"""A folder in the Hugging Face layout."""

Kind = Literal["onnx", "tensors", "run"]


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model besides its weights."""

    classes: tuple[str, ...]
    """Names, in the order of every output over classes."""
    image_size: int
    """Side of the square the network sees, pixels."""
    keep_aspect: bool
    """Images that are not square are letterboxed; false: stretched."""
    map_stride: int
    """Input pixels per class-map pixel."""
    temperature: float = 1.0
    """That the backend divides class logits by before the softmax."""
    version: str = ""
    """Of lungseg, when the model was written."""
    description: dict[str, Any] = field(default_factory=dict)
    """Plain values for a reader: `licence`, `training`, `model` (the config section), `source`, ..."""


class Outputs(NamedTuple):
    """What one pass gives for B images of side S and C classes."""

    mask_probs: NDArray[np.float32]
    """(B, S, S) float32 in [0, 1]: probability of lung."""
    class_probs: NDArray[np.float32]
    """(B, C) float32, rows summing to 1, calibrated by the temperature."""
    class_maps: NDArray[np.float32]
    """(B, C, h, w) float32 raw maps, any sign; each pixel covers `map_stride` x `map_stride` of the input, of which
    h * map_stride - S rows and as many columns are padding below and to the right."""


class Backend(Protocol):
    """A loaded model. May be called from several threads at once."""

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network on images (B, S, S) uint8, S = `info.image_size`, B >= 1, as `preprocess` makes them."""


class Source(NamedTuple):
    """A model that was asked for, found."""

    kind: Kind
    path: Path
    """An .onnx file, a .safetensors file, or the .ckpt of a run."""


def load_backend(path: str | Path | None = None, device: str = "auto") -> Backend:
    """Load a model of any kind.

    Args:
        path: As of `find_model`.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; ONNX models run on the CPU, by
            onnxruntime, or with `openvino` by OpenVINO.

    Raises:
        FileNotFoundError: No such model.
        ValueError: Not a model of lungseg, damaged, or a device that is not there.
    """
    source = find_model(path)
    if source.kind == "onnx":
        from lungseg.inference.onnx_backend import load_onnx

        return load_onnx(source.path, device)
    with without_wandb():
        from lungseg.inference.torch_backend import load_torch

    return load_torch(source, device)


def find_model(path: str | Path | None = None) -> Source:
    """Tell what a path to a model is.

    Args:
        path: A run folder, a .ckpt file in one, a .safetensors file, a folder in the Hugging Face layout, or an .onnx
            file; None takes the model that comes with the package.

    Raises:
        FileNotFoundError: Nothing there, or nothing in the folder that is a model.
        ValueError: A file of another kind.
    """
    if path is None:
        if not BOXED.is_file():
            raise FileNotFoundError("this installation comes without a model; give one with --checkpoint RUN")
        return Source("tensors", BOXED)
    path = Path(path).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {str(path)!r}; give a run folder, .ckpt, .safetensors or .onnx file")
    kinds: dict[str, Kind] = {".onnx": "onnx", ".safetensors": "tensors", ".ckpt": "run"}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path}: not a model; give a run folder, .ckpt, .safetensors or .onnx file")
    return Source(kinds[path.suffix.lower()], path)


@contextmanager
def without_wandb() -> Iterator[None]:
    """Let timm, which imports wandb where it is installed, do without: half a second, and nothing here logs."""
    if "wandb" in sys.modules:
        yield
        return
    sys.modules["wandb"] = None  # type: ignore[assignment]  # makes `import wandb` an ImportError
    try:
        yield
    finally:
        del sys.modules["wandb"]


def _in_folder(folder: Path) -> Source:
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / "checkpoints" / name).is_file():
            return Source("run", folder / "checkpoints" / name)
    if (folder / HUB_WEIGHTS).is_file():
        return Source("tensors", folder / HUB_WEIGHTS)
    raise FileNotFoundError(
        f"no model in {str(folder)!r}; it has neither checkpoints/best.ckpt (a run folder) nor {HUB_WEIGHTS}"
    )


def info_from_json(text: str) -> ModelInfo:
    """What is stored with a model under the key `lungseg`, as a JSON object.

    Raises:
        ValueError: Not of a format that this version knows; the caller names the file.
    """
    stored = json.loads(text)
    if stored.get("format") != 1:
        raise ValueError(f"its format is {stored.get('format')!r}, this version reads 1; install a newer lungseg")
    names = ("classes", "image_size", "keep_aspect", "map_stride", "temperature", "version")
    known = {name: stored[name] for name in names}
    known["classes"] = tuple(stored["classes"])
    return ModelInfo(**known, description={k: v for k, v in stored.items() if k not in (*names, "format")})


def info_to_json(info: ModelInfo) -> str:
    """The inverse of `info_from_json`."""
    fields = {
        "classes": list(info.classes),
        "image_size": info.image_size,
        "keep_aspect": info.keep_aspect,
        "map_stride": info.map_stride,
        "temperature": info.temperature,
        "version": info.version,
    }
    return json.dumps({"format": 1, **fields, **info.description})
