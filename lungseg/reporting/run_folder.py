"""The run folder: making one without ever overwriting another, what describes it, and finding things in it again."""

from __future__ import annotations

import json
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


def is_rank_zero() -> bool:
    """Whether this process is the one that writes, as the launcher's environment tells before anything is set up."""
    names = ("RANK",) if os.environ.get("RANK") else ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "") in ("", "0") for name in names)


def run_folder(folder: Path, name: str | None, stem: str, resume: bool) -> Path:
    """Make the folder of a run, or find the one to resume; on rank zero, which tells the others.

    Args:
        folder: Takes the run folders.
        name: Folder name wanted; None counts up from `stem` (`demo`, `demo-2`, ...).
        stem: Name of the config.
        resume: The folder must exist already and hold `checkpoints/last.ckpt`.

    Raises:
        FileExistsError: `name` exists and `resume` is false.
        FileNotFoundError: Nothing to resume.
        ValueError: `resume` without a name.
    """
    if resume:
        if name is None:
            raise ValueError("run.resume: needs run.name, the run folder to continue, got null")
        last = folder / name / "checkpoints" / "last.ckpt"
        if not last.is_file():
            raise FileNotFoundError(
                f"run.resume: no checkpoint {str(last)!r} to continue from; set run.resume=false to start anew"
            )
        return folder / name
    return _make(folder / name) if name is not None else _count_up(folder, stem)


def check_free(folder: Path, name: str | None, resume: bool) -> None:
    """Raise FileExistsError if a new run would have to overwrite a folder."""
    if name is not None and not resume and is_rank_zero() and (folder / name).exists():
        raise FileExistsError(
            f"run.name: run folder {str(folder / name)!r} exists; "
            "choose another run.name, or continue it with run.resume=true"
        )


def _make(path: Path) -> Path:
    check_free(path.parent, path.name, resume=False)
    path.mkdir(parents=True)
    return path


def _count_up(folder: Path, stem: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()  # atomic: two processes never get the same folder
        except FileExistsError:
            number += 1
        else:
            return path


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


def read_fingerprint(folder: Path) -> str | None:
    """That of the data that a run was trained on, as far as its folder tells."""
    path = folder / "environment.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text()).get("data_fingerprint")
    return str(found) if found else None


def _git_revision() -> str | None:
    """Revision of the source tree, `+changes` appended when it is not clean; None for an installed package."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        revision = _git(source, "rev-parse", "HEAD")
        return revision + ("+changes" if _git(source, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(source: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(source), *words], check=True, capture_output=True, text=True).stdout.strip()
