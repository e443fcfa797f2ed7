"""Checkpoints of runs, as plain tensors and plain values: checking and loading them; no code in them is ever run."""

import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungseg import __version__
from lungseg.data.classes import unknown_infections
from lungseg.errors import UserError
from lungseg.models.model_file import build_networks, read_model_file, read_sections
from lungseg.models.network import LungNetwork
from lungseg.runs.calibration import Calibration, read_calibration
from lungseg.runs.model_info import ModelInfo, check_classes
from lungseg.runs.run import Run


def load_model(run: Run) -> tuple[LungNetwork, ModelInfo]:
    """Load a network of kind `checkpoint` or `safetensors`, in evaluation mode on the CPU, float32, without download.

    The temperature is what `python -m lungseg.evaluate` chose on Val for this checkpoint, 1 where it has not;
    `description["calibration"]` says which.

    Raises:
        FileNotFoundError: A checkpoint without the config.yaml of its run.
        UserError: Not a model of lungseg, or damaged.
    """
    if run.kind == "safetensors":
        return read_model_file(run.model)
    config, environment = run.config(), run.environment()
    content = read_checkpoint(run.model)
    network, classes = network_of(run.model, content)
    plain = content["lungseg"]
    calibration, where = read_calibration(run, classes)
    temperature = calibration.temperature if calibration is not None else math.nan
    fitted = math.isfinite(temperature)
    description = {
        **{name: plain[name] for name in ("model", "members") if name in plain},
        "training": {
            **{name: plain[name] for name in ("loss", "optim") if name in plain},
            "augment": dataclasses.asdict(config.augment),
            "infection_unknown": [classes[i] for i in unknown_infections(config.data.infection_unknown, classes)],
            "epoch": content.get("epoch"),
            "data_fingerprint": environment.get("data_fingerprint"),
        },
        "calibration": f"temperature chosen on {where}" if fitted else f"none: {where}",
        "licence": "not stated",
    }
    if calibration is not None and calibration.least is not None and fitted:
        least = calibration.least.tolist()
        description["class_sets"] = {"coverage": calibration.coverage, "least_probability": least}
    return network, ModelInfo(
        tuple(classes),
        config.data.image_size,
        config.data.keep_aspect,
        network.stride,
        temperature if fitted else 1.0,
        str(environment.get("lungseg", __version__)),
        description,
        network.multi_label,
        _thresholds(calibration, len(classes), temperature if fitted else 1.0) if network.multi_label else (),
    )


def _thresholds(calibration: Calibration | None, classes: int, temperature: float) -> tuple[float, ...]:
    """From which calibrated probability each finding is called: what Val chose, one half where it could not."""
    chosen = [0.5] * classes if calibration is None else np.nan_to_num(calibration.thresholds, nan=0.5).tolist()
    # They were chosen among probabilities before the temperature.
    odds = [max(threshold, 1e-9) / max(1 - threshold, 1e-9) for threshold in chosen]
    return tuple(float(ratio / (1 + ratio)) for ratio in (each ** (1 / temperature) for each in odds))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a lungseg checkpoint, tensors on the CPU; a UserError if it is not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); is the file whole?") from error
    if not isinstance(content, dict) or not isinstance(content.get("lungseg"), dict):
        raise UserError(f"{path}: a checkpoint, but not of lungseg; give one written by python -m lungseg.fit")
    if not isinstance(content.get("epoch"), int) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: a checkpoint without its epoch or its weights; is it one of python -m lungseg.fit?")
    return content


def load_network(path: Path) -> tuple[LungNetwork, list[str]]:
    """The network of a checkpoint, in evaluation mode on the CPU, and its class names; nothing is downloaded."""
    return network_of(path, read_checkpoint(path))


def network_of(path: Path, content: dict[str, Any]) -> tuple[LungNetwork, list[str]]:
    """The same from the content that `read_checkpoint` gave; the path is for messages."""
    if head := content["lungseg"].get("head"):
        way = "load_from_checkpoint of its own module reads it"
        raise UserError(f"{path}: its classifier is {head!r}, which this package does not know; {way}")
    try:
        sections, classes = read_sections(content["lungseg"]), content["lungseg"].get("classes")
        check_classes(classes)
    except UserError as error:
        raise UserError(f"{path}: not a model of this version of lungseg: {error}") from error
    # The training module holds more than its network, such as the weights of classes.
    tensors = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
    several = content["lungseg"].get("multi_label", False) is True  # which older checkpoints do not say
    return build_networks(path, sections, len(classes), tensors, several), list(classes)
