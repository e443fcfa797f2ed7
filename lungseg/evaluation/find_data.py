"""Which data a network is evaluated on: those of its training, wherever they lie now, or another data set.

Of another data set whatever it has is measured: it needs no Train split, and an image whose class the network does not
know counts as without a label.
"""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lungseg.config import Config, DataConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.data.folders import PART_FOLDERS, SPLIT_FOLDERS, Reading
from lungseg.data.index import read_index
from lungseg.data.layouts import RADIOGRAPHY_CLASSES, class_labels, read_rows
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
    """Find the data that the config of a run, changed by words, names, and whether the network was trained on them.

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
    """Read a data set, a folder or a manifest, in any layout that `index` knows; `label_map` gives a class by its name.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data but names that are no class.
    """
    reading, names = None, set[str]()
    name_of: Callable[[str], str | None] = _folder_of
    try:
        reading = read_index(root, label_map)
    except DataError:
        if not root.is_dir():  # in a folder a layout may be recognised once its names count as classes
            raise
    if reading is None or _problems(reading):
        if root.is_dir():
            names = {name.casefold() for _, folders, _ in os.walk(root) for name in folders}
            names -= SPLIT_FOLDERS.keys() | PART_FOLDERS
        else:
            rows = read_rows(root, defaultdict(list))
            given = {posixpath.normpath(row["image"].replace("\\", "/")): row["label"].casefold() for _, row in rows}
            no_names = {"", *map(str, range(len(CLASSES)))}  # nothing, or the number of a class, which may end in .0
            names = {name for name in given.values() if name.removesuffix(".0") not in no_names}
            name_of = given.__getitem__
        names -= class_labels(label_map).keys()
        if reading is not None and reading.layout == "COVID-19 Radiography Database":
            names -= {name.casefold() for name in RADIOGRAPHY_CLASSES}
        # All other names are read as some class, so that the layout is recognised; their images then lose the label.
        with only_errors("lungseg.data"):  # the first reading has warned
            reading = read_index(root, {**label_map, **dict.fromkeys(names, CLASSES[0])})
    if problems := _problems(reading):
        raise DataError(f"{root}: {'; '.join(problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    unknown = {sample.id: name for sample in reading.samples if (name := name_of(sample.id)) in names}
    samples = [replace(sample, label=None) if sample.id in unknown else sample for sample in reading.samples]
    if not reading.has_splits:
        samples = [replace(sample, split="test") for sample in samples]
    return OtherDataSet(samples, reading.has_splits, sorted(set(unknown.values())), len(unknown))


def _problems(reading: Reading) -> list[str]:
    """Its faults; a Train split that lacks a class is none where nothing is trained."""
    return [problem for problem in reading.problems if not problem.startswith("class without an image in Train")]


def _folder_of(sample_id: str) -> str | None:
    """Name in lower case of the folder nearest to an image that does not name a part (`images`): that of its class."""
    folders = (part.casefold() for part in PurePosixPath(sample_id).parts[-2::-1])
    return next((name for name in folders if name not in PART_FOLDERS), None)
