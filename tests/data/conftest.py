"""What tests of the data share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def leaking(phantoms: Path, tmp_path: Path) -> Path:
    """The phantom set's lung tree with one Val image copied into Train, mask and all."""
    root = tmp_path / "set"
    shutil.copytree(next(phantoms.glob("Lung*")), root)
    image = sorted(root.rglob("Val/Normal/images/*.png"))[0]
    for kind in ("images", "lung masks"):
        source = image.parents[1] / kind / image.name
        shutil.copy(source, Path(str(source.parent).replace("Val", "Train")) / "Normal (999).png")
    return root
