"""From a folder or a CSV manifest to the list of samples: the first stage of the flow. COVID-QU-Ex is read here.

The list is sorted by id, and it is the same on every machine for the same files, seed and choices.
"""

import hashlib
import logging
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path

from lungseg.data import layouts
from lungseg.data.folders import IMAGE_FOLDERS, LUNG_FOLDERS, SPLIT_FOLDERS, Folders, Reading, join, lung_files, phrase
from lungseg.data.layouts import Labels, read_classes, unknown_classes
from lungseg.data.sample import CLASSES, SPLITS, Sample
from lungseg.data.splits import FRACTIONS, assign_folds, assign_splits, carve_test
from lungseg.errors import DataError

_MASK_NAME = re.compile(r"(?:mask|seg)[-_ ]+(.+)|(.+?)[-_ ]+(?:mask|seg|segmentation)")
"""Of the mask of the image whose name stands in one of the groups."""
_log = logging.getLogger(__name__)


def load_index(
    root: Path,
    *,
    test_fraction: float = 0.0,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 5,
    label_map: Mapping[str, str] | None = None,
) -> list[Sample]:
    """List the samples of a data set, sorted by id, its layout found by looking.

    Args:
        root: Folder in one of `LAYOUTS`, or a CSV manifest. An id is relative to it, so another choice of root (a tree
            or the folder above it) gives other ids and with them other carved splits.
        test_fraction: Share of Train carved out as Test where there is no Test, in [0, 1); met on average only, see
            `splits`. Data without any split is divided by `splits.FRACTIONS`, its share of Test replaced by this if
            not 0.
        seed: Decides what is carved or divided.
        fold: What is not Test is cut into `folds`; this one (from 0) is val, the others train. None keeps the splits.
        folds: How many folds.
        label_map: Class by folder name, for folders that are not named as `CLASSES`.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: One line with every fault of the data: how many, the first three files, what to do.
    """
    reading = read_index(root, label_map)
    if reading.problems:
        raise DataError(f"{root}: {'; '.join(reading.problems)}; more: `python -m lungseg.audit {str(root)!r}`")
    if not reading.has_splits:  # then Test is divided off along with Val
        return _divide(root, reading, test_fraction, seed, fold, folds)
    samples = reading.samples
    if all(sample.lung is None for sample in samples):
        _log.warning("%s: %s without any lung mask: only the class can be learned from it", root, reading.layout)
    if test_fraction and any(sample.split == "test" for sample in samples):
        _log.warning("%s has a Test split: test_fraction=%r is ignored", root, test_fraction)
    else:
        samples = carve_test(samples, test_fraction, seed=seed)
    return samples if fold is None else assign_folds(samples, fold, folds, seed=seed)


def read_index(root: Path, label_map: Mapping[str, str] | None = None) -> Reading:
    """Read what is there, sorted by id; faults are listed, not raised, so samples may lack masks they should have."""
    root = Path(root).expanduser()
    labels = layouts.class_labels(label_map)
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        hint = "set data.root to the folder of a data set or a manifest"
        raise FileNotFoundError(f"{root} does not exist; {hint}") from None
    except OSError as error:
        hint = "check the path and your right to read it"
        raise DataError(f"{root}: cannot be reached: {error.strerror}; {hint}") from None
    if is_folder:
        reading = _read_folder(root, labels)
        reading.problems.extend(masks_among(reading.samples))
    elif root.suffix.casefold() == ".csv":
        reading = layouts.read_manifest(root, labels)
    else:
        raise DataError(f"{root} is a file; data.root must be a folder or a manifest whose name ends in .csv")
    if not (reading.samples or reading.problems):
        header = ",".join(layouts.COLUMNS)
        raise DataError(f"{root}: no images in it; a manifest names one a line, under the header {header}")
    return reading._replace(samples=sorted(reading.samples, key=attrgetter("id")))


def masks_among(samples: Sequence[Sample]) -> list[str]:
    """What to say of images whose names tell that they are masks of others beside them: they would get a class."""
    places = [os.path.split(sample.image) for sample in samples]
    stems = {(folder, os.path.splitext(name)[0].casefold()) for folder, name in places}  # noqa: PTH122 (every file)
    found = []
    for sample, (folder, name) in zip(samples, places, strict=True):
        marked = _MASK_NAME.fullmatch(os.path.splitext(name)[0].casefold())  # noqa: PTH122
        if marked and (folder, marked[1] or marked[2]) in stems:
            found.append(sample.id)
    return phrase("masks among the images, by their names", found, "put them into a folder 'masks', or take them out")


def fingerprint(samples: Iterable[Sample]) -> str:
    """Give 12 hex digits over ids, splits, labels and file sizes: equal on every machine, whatever the order."""
    lines = []
    for sample in samples:
        sizes = [os.stat(sample.image).st_size]  # noqa: PTH116 (this is called for every file)
        for mask in (sample.lung, sample.infection):
            sizes.append(sum(os.stat(file).st_size for file in lung_files(mask)) if mask else -1)  # noqa: PTH116
        lines.append(repr((sample.id, sample.split, sample.label, sizes)))
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def find_covidqu(folders: Folders, labels: Labels) -> list[str]:
    """Find the trees of COVID-QU-Ex: `{Train,Val,Test}/<class>/{images,lung masks}`, at most two folders down."""
    trees: list[str] = []
    level = [""]
    for _ in range(3):  # the archive puts each tree into two folders of one name
        trees += (here := [folder for folder in level if _is_tree(folders, labels, folder)])
        level = [join(folder, name) for folder in level if folder not in here for name in folders.dirs(folder)]
    return trees


