"""The unit of data: one chest X-ray with what is known of it. First stage of the flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
CLASSES = ("COVID-19", "Non-COVID", "Normal")
"""Class names in label order: label 0, 1, 2."""


@dataclass(frozen=True)
class Sample:
    """One image and its targets; what is not known is None."""

    id: str
    """Path relative to the root, with forward slashes: the same on every machine."""
    image: Path
    lung: Path | None
    infection: Path | None
    label: int | None
    split: Split
    group: str | None = None
    """Patient or study; images of one group never part between splits."""
    fit_masks: bool = False
    """Masks may have another size than the image, of the same aspect ratio: the data set is published so."""
