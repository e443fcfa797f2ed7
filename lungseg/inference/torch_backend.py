"""The backend of PyTorch: networks of runs and of .safetensors files, on any device."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg import __version__
from lungseg.configuration import load_config
from lungseg.evaluation.tuning import read_choice
from lungseg.inference.backend import ModelInfo, Outputs, Source, find_model
from lungseg.inference.model_file import read_model_file
from lungseg.models.checkpoint import load_network, read_checkpoint
from lungseg.models.network import LungNetwork


class TorchBackend:
    """A `Backend` around a network; threads may share it, for a pass changes nothing in it.

    Args:
        network: Put into evaluation mode and moved to the device.
        info: What is known of it.
        device: As of `load_backend`.
    """

    def __init__(self, network: LungNetwork, info: ModelInfo, device: str = "auto"):
        self.device = find_device(device)
        self.network = network.eval().to(self.device)
        self.info = info

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network on images (B, S, S) uint8."""
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)[:, None]
            output = self.network(pixels.float().div_(255))
            mask_probs = output.mask_logits[:, 0].sigmoid()
            class_probs = (output.class_logits / self.info.temperature).softmax(dim=1)
            found = (mask_probs, class_probs, output.class_maps)
            return Outputs(*(tensor.float().cpu().numpy() for tensor in found))


def load_torch(source: Source, device: str = "auto") -> TorchBackend:
    """Load the network of a run or of a .safetensors file.

    Raises:
        FileNotFoundError: A checkpoint without the config.yaml of its run.
        ValueError: Not a model of lungseg, damaged, or a device that is not there.
    """
    find_device(device)
    network, info = read_run(source.path) if source.kind == "run" else read_model_file(source.path)
    return TorchBackend(network, info, device)


def read_run(checkpoint: Path) -> tuple[LungNetwork, ModelInfo]:
    """The network of a checkpoint in its run folder, and what the run knows of it.

    The temperature is what `python -m lungseg.evaluate` chose on Val for this checkpoint, 1 where it has not;
    `description["calibration"]` says which.
    """
    folder = checkpoint.resolve().parent.parent
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder / 'config.yaml'}: not there; keep the checkpoint in its run folder")
    network, classes = load_network(checkpoint)
    config = load_config(folder / "config.yaml", [])
    content = read_checkpoint(checkpoint)
    plain, environment = content["lungseg"], _environment(folder)
    choice, where = read_choice(folder, classes, checkpoint, sensitivity=0.95)
    fitted = choice is not None and math.isfinite(choice.temperature)
    description = {
        "model": plain["model"],
        "training": {
            **{name: plain[name] for name in ("loss", "optim") if name in plain},
            "augment": dataclasses.asdict(config.augment),
            "epoch": content.get("epoch"),
            "data_fingerprint": environment.get("data_fingerprint"),
        },
        "calibration": f"temperature chosen on {where}" if fitted else f"none: {where}",
        "licence": "not stated",
    }
    info = ModelInfo(
        tuple(classes),
        config.data.image_size,
        config.data.keep_aspect,
        network.stride,
        choice.temperature if choice is not None and fitted else 1.0,
        str(environment.get("lungseg", __version__)),
        description,
    )
    return network, info


def take_weights(network: LungNetwork, source: Path) -> None:
    """Give a network all weights of another of the same architecture, its normalisation of the input too.

    Raises:
        ValueError: Not a model of lungseg, or of another architecture; one line that names the first difference.
        FileNotFoundError: Nothing there.
    """
    other = load_torch(find_model(source), "cpu").network
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip().rstrip(".")
        raise ValueError(f"run.init: {source} is of another architecture than the config's: {first}") from error


def find_device(name: str) -> torch.device:
    """The device of a name: `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: Not a device, or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: no such device {name!r}; choose auto, cpu, cuda, cuda:0, ... or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        kinds = ", ".join(f"{count} of {kind}" for kind, count in there.items() if count)
        raise ValueError(f"device: {name!r} is not there; this machine has {kinds}")
    return device


def _environment(folder: Path) -> dict[str, object]:
    path = folder / "environment.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}
