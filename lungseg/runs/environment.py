"""What a result depends on besides its config: versions, revision, host, devices."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "lightning",
    "segmentation-models-pytorch",
    "timm",
    "torchmetrics",
    "albumentations",
    "numpy",
    "wandb",
)


def environment(data_fingerprint: str) -> dict[str, Any]:
    """What a run depends on besides its config: versions, revision, host, devices, data."""
    import torch

    from lungseg import __version__

    return {
        "lungseg": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git_revision": _git_revision(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "data_fingerprint": data_fingerprint,
    }


def _git_revision() -> str | None:
    """Revision of the source tree, `+changes` appended when it is not clean; None for an installed package."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    # Without any tag, `describe` gives the revision itself.
    command = ["git", "-C", str(source), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
