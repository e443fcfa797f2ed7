"""The unit of data: one chest X-ray with what is known of it; and how to choose a few of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image and its targets; what is not known is None."""

    id: str  # Path relative to the root, with forward slashes: the same on every machine.
    image: Path
    lung: Path | None
    infection: Path | None
    label: int | None
    split: Split
    group: str | None = None  # Patient or study; images of one group never part between splits.
    fit_masks: bool = False  # Masks are published in another size than their image, of the same aspect ratio.
    class_name: str | None = None
    """Of its class; as the data set has it before `classes.label_samples`, and where that finds no such class. Of
    several findings their names, `|` between them; None where there is none."""
    findings: tuple[int, ...] | None = None
    """Where an image may have several classes, of each: 1 there, 0 not there, -1 unknown; `label` is None then."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Indices of the classes that it is known to have."""
        if self.findings is not None:
            return tuple(place for place, mark in enumerate(self.findings) if mark == 1)
        return () if self.label is None else (self.label,)

    @property
    def stratum(self) -> int | None:
        """What samples are spread over and drawn evenly by: the label, or of several findings the first there is."""
        return next(iter(self.labels), None)


def spread_over_classes(samples: Sequence[Sample], count: int) -> list[int]:
    """Positions of `count` samples, class after class in turn, evenly spaced within each class; always the same."""
    by_class: dict[int | None, list[int]] = {}
    for index, sample in enumerate(samples):
        by_class.setdefault(sample.stratum, []).append(index)
    queues = [by_class[label] for label in sorted(by_class, key=lambda label: (label is None, label))]
    # What a class cannot give, because it has too few samples, is filled up from those that others have to spare.
    share = -(-count // len(queues)) if queues else 0
    picks = [[queue[i * len(queue) // share] for i in range(min(share, len(queue)))] for queue in queues]
    spare = [[index for index in queue if index not in pick] for queue, pick in zip(queues, picks, strict=True)]
    turns = (index for turn in (*zip_longest(*picks), *zip_longest(*spare)) for index in turn if index is not None)
    chosen = list(islice(turns, count))
    return sorted(chosen, key=lambda index: (samples[index].stratum is None, samples[index].stratum, index))
