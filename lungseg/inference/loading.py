"""From a path to the backend that runs what lies there; torch is imported only where the model needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungseg.inference.backend import Backend
from lungseg.runs.run import Run


def load_backend(path: str | Path | None = None, device: str = "auto") -> Backend:
    """Load a model of any kind.

    Args:
        path: As of `Run.open`.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; ONNX models run on the CPU, by
            onnxruntime, or with `openvino` by OpenVINO.

    Raises:
        FileNotFoundError: No such model.
        UserError: Not a model of lungseg, damaged, or a device that is not there.
    """
    run = Run.open(path)
    if run.kind == "onnx":
        from lungseg.inference.onnx_backend import load_onnx

        return load_onnx(run.model, device)
    with without_wandb():
        from lungseg.inference.torch_backend import load_torch

    return load_torch(run, device)


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
