"""Another data set than the one trained on: whatever it has is measured, without a Train split, with unknown classes.

What its classes are called where they are none of the network's stays a note: such images count as without a label.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lungseg.data.folders import PART_FOLDERS, SPLIT_FOLDERS, Reading
from lungseg.data.index import read_index
from lungseg.data.layouts import RADIOGRAPHY_CLASSES, class_labels
from lungseg.data.sample import CLASSES, Sample
from lungseg.errors import DataError


class Foreign(NamedTuple):
    """What was found in a data set that is only evaluated."""

    samples: list[Sample]
    """As the data set divides them; all of `test` where it does not."""
    has_splits: bool
    unknown_classes: list[str]
    """Names in lower case that stand for no class of the network."""
    unknown_images: int
    """Images of such a class: they have no label here."""


def read_foreign(root: Path, label_map: Mapping[str, str]) -> Foreign:
    """Read a data set in any layout that `index` knows.

    Args:
        root: Folder or manifest.
        label_map: Class by the name that the data set gives it.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data but names that are no class.
    """
    reading, strange = _read(root, label_map), set[str]()
    unknown: list[bool] = [False] * (len(reading.samples) if reading else 0)
    if reading is None or _problems(reading):
        strange = _names(root) - class_labels(label_map).keys() - _radiography(reading)
        reading, unknown = _read_with_strangers(root, label_map, strange)
    if problems := _problems(reading):
        raise DataError(f"{root}: {'; '.join(problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    samples = [replace(s, label=None) if u else s for s, u in zip(reading.samples, unknown, strict=True)]
    if not reading.has_splits:
        samples = [replace(sample, split="test") for sample in samples]
    if root.is_dir():
        strange &= {_class_folder(sample) for sample, u in zip(samples, unknown, strict=True) if u}
    return Foreign(samples, reading.has_splits, sorted(strange), sum(unknown))


def _read(root: Path, label_map: Mapping[str, str]) -> Reading | None:
    """The data set by the names known; None where nothing of a layout is recognised in a folder."""
    try:
        return read_index(root, label_map)
    except DataError:
        if root.is_dir():
            return None
        raise


def _problems(reading: Reading) -> list[str]:
    """Its faults; a Train split that lacks a class is none where nothing is trained."""
    return [problem for problem in reading.problems if not problem.startswith("class without an image in Train")]


def _read_with_strangers(root: Path, label_map: Mapping[str, str], strange: set[str]) -> tuple[Reading, list[bool]]:
    """Read with the strange names taken for a class, and again for another: whose label differs bears such a name."""
    with _quiet():  # the first reading has warned
        one, other = (read_index(root, {**label_map, **dict.fromkeys(strange, name)}) for name in CLASSES[:2])
    labels = {sample.id: sample.label for sample in other.samples}
    return one, [sample.label != labels.get(sample.id) for sample in one.samples]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the reading of data warns of."""
    logger = logging.getLogger("lungseg.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _radiography(reading: Reading | None) -> set[str]:
    """Names in lower case that the COVID-19 Radiography Database gives classes that are known."""
    is_it = reading is not None and reading.layout == "COVID-19 Radiography Database"
    return {name.casefold() for name in RADIOGRAPHY_CLASSES} if is_it else set()


def _names(root: Path) -> set[str]:
    """Every name, in lower case, that may be meant as a class: of folders, or in a manifest's column `label`."""
    if root.is_dir():
        names = {name.casefold() for _, folders, _ in os.walk(root) for name in folders}
        return names - SPLIT_FOLDERS.keys() - PART_FOLDERS
    lines = root.read_text(encoding="utf-8-sig").splitlines()
    comma = ";" if ";" in lines[0] and "," not in lines[0] else ","
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=comma)
    columns = [name.strip().casefold() for name in next(rows)]
    if "label" not in columns:
        return set()
    at = columns.index("label")
    numbers = {str(label) for label in range(len(CLASSES))}
    return {row[at].strip().casefold() for row in rows if len(row) > at} - {"", *numbers}


def _class_folder(sample: Sample) -> str:
    """Name in lower case of the folder that stands for the class of an image in a folder."""
    names = [part.casefold() for part in PurePosixPath(sample.id).parts[:-1]]
    return next((name for name in reversed(names) if name not in PART_FOLDERS), "")
