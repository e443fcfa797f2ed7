"""Which data a network is evaluated on: those of its training, wherever they lie now, or another data set.

Of another data set whatever it has is measured: it needs no Train split, and an image whose class the network does not
know counts as without a label.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lungseg.config import Config, DataConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.data.folders import PART_FOLDERS, SPLIT_FOLDERS, Reading
from lungseg.data.index import read_index
from lungseg.data.layouts import RADIOGRAPHY_CLASSES, class_labels
from lungseg.data.sample import CLASSES, Sample
from lungseg.errors import DataError, UserError
from lungseg.runs.progress import only_errors
from lungseg.runs.run import Run

Origin = Literal["own", "changed", "other"]
"""The data of the training; the same place, but other files or splits; another data set."""
_CHANGED = (
    "these are not the files, or not the splits, that the network was trained on: images measured here may be among "
    "those it learned from"
)
_OTHER = "another data set than the one trained on"


class EvaluationData(NamedTuple):
    """Data to evaluate on."""

    data: LungDataModule
    data_origin: Origin
    all_images: bool  # All images are measured, whatever their split; they stand as `test`.
    caveats: list[str]  # What a reader must know of them, a sentence each.


def find_data(run: Run, config: Config, split: str | None) -> EvaluationData:
    """Find the data that the config names, and whether the network was trained on them.

    Args:
        run: Where the network comes from.
        config: Of the run, with the words for `data` applied.
        split: As of `load_target`.

    Raises:
        UserError: All images are asked for, but these are the data of the training.
        DataError: The data are faulty.
    """
    trained = run.config().data
    root = config.data.root
    if root is not None:
        here = Path(root).expanduser()
        if trained.root is None or here.resolve() != Path(trained.root).expanduser().resolve():
            return _elsewhere(run, config, here, split)
    data = LungDataModule(config.data, config.augment, config.run.seed)
    data.prepare_data()
    data.find_samples()
    if split == "all":
        raise UserError("data.split: 'all' holds the images the network was trained on; take 'test' or 'val'")
    if root is None and trained.root is not None:
        return EvaluationData(data, "other", False, [_OTHER])
    stored = run.fingerprint
    own = _identity(config.data) == _identity(trained) if stored is None else data.fingerprint == stored
    return EvaluationData(data, "own" if own else "changed", False, [] if own else [_CHANGED])


def _elsewhere(run: Run, config: Config, root: Path, split: str | None) -> EvaluationData:
    """The run's own data moved, or another data set as it is."""
    section = config.data
    found = read_other_data_set(root, dict(pair.split("=") for pair in section.label_map))
    divided = not found.has_splits or section.fold is not None or section.test_fraction > 0
    moved = _divided_as_trained(run, config) if divided and split != "all" else None
    if moved is not None:
        return EvaluationData(moved, "own", False, [])
    whole = split == "all" or (split is None and not found.has_splits)
    samples = [replace(sample, split="test") for sample in found.samples] if whole else found.samples
    data = LungDataModule(section, config.augment, config.run.seed, samples)
    if data.fingerprint == run.fingerprint:
        return EvaluationData(data, "own", False, [])
    return EvaluationData(data, "other", whole, _caveats_of(found, section, whole))


def _divided_as_trained(run: Run, config: Config) -> LungDataModule | None:
    """The data as training would divide them; None if the outcome is not what the network was trained on."""
    data = LungDataModule(config.data, config.augment, config.run.seed)
    try:
        data.find_samples()
    except DataError:
        return None
    return data if data.fingerprint == run.fingerprint else None


def _caveats_of(found: OtherDataSet, section: DataConfig, whole: bool) -> list[str]:
    """What a reader must know of another data set."""
    count, caveats = len(found.samples), [_OTHER]
    if whole:
        caveats.append(f"all {count} images of it are measured, whatever split they are of")
    if found.unknown_images:
        names = ", ".join(map(repr, found.unknown_classes[:5])) + (", ..." if len(found.unknown_classes) > 5 else "")
        caveats.append(
            f"{found.unknown_images} of its {count} images are of classes that the network does not know ({names}): "
            "they count as without a label; data.label_map=[NAME=CLASS] gives them one"
        )
    if section.fold is not None or section.test_fraction:
        caveats.append("data.fold and data.test_fraction divide the data of the training; this set is taken as it is")
    return caveats


def _identity(section: DataConfig) -> list[object]:
    """What of a section decides which images there are, and in which split."""
    names = ("root", "label_map", "fold", "folds", "exclude_leaks", "test_fraction", "phantom")
    return [getattr(section, name) for name in names]


class OtherDataSet(NamedTuple):
    """What was found in a data set that is only evaluated."""

    samples: list[Sample]  # As the data set divides them; all of `test` where it does not.
    has_splits: bool
    unknown_classes: list[str]  # Names in lower case that stand for no class of the network.
    unknown_images: int  # Images of such a class: they have no label here.


def read_other_data_set(root: Path, label_map: Mapping[str, str]) -> OtherDataSet:
    """Read a data set in any layout that `index` knows.

    Args:
        root: Folder or manifest.
        label_map: Class by the name that the data set gives it.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data but names that are no class.
    """
    reading, unknown_names = _read(root, label_map), set[str]()
    unknown: list[bool] = [False] * (len(reading.samples) if reading else 0)
    if reading is None or _problems(reading):
        unknown_names = _names(root) - class_labels(label_map).keys()
        if reading is not None and reading.layout == "COVID-19 Radiography Database":
            unknown_names -= {name.casefold() for name in RADIOGRAPHY_CLASSES}
        reading, unknown = _read_with_unknown_names(root, label_map, unknown_names)
    if problems := _problems(reading):
        raise DataError(f"{root}: {'; '.join(problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    samples = [replace(s, label=None) if u else s for s, u in zip(reading.samples, unknown, strict=True)]
    if not reading.has_splits:
        samples = [replace(sample, split="test") for sample in samples]
    if root.is_dir():
        unknown_samples = [sample for sample, u in zip(samples, unknown, strict=True) if u]
        # The folder nearest to the image names its class, unless it names a part (`images`); others are no classes.
        folders = ([part.casefold() for part in PurePosixPath(sample.id).parts[-2::-1]] for sample in unknown_samples)
        unknown_names &= {next((name for name in names if name not in PART_FOLDERS), "") for names in folders}
    return OtherDataSet(samples, reading.has_splits, sorted(unknown_names), sum(unknown))


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


def _read_with_unknown_names(
    root: Path, label_map: Mapping[str, str], unknown_names: set[str]
) -> tuple[Reading, list[bool]]:
    """Read with the unknown names taken for a class, and again for another: whose label differs bears such a name."""
    with only_errors("lungseg.data"):  # the first reading has warned
        one, other = (read_index(root, {**label_map, **dict.fromkeys(unknown_names, name)}) for name in CLASSES[:2])
    labels = {sample.id: sample.label for sample in other.samples}
    return one, [sample.label != labels.get(sample.id) for sample in one.samples]


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
