"""Which data a network is evaluated on: those of its training, wherever they lie now, or another data set.

Of another data set whatever it has is measured: it needs no Train split, and an image whose class the network does not
know counts as without a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from lungseg.config import Config, DataConfig
from lungseg.data.covidqu import LACKING
from lungseg.data.datamodule import LungDataModule
from lungseg.data.index import read_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError, UserError
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
    labels = dict(pair.split("=") for pair in section.label_map)
    found = read_other_data_set(root, labels, section.classes, section.multi_label)
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
    if found.unknown_classes:
        names = ", ".join(map(repr, found.unknown_classes[:5])) + (", ..." if len(found.unknown_classes) > 5 else "")
        unknown = (
            f"it names findings that the network does not know ({names}): nothing is measured of them"
            if section.multi_label
            else f"{found.unknown_images} of its {count} images are of classes that the network does not know "
            f"({names}): they count as without a label; data.label_map=[NAME=CLASS] gives them one"
        )
        caveats.append(unknown)
    if section.fold is not None or section.test_fraction:
        caveats.append("data.fold and data.test_fraction divide the data of the training; this set is taken as it is")
    return caveats


def _identity(section: DataConfig) -> list[object]:
    """What of a section decides which images there are, and in which split."""
    names = ("root", "label_map", "fold", "folds", "split_seed", "exclude_leaks", "test_fraction", "phantom")
    return [getattr(section, name) for name in names]


class OtherDataSet(NamedTuple):
    """What was found in a data set that is only evaluated."""

    samples: list[Sample]  # As the data set divides them; all of `test` where it does not.
    has_splits: bool
    unknown_classes: list[str]  # What it calls classes that are none of the network's.
    unknown_images: int  # Images of such a class: they have no label here.


def read_other_data_set(
    root: Path, label_map: Mapping[str, str], classes: Sequence[str] | None = None, multi_label: bool = False
) -> OtherDataSet:
    """Read a data set, a folder or a manifest, in any layout that `index` knows, with the classes of the network.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data but names that are no class.
    """
    reading = read_index(root, label_map, classes, multi_label)
    # A Train split that lacks a class is no fault where nothing is trained.
    if problems := [problem for problem in reading.problems if not problem.startswith(LACKING)]:
        raise DataError(f"{root}: {'; '.join(problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    samples = reading.samples
    if not reading.has_splits:
        samples = [replace(sample, split="test") for sample in samples]
    without = sum(s.label is None and s.findings is None and s.class_name is not None for s in samples)
    return OtherDataSet(samples, reading.has_splits, list(reading.unknown), without)
