"""What a data set holds: its trees, counts beside the published ones, masks without images, images in both trees."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lungseg.auditing.integrity import Fault, Inspection, place_of
from lungseg.data.folders import (
    IMAGE_FOLDERS,
    INFECTION_FOLDERS,
    LUNG_FOLDERS,
    SIDES_FOLDER,
    Folders,
    Reading,
    join,
    lung_parts,
)
from lungseg.data.images import IMAGE_SUFFIXES
from lungseg.data.index import find_covidqu, read_covidqu
from lungseg.data.layouts import class_labels
from lungseg.data.sample import CLASSES, SPLITS, Sample

COVIDQU = "COVID-QU-Ex"
PUBLISHED: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "lung": ((7658, 7208, 6849), (1903, 1802, 1712), (2395, 2253, 2140)),
    "infection": ((1864, 932, 932), (466, 233, 233), (583, 292, 291)),
}
"""Images of each tree of COVID-QU-Ex, a row a split, a column a class (Tahir et al. 2021)."""
NEARLY = 0.01
"""Share of the published count within which another count means that files were lost or added."""

NO_LUNG_MASK = "image without a lung mask"
NO_INFECTION_MASK = "image without an infection mask"
NO_IMAGE = "mask without an image"
COUNT = "count that differs a little from the published one"
OTHER_IMAGE = "image that differs between the two trees"
OTHER_MASK = "lung mask that differs between the two trees"

_MASK_FOLDERS = {*LUNG_FOLDERS, *INFECTION_FOLDERS}


class Tree(NamedTuple):
    """One tree of COVID-QU-Ex, or the whole of another data set."""

    place: str
    """Relative to the root; '.' for the root."""
    kind: str
    """`lung` or `infection`; empty for another layout."""
    samples: list[Sample]


class Cell(NamedTuple):
    """How many images a class has in a split of a tree."""

    tree: str
    split: str
    name: str
    """Class name, or `no class`."""
    images: int
    published: int | None
    """None where nothing is published."""


class Twin(NamedTuple):
    """The same image in both trees."""

    first: Sample
    """As it is in the data set when both trees are read: that of the lung tree."""
    second: Sample
    """As it is in the infection tree."""


def list_trees(root: Path, reading: Reading) -> list[Tree]:
    """Read each tree of COVID-QU-Ex by itself; another layout is one tree."""
    if reading.layout != COVIDQU:
        return [Tree(".", "", reading.samples)]
    folders, labels = Folders(root), class_labels()
    trees = []
    for place in find_covidqu(folders, labels):
        samples = read_covidqu(folders, labels, [place]).samples
        kind = "infection" if any(sample.infection for sample in samples) else "lung"
        trees.append(Tree(place or ".", kind, samples))
    return trees


def count_cells(trees: Sequence[Tree]) -> list[Cell]:
    """Count the images of each tree, split and class; with published numbers, empty cells too."""
    cells = []
    for tree in trees:
        counts = Counter((sample.split, sample.label) for sample in tree.samples)
        published = PUBLISHED.get(tree.kind)
        for row, split in enumerate(SPLITS):
            for label in (*range(len(CLASSES)), None):
                expected = published[row][label] if published and label is not None else None
                if counts[split, label] or expected is not None:
                    name = "no class" if label is None else CLASSES[label]
                    cells.append(Cell(tree.place, split, name, counts[split, label], expected))
    return cells


def count_faults(cells: Sequence[Cell]) -> Iterator[Fault]:
    """Tell of cells whose count is nearly the published one: a part of the data set on purpose is further off."""
    for cell in cells:
        if cell.published and 0 < abs(cell.images - cell.published) <= NEARLY * cell.published:
            place = f"{cell.split}/{cell.name}"
            yield Fault(
                COUNT,
                place if cell.tree == "." else f"{cell.tree}/{place}",
                f"{cell.images:,} images, published are {cell.published:,}",
            )


def missing_masks(trees: Sequence[Tree]) -> Iterator[Fault]:
    """Tell of images without a mask that others in their folder have; COVID-QU-Ex has a lung mask for each."""
    for tree in trees:
        masked = {sample.image.parent for sample in tree.samples if sample.lung}
        infected = {sample.image.parent for sample in tree.samples if sample.infection}
        for sample in tree.samples:
            if sample.lung is None and (tree.kind or sample.image.parent in masked):
                yield Fault(NO_LUNG_MASK, sample.id)
            if sample.infection is None and sample.image.parent in infected:
                yield Fault(NO_INFECTION_MASK, sample.id)


def stray_masks(root: Path, trees: Sequence[Tree]) -> Iterator[Fault]:
    """Tell of files in folders of masks that belong to no image."""
    used = {
        part
        for tree in trees
        for sample in tree.samples
        for part in (*(lung_parts(sample.lung) if sample.lung else ()), sample.infection)
    }
    folders = Folders(root)
    for place in _mask_places(folders, "", 0):
        for name in sorted(folders.files(place)):
            path = root / place / name
            if name.casefold().endswith(IMAGE_SUFFIXES) and path not in used:
                yield Fault(NO_IMAGE, place_of(path, root))


def match_twins(
    root: Path, merged: Sequence[Sample], trees: Sequence[Tree], inspections: Mapping[str, Inspection]
) -> tuple[list[Twin], list[Fault]]:
    """Match what was left out when the trees were merged with what stands for it, by class, name and pixels.

    Args:
        root: Files are named relative to it.
        merged: Samples of the data set, each image once.
        trees: Its trees, each by itself.
        inspections: By sample id, those of all trees.

    Returns:
        The pairs of equal pixels, whatever their splits; and faults of images or lung masks that are not equal.
    """
    kept = {sample.id for sample in merged}
    named: dict[tuple[int | None, str], list[Sample]] = defaultdict(list)
    for sample in merged:
        named[sample.label, sample.image.stem.casefold()].append(sample)
    twins, faults = [], []
    for sample in (sample for tree in trees for sample in tree.samples if sample.id not in kept):
        here = inspections[sample.id]
        known = [
            other
            for other in named[sample.label, sample.image.stem.casefold()]
            if (there := inspections[other.id].signature) and here.signature and there.digest == here.signature.digest
        ]
        if known:
            first = next((other for other in known if other.split == sample.split), known[0])
            twins.append(Twin(first, sample))
            masks = here.lung_digest, inspections[first.id].lung_digest
            if sample.lung and None not in masks and masks[0] != masks[1]:
                faults.append(Fault(OTHER_MASK, place_of(sample.lung, root)))
        elif here.signature:
            faults.append(Fault(OTHER_IMAGE, sample.id, "no image of its class and name in the lung tree equals it"))
    return twins, faults


def _mask_places(folders: Folders, place: str, depth: int) -> Iterator[str]:
    """Places that hold masks: mask folders, and the folders of one side each in `ManualMask`."""
    for name in folders.dirs(place):
        inside = join(place, name)
        if name.casefold() in _MASK_FOLDERS or place.rpartition("/")[2].casefold() == SIDES_FOLDER:
            yield inside
        elif depth < 8 and name.casefold() not in IMAGE_FOLDERS:
            yield from _mask_places(folders, inside, depth + 1)