def read_covidqu(folders: Folders, labels: Labels, found: Sequence[str]) -> Reading:
    """Read its trees and merge them: no image counts twice, and each must have its lung mask."""
    trees: dict[str, dict[str, list[Sample]]] = {"lung": {}, "infection": {}}  # Samples by folder, by kind of tree.
    no_class, no_split, problems = list[str](), list[str](), list[str]()
    for tree in found:
        of_tree: list[Sample] = []
        for name in folders.dirs(tree):
            split = SPLIT_FOLDERS.get(name.casefold())
            of_classes, unknown = read_classes(folders, labels, join(tree, name), split or "train")
            if split:
                of_tree += of_classes
                no_class += unknown
            elif of_classes:
                no_split.append(join(tree, name))
        kind = "infection" if any(sample.infection for sample in of_tree) else "lung"
        trees[kind][tree] = of_tree
    for kind, same in trees.items():
        if len(same) > 1:
            problems += phrase(f"more than one {kind} tree", same, "point data.root at one, or keep one of each kind")
    merged = _merge(folders, *(list(chain(*of_kind.values())) for of_kind in trees.values()))
    bare = [sample.id for sample in merged if sample.lung is None]
    inside = [(tree, name) for tree in chain(*trees.values()) for name in folders.dirs(tree)]
    trains = [join(tree, name) for tree, name in inside if SPLIT_FOLDERS.get(name.casefold()) == "train"]
    there = {sample.label for sample in merged if sample.split == "train"}
    lacking = [join(trains[0], name) for label, name in enumerate(CLASSES) if trains and label not in there]
    add = "add it to 'lung masks' under the image's name, or remove the image"
    problems += [
        *phrase("folder whose name is no split", no_split, "call it Train, Val or Test, or move it away"),
        *unknown_classes(no_class),
        *phrase("image without a lung mask", bare, add),
        *phrase("class without an image in Train", lacking, "add its images there, in a folder 'images'"),
        *folders.problems(),
    ]
    return Reading("COVID-QU-Ex", merged, problems, True)


LAYOUTS = (
    "{Train,Val,Test}/<class>/{images,lung masks} of COVID-QU-Ex",
    "{COVID,...}/{images,masks} of COVID-19 Radiography",
    "images, or <class>/ with images",
)
"""What is looked for in a folder; the first that is there is read."""


def _read_folder(root: Path, labels: Labels) -> Reading:
    folders = Folders(root)
    try:
        if trees := find_covidqu(folders, labels):
            return read_covidqu(folders, labels, trees)
        if reading := layouts.read_radiography(folders, labels) or layouts.read_plain(folders, labels):
            return reading
    finally:
        folders.tell_unread()
    looked = "; or ".join(LAYOUTS)
    names = [*(f"{name}/" for name in folders.dirs("")), *sorted(folders.files(""))]
    there = ", ".join(map(repr, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    faults = "".join(f"; {problem}" for problem in folders.problems())
    raise DataError(f"{root}: no data set found; looked for {looked}; there is {there or 'nothing'}{faults}")


def _is_tree(folders: Folders, labels: Labels, folder: str) -> bool:
    """Whether some class folder in some split folder of a folder has images and lung masks."""
    splits = [join(folder, name) for name in folders.dirs(folder) if name.casefold() in SPLIT_FOLDERS]
    classes = [join(split, name) for split in splits for name in folders.dirs(split) if name.casefold() in labels]
    return any(folders.child(one, IMAGE_FOLDERS) and folders.child(one, LUNG_FOLDERS) for one in classes)


def _merge(folders: Folders, lung: list[Sample], infection: list[Sample]) -> list[Sample]:
    """Add the infection tree to the lung tree, which decides the split; an image is known by its class and name."""
    merged = list(lung)
    named: dict[tuple[int | None, str], list[int]] = defaultdict(list)
    for at, sample in enumerate(lung):
        named[sample.label, sample.image.stem.casefold()].append(at)
    unclear: list[str] = []
    for extra in infection:
        matches = named.get((extra.label, extra.image.stem.casefold()))
        if matches is None:
            merged.append(extra)
            continue
        # Names repeat between splits now and then; a single match may lie in another split than here.
        same_split = [at for at in matches if merged[at].split == extra.split] if len(matches) > 1 else matches
        free = [at for at in same_split if merged[at].infection is None]
        if len(free) == 1:
            image = merged[free[0]]
            merged[free[0]] = replace(image, lung=image.lung or extra.lung, infection=extra.infection)
        else:
            unclear.append(extra.id)
    folders.warn("infection image that fits no single image of the lung tree", unclear, "left out; see the audit")
    return merged


def _divide(root: Path, reading: Reading, test_share: float, seed: int, fold: int | None, folds: int) -> list[Sample]:
    """Split data that brings no split, and say so."""
    train, val, test = FRACTIONS
    if test_share:  # Val keeps its share
        train, test = train + test - test_share, test_share
    samples = assign_splits(reading.samples, (train, val, test), seed=seed, fold=fold, folds=folds)
    counts = Counter(sample.split for sample in samples)
    shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    masks = sum(sample.lung is not None for sample in samples)
    labels = sum(sample.label is not None for sample in samples)
    line = "%s: %s without splits, divided by hash with seed %d into %s; %d of %d have a lung mask, %d a class"
    _log.warning(line, root, reading.layout, seed, shares, masks, len(samples), labels)
    return samples
