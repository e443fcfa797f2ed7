"""Which data a network is evaluated on: those of its training, wherever they lie now, or another data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from lungseg.config import Config, DataConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import DataError, UserError
from lungseg.evaluation.foreign import Foreign, read_foreign
from lungseg.runs.run import Run

Origin = Literal["own", "changed", "other"]
"""The data of the training; the same place, but other files or splits; another data set."""
_CHANGED = (
    "these are not the files, or not the splits, that the network was trained on: images measured here may be among "
    "those it learned from"
)
_OTHER = "another data set than the one trained on"


class Found(NamedTuple):
    """Data to evaluate on."""

    data: LungDataModule
    data_origin: Origin
    all_images: bool
    """All images are measured, whatever their split; they stand as `test`."""
    caveats: list[str]
    """What a reader must know of them, a sentence each."""


def find_data(run: Run, config: Config, split: str | None) -> Found:
    """Find the data that the config names, and whether the network was trained on them.

    Args:
        run: Where the network comes from.
        config: Of the run, with the words for `data` applied.
        split: As of `load_target`.

    Raises:
        ValueError: All images are asked for, but these are the data of the training.
        DataError: The data are faulty.
    """
    trained = run.config().data
    root = config.data.root
    if root is not None and (trained.root is None or not _same(root, trained.root)):
        return _elsewhere(run, config, Path(root).expanduser(), split)
    data = LungDataModule(config.data, config.augment, config.run.seed)
    data.prepare_data()
    data.find_samples()
    if split == "all":
        raise UserError("data.split: 'all' holds the images the network was trained on; take 'test' or 'val'")
    if root is None and trained.root is not None:
        return Found(data, "other", False, [_OTHER])
    stored = run.fingerprint
    own = _identity(config.data) == _identity(trained) if stored is None else data.fingerprint == stored
    return Found(data, "own" if own else "changed", False, [] if own else [_CHANGED])


def _elsewhere(run: Run, config: Config, root: Path, split: str | None) -> Found:
    """The run's own data moved, or another data set as it is."""
    section = config.data
    found = read_foreign(root, dict(pair.split("=") for pair in section.label_map))
    divided = not found.has_splits or section.fold is not None or section.test_fraction > 0
    moved = _divided_as_trained(run, config) if divided and split != "all" else None
    if moved is not None:
        return Found(moved, "own", False, [])
    whole = split == "all" or (split is None and not found.has_splits)
    samples = [replace(sample, split="test") for sample in found.samples] if whole else found.samples
    data = LungDataModule(section, config.augment, config.run.seed, samples)
    if data.fingerprint == run.fingerprint:
        return Found(data, "own", False, [])
    return Found(data, "other", whole, _told(found, section, whole))


def _divided_as_trained(run: Run, config: Config) -> LungDataModule | None:
    """The data as training would divide them; None if the outcome is not what the network was trained on."""
    data = LungDataModule(config.data, config.augment, config.run.seed)
    try:
        data.find_samples()
    except DataError:
        return None
    return data if data.fingerprint == run.fingerprint else None


def _told(found: Foreign, section: DataConfig, whole: bool) -> list[str]:
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


def _same(one: str, other: str) -> bool:
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def _identity(section: DataConfig) -> DataConfig:
    """What of a section decides which images there are, and in which split."""
    return replace(
        DataConfig(),
        **{
            name: getattr(section, name)
            for name in ("root", "label_map", "fold", "folds", "exclude_leaks", "test_fraction", "phantom")
        },
    )
