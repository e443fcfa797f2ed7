"""Folders of images and masks as the layouts see them: listed once, names compared in lower case, faults remembered."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lungseg.data.images import IMAGE_SUFFIXES
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
IMAGE_FOLDERS = ("images", "image", "cxr_png")
LUNG_FOLDERS = ("lung masks", "lung_masks", "masks", "mask")
INFECTION_FOLDERS = ("infection masks", "infection_masks")
SIDES_FOLDER = "manualmask"
PART_FOLDERS = {*IMAGE_FOLDERS, *LUNG_FOLDERS, *INFECTION_FOLDERS, SIDES_FOLDER}
"""Folders that hold a part of the samples, never a class; in lower case like all names here."""


class Reading(NamedTuple):
    """What was found below a root: samples (all in train where there are no splits) and a phrase a kind of fault."""

    layout: str
    samples: list[Sample]
    problems: list[str]
    has_splits: bool


class Folders:
    """The folders below a root. A place is the path of one relative to the root, with '/'; the root itself is ''."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, tuple[list[str], list[str]]] = {}
        self._unreadable: list[str] = []
        self._doubled: set[str] = set()
        self._unmatched: list[str] = []
        self._one_sided: list[str] = []

    def dirs(self, place: str) -> list[str]:
        """Names of the folders in a place, sorted; hidden ones and what macOS adds to archives are left out."""
        return self._list(place)[0]

    def files(self, place: str) -> list[str]:
        """Names of the files in a place, in no order; hidden ones are left out."""
        return self._list(place)[1]

    def child(self, place: str, names: Collection[str]) -> str | None:
        """Give the place of the first folder whose name in lower case is among `names`."""
        return next((join(place, name) for name in self.dirs(place) if name.casefold() in names), None)

    def by_stem(self, place: str | None) -> dict[str, str]:
        """Names of the image files of a place, by name in lower case without suffix and without `_mask` at its end."""
        found: dict[str, str] = {}
        for name in self.files(place) if place is not None else ():
            stem, dot, suffix = name.casefold().rpartition(".")
            if dot + suffix in IMAGE_SUFFIXES:
                first = found.setdefault(stem.removesuffix("_mask"), name)
                if first is not name:
                    self._doubled.add(join(place or "", max(first, name)))
        return found

    def holds_images(self, place: str) -> bool:
        """Whether there are image files in a place or in its folder `images`."""
        where = self.child(place, IMAGE_FOLDERS) or place
        return any(name.casefold().endswith(IMAGE_SUFFIXES) for name in self.files(where))

    def samples(self, place: str, label: int | None, split: Split) -> list[Sample]:
        """Pair the images of a place (those in its folder `images`, if it has one) with its masks of the same name."""
        where = self.child(place, IMAGE_FOLDERS) or place
        images = self.by_stem(where)
        lungs = self._lung_masks(place)
        infections = self._masks(self.child(place, INFECTION_FOLDERS))
        for masks in (lungs, infections):
            if images and masks and masks.keys().isdisjoint(images):
                self._unmatched.append(self._place_of(next(iter(masks.values())).parent))
        folder, prefix = self.root / where, join(where, "")
        return [
            Sample(prefix + name, folder / name, lungs.get(stem), infections.get(stem), label, split)
            for stem, name in images.items()
        ]

    def problems(self) -> list[str]:
        """Give the faults met so far, one phrase a kind."""
        return [
            *phrase("folder that cannot be read", self._unreadable, "check that it exists and that you may read it"),
            *phrase("second file of one name", self._doubled, "keep one, and masks in a folder of their own"),
            *phrase("mask folder without a mask named as an image", self._unmatched, "name masks as their images"),
            *phrase("mask of one side without the other", self._one_sided, "add the other side under the same name"),
        ]

    def _lung_masks(self, place: str) -> dict[str, Path]:
        sides = self.child(place, (SIDES_FOLDER,))
        if sides is None:
            return self._masks(self.child(place, LUNG_FOLDERS))
        left, right = (self._masks(self.child(sides, (side,))) for side in ("leftmask", "rightmask"))
        paired = {stem for stem in left.keys() & right.keys() if lung_files(left[stem])[-1] == right[stem]}
        self._one_sided += [self._place_of(masks[stem]) for masks in (left, right) for stem in masks.keys() - paired]
        return left

    def _masks(self, place: str | None) -> dict[str, Path]:
        folder = self.root / (place or "")
        return {stem: folder / name for stem, name in self.by_stem(place).items()}

    def _place_of(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _list(self, place: str) -> tuple[list[str], list[str]]:
        if place not in self._listed:
            dirs: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(self.root / place) as entries:
                    for entry in entries:
                        if not entry.name.startswith((".", "__MACOSX")):
                            (dirs if entry.is_dir() else files).append(entry.name)
            except OSError as error:
                self._unreadable.append(f"{place or '.'}: {error.strerror}")
            self._listed[place] = (sorted(dirs), files)
        return self._listed[place]


def join(place: str, name: str) -> str:
    """Give the place of `name` inside `place`."""
    return f"{place}/{name}" if place else name


def phrase(what: str, items: Collection[str], advice: str) -> list[str]:
    """Tell of one kind of fault: how many, the first three, what to do. Empty without items."""
    if not items:
        return []
    first = ", ".join(repr(item) for item in sorted(items)[:3])
    return [f"{what}: {len(items)} ({first}{', ...' if len(items) > 3 else ''}; {advice})"]


def lung_files(lung: Path) -> Sequence[Path]:
    """Files whose union is the lung mask: the one given and, if it lies in `leftMask`, its namesake in `rightMask`.

    Montgomery keeps the lungs apart, `ManualMask/leftMask/X.png` and `ManualMask/rightMask/X.png`; a sample names the
    left one.
    """
    side = lung.parent.name
    if side.casefold() != "leftmask":
        return (lung,)
    for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
        side = side.replace(left, right)
    return lung, lung.parent.with_name(side) / lung.name
