"""Folders of images and masks as the layouts see them: listed once, names compared in lower case, faults remembered."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from lungseg.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from lungseg.data.sample import Sample, Split

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_FOLDERS = ("images", "image", "img", "imgs", "cxr_png")
LUNG_FOLDERS = ("lung masks", "lung_masks", "masks", "mask", "labels")
INFECTION_FOLDERS = ("infection masks", "infection_masks")
MASK_FOLDERS = {*LUNG_FOLDERS, *INFECTION_FOLDERS}
SIDES_FOLDER = "manualmask"
SIDES = tuple((f"left{end}", f"right{end}") for end in ("mask", "_mask", " mask", "", "_lung", " lung"))
"""Folders of one mask a side, in `ManualMask`, in a folder of masks, or beside the images."""
PART_FOLDERS = {*IMAGE_FOLDERS, *MASK_FOLDERS, SIDES_FOLDER, *chain(*SIDES)}
"""Folders that hold the images or the masks of samples, never a class; in lower case like all names here."""

_ADVICE = {
    "folder that cannot be read": "check that it exists and that you may read it",
    "second file of one name": "keep one, and masks in a folder of their own",
    "mask folder without a mask named as an image": "name masks as their images",
    "mask of one side without the other": "add the other side under the same name",
    "masks among the images, by their names": "keep these, or those in the folder of masks",
}
"""What to do about each kind of fault."""
_UNREADABLE, _DOUBLED, _UNMATCHED, _ONE_SIDED, _AMONG = _ADVICE
_MASK_NAME = re.compile(r"(?:mask|seg)[-_ ]+(.+)|(.+?)[-_ ]+(?:mask|seg|segmentation)")
"""Of the mask of the image whose name stands in one of the groups."""

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What was found below a root: samples (all in train where there are no splits) and a phrase a kind of fault."""

    layout: str
    samples: list[Sample]
    problems: list[str]
    has_splits: bool
    classes: tuple[str, ...] = ()  # In label order; `classes.label_samples` decides on them.
    unknown: tuple[str, ...] = ()  # What the data set calls those of its classes that are none of these.
    findings: tuple[
        str, ...
    ] = ()  # Names of `Sample.findings` as the data set has them, where it has several an image.


