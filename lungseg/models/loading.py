"""The network of a run or of a .safetensors file, with what is known of it."""

from __future__ import annotations

import dataclasses
import math

from lungseg import __version__
from lungseg.models.checkpoint import load_network, read_checkpoint
from lungseg.models.model_file import read_model_file
from lungseg.models.network import LungNetwork
from lungseg.runs.calibration import read_calibration
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run


def load_model(run: Run) -> tuple[LungNetwork, ModelInfo]:
    """Load a network, in evaluation mode on the CPU, float32; nothing is downloaded.

    The temperature is what `python -m lungseg.evaluate` chose on Val for this checkpoint, 1 where it has not;
    `description["calibration"]` says which.

    Args:
        run: Of kind `checkpoint` or `safetensors`.

    Raises:
        FileNotFoundError: A checkpoint without the config.yaml of its run.
        UserError: Not a model of lungseg, or damaged.
    """
    if run.kind == "safetensors":
        return read_model_file(run.model)
    config, environment = run.config(), run.environment()
    network, classes = load_network(run.model)
    content = read_checkpoint(run.model)
    plain = content["lungseg"]
    calibration, where = read_calibration(run, classes, sensitivity=0.95)
    temperature = calibration.temperature if calibration is not None else math.nan
    fitted = math.isfinite(temperature)
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
        temperature if fitted else 1.0,
        str(environment.get("lungseg", __version__)),
        description,
    )
    return network, info
