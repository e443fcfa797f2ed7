"""The unit of data: one chest X-ray with what is known of it; and how to choose a few of many."""

from __future__ import annotations

from collections.abc import Sequence
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


def spread_over_classes(samples: Sequence[Sample], count: int) -> list[int]:
    """Positions of `count` samples, class after class in turn, evenly spaced within each class; always the same."""
    by_class: dict[int | None, list[int]] = {}
    for index, sample in enumerate(samples):
        by_class.setdefault(sample.label, []).append(index)
    queues = [by_class[label] for label in sorted(by_class, key=lambda label: (label is None, label))]
    share = -(-count // len(queues)) if queues else 0
    picks = [[queue[i * len(queue) // share] for i in range(min(share, len(queue)))] for queue in queues]
    spare = [[index for index in queue if index not in pick] for queue, pick in zip(queues, picks, strict=True)]
    turns = [*_in_turn(picks), *_in_turn(spare)][:count]
    return sorted(turns, key=lambda index: (samples[index].label is None, samples[index].label, index))


def _in_turn(queues: list[list[int]]) -> list[int]:
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