class Folders:
    """The folders below a root, each named by its path relative to it, with '/'; the root itself is ''."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, tuple[list[str], list[str]]] = {}
        self._faults: dict[str, set[str]] = defaultdict(set)
        self._unread: set[str] = set()
        self.beside = 0
        """Lung masks found so far that lie among the images."""

    def dirs(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; hidden ones and what macOS adds to archives are left out."""
        return self._list(folder)[0]

    def files(self, folder: str) -> list[str]:
        """Names of the files in a folder, in no order; hidden ones are left out."""
        return self._list(folder)[1]

    def child(self, folder: str, names: Collection[str]) -> str | None:
        """Give the first folder in a folder whose name in lower case is among `names`."""
        return next((join(folder, name) for name in self.dirs(folder) if name.casefold() in names), None)

    def holds_images(self, folder: str) -> bool:
        """Whether there are image files in a folder or in its folder `images`."""
        inside = self.child(folder, IMAGE_FOLDERS) or folder
        return any(name.casefold().endswith(IMAGE_SUFFIXES) for name in self.files(inside))

    def samples(self, folder: str, class_name: str | None, split: Split) -> list[Sample]:
        """Pair the images of a folder (those in its folder `images`, if it has one) with its masks of the same name.

        Masks may also lie among the images, their names marked by `_mask`, `mask_` and the like.
        """
        inside = self.child(folder, IMAGE_FOLDERS) or folder
        beside = self._marked(inside)
        images = self._by_stem(inside, set(beside.values()))
        lungs, infections = self._lung_masks(folder), self._masks(self.child(folder, INFECTION_FOLDERS))
        if lungs:
            self._faults[_AMONG] |= {join(inside, name) for name in beside.values()}
        elif beside:
            lungs = {stem: self.root / inside / name for stem, name in beside.items()}
            self.beside += len(lungs)
        for masks in (lungs, infections):
            if images and masks and masks.keys().isdisjoint(images):
                folder_of_masks = next(iter(masks.values())).parent
                self._faults[_UNMATCHED].add(folder_of_masks.relative_to(self.root).as_posix())
        base = self.root / inside  # joining paths is most of the time that a large data set takes
        return [
            Sample(
                id=join(inside, name),
                image=base / name,
                lung=lungs.get(stem),
                infection=infections.get(stem),
                label=None,
                split=split,
                class_name=class_name,
            )
            for stem, name in images.items()
        ]

    def problems(self) -> list[str]:
        """Give the faults met so far, one phrase a kind."""
        return [line for what, advice in _ADVICE.items() for line in phrase(what, self._faults[what], advice)]

    def tell_unread(self) -> None:
        """Log the pictures met so far that are of a kind that is not read."""
        tell_unread(self.root, self._unread)

    def warn(self, what: str, items: Collection[str], advice: str) -> None:
        """Log a phrase on what is no fault."""
        _warn(self.root, what, items, advice)

    def _marked(self, folder: str) -> dict[str, str]:
        """Names of the files of a folder that are masks of others in it, by the stem of the image."""
        names = dict(self._stems(folder))
        images = {stem: _unmarked(stem) for stem in names}
        return {image: names[stem] for stem, image in images.items() if image != stem and image in names}

    def _by_stem(self, folder: str, but: Collection[str] = ()) -> dict[str, str]:
        """Names of the image files of a folder, `but` these, by their stem without what marks a mask."""
        found: dict[str, str] = {}
        for stem, name in self._stems(folder):
            if name not in but:
                # Whoever pairs images and masks by name cannot know which of two files of one name is meant.
                first = found.setdefault(_unmarked(stem), name)
                if first is not name:
                    self._faults[_DOUBLED].add(join(folder, max(first, name)))
        return found

    def _stems(self, folder: str) -> Iterator[tuple[str, str]]:
        """Of the image files of a folder: the name in lower case without suffix, and the name.

        An accented letter is one, whether written as one character or, as macOS does, as two.
        """
        for name in self.files(folder):
            stem, dot, suffix = normalize("NFC", name).casefold().rpartition(".")
            if dot + suffix in IMAGE_SUFFIXES:
                yield stem, name

    def _lung_masks(self, folder: str) -> dict[str, Path]:
        masks = self.child(folder, LUNG_FOLDERS)
        places = [place for place in (self.child(folder, (SIDES_FOLDER,)), masks, folder) if place is not None]
        pairs = [(self.child(place, (left,)), self.child(place, (right,))) for place in places for left, right in SIDES]
        pair = next((pair for pair in pairs if any(pair)), None)
        if pair is None:
            return self._masks(masks)
        left, right = map(self._masks, pair)
        paired = {stem for stem in left.keys() & right.keys() if lung_files(left[stem])[-1] == right[stem]}
        alone = {masks[stem] for masks in (left, right) for stem in masks.keys() - paired}
        self._faults[_ONE_SIDED] |= {mask.relative_to(self.root).as_posix() for mask in alone}
        return left

    def _masks(self, folder: str | None) -> dict[str, Path]:
        if folder is None:
            return {}
        base = self.root / folder
        return {stem: base / name for stem, name in self._by_stem(folder).items()}

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        if folder not in self._listed:
            dirs: list[str] = []
            files: list[str] = []
            # A folder that cannot be read counts as empty, so that all other faults are found in the same pass.
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith((".", "__MACOSX")):
                            (dirs if entry.is_dir() else files).append(entry.name)
            except OSError as error:
                self._faults[_UNREADABLE].add(f"{folder or '.'}: {error.strerror}")
            self._listed[folder] = (sorted(dirs), files)
            self._unread.update(join(folder, name) for name in files if name.casefold().endswith(UNREAD_SUFFIXES))
        return self._listed[folder]


def _unmarked(stem: str) -> str:
    """Name of the image that a mask is of, by its own; of other files their own."""
    marked = _MASK_NAME.fullmatch(stem)
    return (marked[1] or marked[2]) if marked else stem


def join(folder: str, name: str) -> str:
    """Give the relative path of `name` inside `folder`."""
    return f"{folder}/{name}" if folder else name


def phrase(what: str, items: Collection[str], advice: str) -> list[str]:
    """Phrase one kind of fault: how many, the first three, what to do. Empty without items."""
    if not items:
        return []
    first = ", ".join(repr(item) for item in sorted(items)[:3])
    return [f"{what}: {len(items)} ({first}{', ...' if len(items) > 3 else ''}; {advice})"]


def tell_unread(folder: Path, names: Collection[str]) -> None:
    """Log one line on the pictures in a folder, named relative to it, that are of `UNREAD_SUFFIXES`."""
    _warn(folder, "left out, of a kind that is not read", names, "save as PNG")


def _warn(folder: Path, what: str, items: Collection[str], advice: str) -> None:
    for line in phrase(what, items, advice):
        _log.warning("%s: %s", folder, line)


def lung_files(lung: Path) -> Sequence[Path]:
    """Files whose union is the lung mask: the one given and, if it lies in a folder of `SIDES`, its namesake opposite.

    Montgomery keeps the lungs apart, `ManualMask/leftMask/X.png` and `ManualMask/rightMask/X.png`; a sample names the
    left one.
    """
    side = lung.parent.name
    if side.casefold() not in {left for left, _ in SIDES}:
        return (lung,)
    # The case of the folder's name is kept: file systems differ in whether it matters.
    for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
        side = side.replace(left, right)
    return lung, lung.parent.with_name(side) / lung.name
