"""Checkpoints as plain tensors and plain values: checking and loading them; no code in them is ever run."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import torch

from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.network import LungNetwork


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a lungseg checkpoint, tensors on the CPU.

    Raises:
        ValueError: Not a checkpoint, or not of lungseg.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); is the file whole?") from error
    if not isinstance(content, dict) or "lungseg" not in content:
        raise UserError(f"{path}: a checkpoint, but not of lungseg; give one written by python -m lungseg.fit")
    return content


def load_network(path: Path) -> tuple[LungNetwork, list[str]]:
    """The network of a checkpoint, in evaluation mode, and its class names; nothing is downloaded.

    Raises:
        ValueError: The tensors do not fit the network that the checkpoint describes.
    """
    content = read_checkpoint(path)
    plain = content["lungseg"]
    model = dataclasses.replace(ModelConfig(**plain["model"]), encoder_weights=None)
    network = LungNetwork(model, len(plain["classes"]))
    tensors = content["state_dict"].items()
    try:
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors if k.startswith("network.")})
    except RuntimeError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    return network.eval(), list(plain["classes"])


def check_same_model(path: Path, model: ModelConfig) -> None:
    """Raise a ValueError naming the first keys in which a checkpoint's network differs from the config's."""
    stored = read_checkpoint(path)["lungseg"]["model"]
    wanted = dataclasses.asdict(model)
    differing = [key for key in wanted if key != "encoder_weights" and stored.get(key) != wanted[key]]
    if differing:
        parts = ", ".join(
            f"model.{key} is {stored.get(key)!r} there and {wanted[key]!r} in the config" for key in differing[:3]
        )
        raise UserError(f"{path}: checkpoint of another architecture: {parts}; use its config, or start a new run")
