"""From a folder or a CSV manifest to the list of samples: the first stage of the flow.

The list is sorted by id, and it is the same on every machine for the same files, seed and choices.
"""

import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from lungseg.data import layouts
from lungseg.data.classes import label_samples, refuse_unknown
from lungseg.data.covidqu import find_covidqu, names_of_classes, read_covidqu
from lungseg.data.csv_labels import add_labels, read_published
from lungseg.data.findings import mark_findings
from lungseg.data.folders import Folders, Reading, lung_files
from lungseg.data.manifest import COLUMNS, read_manifest
from lungseg.data.sample import SPLITS, Sample
from lungseg.data.splits import FRACTIONS, assign_folds, assign_splits, carve_test
from lungseg.errors import DataError

_log = logging.getLogger(__name__)


def load_index(root: Path, **how: Any) -> list[Sample]:
    """List the samples of a data set as `load_data_set` does; `how` are its other arguments."""
    return load_data_set(root, **how).samples


def load_data_set(
    root: Path,
    *,
    test_fraction: float = 0.0,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 5,
    label_map: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Reading:
    """List the samples of a data set, sorted by id, and its classes; its layout is found by looking.

    Args:
        root: Folder in one of `LAYOUTS`, or a CSV manifest. An id is relative to it, so another choice of root (a tree
            or the folder above it) gives other ids and with them other carved splits.
        test_fraction: Share of Train carved out as Test where there is no Test, in [0, 1); met on average only, see
            `splits`. Data without any split is divided by `splits.FRACTIONS`, its share of Test replaced by this if
            not 0.
        seed: Decides what is carved or divided.
        fold: What is not Test is cut into `folds`; this one (from 0) is val, the others train. None keeps the splits.
        folds: How many folds.
        label_map: Class by what a folder or a manifest calls it; see `classes.label_samples`.
        classes: Their names in label order; None: as the data set has them.
        multi_label: An image may have several of them, or none; see `findings.mark_findings`.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data: how many, the first three files, what to do.
    """
    reading = read_index(root, label_map, classes, multi_label)
    if problems := [*reading.problems, *refuse_unknown(reading)]:
        raise DataError(f"{root}: {'; '.join(problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    if not reading.has_splits:  # then Test is divided off along with Val
        return reading._replace(samples=_divide(root, reading, test_fraction, seed, fold, folds))
    samples = reading.samples
    if test_fraction and any(sample.split == "test" for sample in samples):
        _log.warning("%s has a Test split: test_fraction=%r is ignored", root, test_fraction)
    else:
        samples = carve_test(samples, test_fraction, seed=seed)
    return reading._replace(samples=samples if fold is None else assign_folds(samples, fold, folds, seed=seed))


def read_index(
    root: Path,
    label_map: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Reading:
    """Read what is there, sorted by id; faults are listed, not raised, so samples may lack masks they should have.

    Of a class that is none of the `classes`, they have no label.
    """
    root, label_map = Path(root).expanduser(), label_map or {}
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        hint = "set data.root to the folder of a data set or a manifest"
        raise FileNotFoundError(f"{root} does not exist; {hint}") from None
    except OSError as error:
        hint = "check the path and your right to read it"
        raise DataError(f"{root}: cannot be reached: {error.strerror}; {hint}") from None
    if is_folder:
        reading = read_published(root, multi_label) or _read_folder(root, label_map, multi_label)
    elif root.suffix.casefold() == ".csv":
        reading = read_manifest(root, multi_label)
    else:
        raise DataError(f"{root} is a file; data.root must be a folder or a manifest whose name ends in .csv")
    if not (reading.samples or reading.problems):
        header = ",".join(COLUMNS)
        raise DataError(f"{root}: no images in it; a manifest names one a line, under the header {header}")
    reading = reading._replace(samples=sorted(reading.samples, key=attrgetter("id")))
    return (mark_findings if multi_label else label_samples)(reading, classes, label_map)


def fingerprint(samples: Iterable[Sample]) -> str:
    """Give 12 hex digits over ids, splits, labels and file sizes: equal on every machine, whatever the order."""
    lines = []
    for sample in samples:
        sizes = [os.stat(sample.image).st_size]  # noqa: PTH116 (this is called for every file)
        for mask in (sample.lung, sample.infection):
            sizes.append(sum(os.stat(file).st_size for file in lung_files(mask)) if mask else -1)  # noqa: PTH116
        known = sample.label if sample.findings is None else sample.findings
        lines.append(repr((sample.id, sample.split, known, sizes)))
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()[:12]


LAYOUTS = (
    "{Train,Val,Test}/<class>/{images,lung masks} of COVID-QU-Ex",
    "{COVID,...}/{images,masks} of COVID-19 Radiography",
    "images, or <class>/ with images",
)
"""What is looked for in a folder; the first that is there is read."""


def _read_folder(root: Path, label_map: Mapping[str, str], multi_label: bool) -> Reading:
    folders = Folders(root)
    names = names_of_classes(label_map)
    try:
        if trees := find_covidqu(folders, names):
            return read_covidqu(folders, names, trees)
        if reading := layouts.read_radiography(folders):
            return reading
        if reading := layouts.read_plain(folders):
            return add_labels(root, reading, multi_label)
    finally:
        folders.tell_unread()
    looked = "; or ".join(LAYOUTS)
    inside = [*(f"{name}/" for name in folders.dirs("")), *sorted(folders.files(""))]
    there = ", ".join(map(repr, inside[:6])) + (f" and {len(inside) - 6} more" if len(inside) > 6 else "")
    faults = "".join(f"; {problem}" for problem in folders.problems())
    raise DataError(f"{root}: no data set found; looked for {looked}; there is {there or 'nothing'}{faults}")


def _divide(root: Path, reading: Reading, test_share: float, seed: int, fold: int | None, folds: int) -> list[Sample]:
    """Split data that brings no split, and say so."""
    train, val, test = FRACTIONS
    if test_share:  # Val keeps its share
        train, test = train + test - test_share, test_share
    samples = assign_splits(reading.samples, (train, val, test), seed=seed, fold=fold, folds=folds)
    counts = Counter(sample.split for sample in samples)
    shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    masks = sum(sample.lung is not None for sample in samples)
    labels = sum(sample.label is not None or any(m >= 0 for m in sample.findings or ()) for sample in samples)
    line = "%s: %s without splits, divided by hash with seed %d into %s; %d of %d have a lung mask, %d a class"
    _log.warning(line, root, reading.layout, seed, shares, masks, len(samples), labels)
    return samples
