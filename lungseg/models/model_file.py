"""A network as one file of tensors: safetensors, with all that rebuilds it as JSON in its header; no code in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo, info_from_json, info_to_json
from lungseg.runs.run import HUB_CONFIG
from lungseg.runs.whole_files import write_whole

KEY = "lungseg"
"""Of the header's metadata."""


def write_model_file(path: Path, network: LungNetwork, info: ModelInfo, half: bool = False) -> None:
    """Write a network and what is known of it.

    Args:
        path: Ends in .safetensors.
        network: In any mode, on any device.
        info: Its description must hold `model`, the config section as plain values.
        half: Store weights of two dimensions and more as float16, half the size; biases, statistics of BatchNorm and
            the normalisation of the input stay float32. It is computed in float32 in any case.
    """
    tensors = {name: _stored(tensor, half) for name, tensor in network.state_dict().items()}
    write_whole(path, save(tensors, metadata={KEY: info_to_json(info), "format": "pt"}))


def read_model_file(path: Path) -> tuple[LungNetwork, ModelInfo]:
    """Read a network, in evaluation mode on the CPU, float32; nothing is downloaded.

    A file without our header is taken with the config.json beside it (Hugging Face layout).

    Raises:
        ValueError: One line naming the file: damaged, not of lungseg, or of a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY) or _beside(path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({type(error).__name__}); is it whole?") from error
    try:
        info = info_from_json(text)
        config = ModelConfig(**info.description["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a model of this version of lungseg: {error}") from error
    return _build(path, config, info, tensors), info


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    narrow = half and tensor.is_floating_point() and tensor.ndim >= 2
    return tensor.detach().cpu().to(torch.float16 if narrow else tensor.dtype).contiguous()


def _beside(path: Path) -> str:
    config = path.with_name(HUB_CONFIG)
    if not config.is_file():
        raise UserError(f"{path}: tensors, but not of lungseg: its header has no {KEY!r}, and there is no {HUB_CONFIG}")
    return config.read_text(encoding="utf-8")


def _build(path: Path, config: ModelConfig, info: ModelInfo, tensors: dict[str, Any]) -> LungNetwork:
    network = LungNetwork(dataclasses.replace(config, encoder_weights=None), len(info.classes))
    try:
        network.load_state_dict(tensors)  # copies, so float16 becomes float32 here
    except RuntimeError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    return network.eval()
