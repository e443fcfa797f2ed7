"""What a run says of the samples it follows: a row a sample and epoch, for captions, a file and trackers."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lungseg.cam.lung import Evidence
from lungseg.runs.whole_files import plain_cell, to_csv, write_text

Facts = Mapping[str, str | float | None]
"""By the names in `COLUMNS`, None of what is not known; `said` is what is predicted with its probability."""
COLUMNS = ("epoch", "sample", "true", "predicted", "probability", "dice", "evidence_in_lungs", "peak_in_lungs")
_WORDS = ("true", "predicted")


def facts_of(
    number: int, batch: dict[str, Any], classes: Sequence[str], probs: Tensor, dice: float | None, evidence: Evidence
) -> dict[str, Any]:
    """Of one sample of a batch, which is named by a number from 1 on, never by its file.

    Args:
        number: Its place in the batch.
        batch: As the network takes it.
        classes: By name; none of masks alone.
        probs: (C,) of the sample.
        dice: None if no lung is predicted.
        evidence: Of the batch.
    """
    facts: dict[str, Any] = dict.fromkeys(COLUMNS[1:]) | {"sample": number + 1}
    if classes:
        facts["probability"] = float(probs.amax())
        facts["true"], facts["predicted"], facts["said"] = _names(number, batch, classes, probs)
    if batch["has_lung"][number]:
        facts["dice"] = dice
    if classes and dice is not None:
        facts["evidence_in_lungs"] = float(evidence.evidence_in_lungs[number])
        facts["peak_in_lungs"] = float(evidence.peak_in_lungs[number])
    return facts


def caption_of(facts: Facts) -> str:
    """The same in one line."""
    parts = [f"#{facts['sample']}"]
    if facts["predicted"] is not None:
        parts += [f"true {facts['true']}", f"predicted {facts['said']}"]
    if facts["dice"] is not None:
        parts.append(f"dice {facts['dice']:.3f}")
    share = facts["evidence_in_lungs"]
    if isinstance(share, float) and math.isnan(share):
        parts.append("no positive evidence")
    elif share is not None:
        parts += [f"evidence in lungs before crop {share:.0%}", f"peak {'in' if facts['peak_in_lungs'] else 'out'}side"]
    return "  ".join(parts)


def add_epoch(path: Path, epoch: int, facts: Sequence[Facts]) -> list[list[Any]]:
    """Write an epoch's rows after those of the epochs before it, and give all: text, numbers, and None in `COLUMNS`.

    What a training that is resumed had said of this epoch and later ones goes, and all where it follows another number
    of samples now, for these are others.
    """
    rows = [row for row in _read(path) if row[0] < epoch]
    rows = rows if {row[1] for row in rows} == set(range(1, len(facts) + 1)) else []
    rows += [[epoch, *(row[name] for name in COLUMNS[1:])] for row in facts]
    write_text(path, to_csv([COLUMNS, *rows]))
    return _read(path)


def _read(path: Path) -> list[list[Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [[_value(name, row[name]) for name in COLUMNS] for row in csv.DictReader(file)]


def _value(name: str, cell: str) -> Any:
    if not cell:
        return None
    return plain_cell(cell) if name in _WORDS else int(cell) if name in COLUMNS[:2] else float(cell)


def _names(number: int, batch: dict[str, Any], classes: Sequence[str], probs: Tensor) -> tuple[str, str, str]:
    """The true class, the likeliest, and that with its probability; of findings those there, and those called."""
    ranked = [(f"{classes[index]} ({probs[index]:.2f})", classes[index]) for index in probs.argsort(descending=True)]
    if "findings" not in batch:
        true = classes[int(batch["label"][number])] if batch["has_label"][number] else "unknown"
        return true, ranked[0][1], ranked[0][0]
    marks, calls = batch["findings"][number].tolist(), int((probs >= 0.5).sum())
    there = [name for name, mark in zip(classes, marks, strict=True) if mark == 1]
    true = ", ".join(there) or ("none" if 0 in marks else "unknown")
    called = ", ".join(name for _, name in ranked[:calls]) or "none"
    return true, called, ", ".join(said for said, _ in ranked[:calls]) or f"none, most likely {ranked[0][0]}"
