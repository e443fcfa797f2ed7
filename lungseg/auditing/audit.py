"""The audit of a data set in one pass over its files: faults, copies, shortcuts, and what it holds.

Of COVID-QU-Ex the counts of both trees stand beside the published ones, and images in both trees are compared.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lungseg.auditing.class_probes import Probe, probe_shortcuts
from lungseg.auditing.integrity import THUMBNAIL_PX, Fault, Inspection, inspect, name_of, thumbnail
from lungseg.data.classes import label_samples, refuse_unknown, unknown_infections
from lungseg.data.covidqu import CLASSES, find_covidqu, names_of_classes, read_covidqu
from lungseg.data.duplicates import Leak, copies_in_train, find_leaks, group_copies
from lungseg.data.folders import IMAGE_FOLDERS, MASK_FOLDERS, SIDES, Folders, Reading, join, lung_files
from lungseg.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from lungseg.data.index import read_index
from lungseg.data.sample import SPLITS, Sample
from lungseg.runs.progress import in_threads

PUBLISHED: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "lung": ((7658, 7208, 6849), (1903, 1802, 1712), (2395, 2253, 2140)),
    "infection": ((1864, 932, 932), (466, 233, 233), (583, 292, 291)),
}
"""Images of each tree of COVID-QU-Ex, a row a split, a column a class (Tahir et al. 2021)."""
NEARLY = 0.01  # Share of the published count within which another count means that files were lost or added.

NO_LUNG_MASK = "image without a lung mask"
NO_INFECTION_MASK = "image without an infection mask"
NO_IMAGE = "mask without an image"
NOT_READ = "picture of a kind that is not read"
COUNT = "count that differs a little from the published one"
OTHER_IMAGE = "image that differs between the two trees"
OTHER_MASK = "lung mask that differs between the two trees"


class Tree(NamedTuple):
    """One tree of COVID-QU-Ex, or all of another data set."""

    folder: str  # Relative to the root; '.' for the root.
    kind: str  # `lung` or `infection`; empty for another layout.
    samples: list[Sample]


class Cell(NamedTuple):
    """How many images a class has in a split of a tree."""

    tree: str
    split: str
    name: str  # Class name, or `no class`.
    images: int
    published: int | None  # None where nothing is published.


@dataclass(frozen=True)
class Audit:
    """What was found in a data set."""

    root: Path
    layout: str
    classes: tuple[str, ...]  # In label order.
    has_splits: bool
    images: int  # Each image once, though it be in both trees.
    sizes: dict[str, int]  # Images by width x height, pixels, the most frequent first.
    cells: list[Cell]
    problems: list[str]  # What keeps the index from being used, a phrase a kind, as far as no fault says it.
    faults: list[Fault]  # In the order of kind, then file.
    in_both_trees: int  # Images that both trees have under the same split, as published.
    moved: list[Leak]  # Images that the two trees have under different splits.
    leaks: list[Leak]  # Copies among the images, those across splits first.
    probes: list[Probe]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong with the data set."""
        shortcuts = any(probe.is_shortcut for probe in self.probes)
        return not (self.problems or self.faults or self.moved or self.leaks or shortcuts)

    @property
    def groups(self) -> list[list[Sample]]:
        """Images of one exposure each."""
        return group_copies(self.leaks)

    @property
    def training_copies(self) -> set[str]:
        """Ids of train samples that `data.exclude_leaks` leaves out."""
        return copies_in_train(self.leaks)


def audit(
    root: Path, quiet: bool = False, infection_unknown: Sequence[str] | None = None, multi_label: bool = False
) -> Audit:
    """Read every file of a data set (a folder or CSV manifest, as for `load_index`) once and list all that is wrong.

    `infection_unknown` is `data.infection_unknown` of the config; None: its default. `multi_label` is its
    `data.multi_label`: an image counts with each of its findings.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: Nothing in it can be read as a data set.
    """
    root = Path(root).expanduser()
    reading = read_index(root, multi_label=multi_label)
    unknown = unknown_infections(infection_unknown, reading.classes)
    trees = list_trees(root, reading)
    base = root if root.is_dir() else root.parent
    samples = [sample for tree in trees for sample in tree.samples]
    results = in_threads(partial(inspect, root=base, infection_unknown=unknown), samples, "reading images", quiet)
    by_id = {sample.id: inspection for sample, inspection in zip(samples, results, strict=True)}
    merged = list({sample.id: sample for sample in reading.samples}.values())
    inspections = [by_id[sample.id] for sample in merged]
    twins, differing = match_twins(base, merged, trees, by_id)
    cells = count_cells(trees, reading.classes)
    # A set, for an image that both trees hold is inspected in each of them.
    faults = {
        *(fault for inspection in by_id.values() for fault in inspection.faults),
        *differing,
        *count_faults(cells),
        *missing_masks(trees),
        *(stray_masks(root, trees) if root.is_dir() else ()),
        *(unread_pictures(root) if root.is_dir() else ()),
    }
    sizes = Counter(f"{shape[1]}x{shape[0]}" for inspection in inspections if (shape := inspection.shape))
    return Audit(
        root=root,
        layout=reading.layout,
        classes=reading.classes,
        has_splits=reading.has_splits,
        images=len(merged),
        sizes=dict(sizes.most_common()),
        cells=cells,
        problems=[
            *(problem for problem in reading.problems if not problem.startswith(f"{NO_LUNG_MASK}:")),
            *refuse_unknown(reading),
        ],
        faults=sorted(faults),
        in_both_trees=sum(first.split == second.split for first, second in twins),
        moved=[Leak("exact", 1.0, *twin) for twin in twins if twin[0].split != twin[1].split],
        leaks=find_leaks(merged, [inspection.signature for inspection in inspections], quiet),
        probes=_probe(merged, inspections),
    )


def list_trees(root: Path, reading: Reading) -> list[Tree]:
    """Read each tree of COVID-QU-Ex by itself; another layout is one tree."""
    if reading.layout != "COVID-QU-Ex":
        return [Tree(".", "", reading.samples)]
    folders, names, trees = Folders(root), names_of_classes({}), []
    for folder in find_covidqu(folders, names):
        samples = label_samples(read_covidqu(folders, names, [folder]), reading.classes, {}).samples
        kind = "infection" if any(sample.infection for sample in samples) else "lung"
        trees.append(Tree(folder or ".", kind, samples))
    return trees


def count_cells(trees: Sequence[Tree], classes: Sequence[str]) -> list[Cell]:
    """Count the images of each tree, split and class; with published numbers, empty cells too."""
    cells = []
    for tree in trees:
        counts = Counter((sample.split, label) for sample in tree.samples for label in sample.labels or (None,))
        published = PUBLISHED.get(tree.kind) if tuple(classes) == CLASSES else None
        for row, split in enumerate(SPLITS):
            for label in (*range(len(classes)), None):
                expected = published[row][label] if published and label is not None else None
                if counts[split, label] or expected is not None:
                    name = "no class" if label is None else classes[label]
                    cells.append(Cell(tree.folder, split, name, counts[split, label], expected))
    return cells


def count_faults(cells: Sequence[Cell]) -> Iterator[Fault]:
    """Name the cells whose count is nearly the published one; who works on a subset on purpose is further off."""
    for cell in cells:
        if cell.published and 0 < abs(cell.images - cell.published) <= NEARLY * cell.published:
            folder = f"{cell.split}/{cell.name}" if cell.tree == "." else f"{cell.tree}/{cell.split}/{cell.name}"
            yield Fault(COUNT, folder, f"{cell.images:,} images, published are {cell.published:,}")


def missing_masks(trees: Sequence[Tree]) -> Iterator[Fault]:
    """Name the images without a mask that others in their folder have; COVID-QU-Ex has a lung mask for each."""
    for tree in trees:
        masked = {sample.image.parent for sample in tree.samples if sample.lung}
        infected = {sample.image.parent for sample in tree.samples if sample.infection}
        for sample in tree.samples:
            if sample.lung is None and (tree.kind or sample.image.parent in masked):
                yield Fault(NO_LUNG_MASK, sample.id)
            if sample.infection is None and sample.image.parent in infected:
                yield Fault(NO_INFECTION_MASK, sample.id)


def stray_masks(root: Path, trees: Sequence[Tree]) -> Iterator[Fault]:
    """Name the files in folders of masks that belong to no image."""
    used: set[Path | None] = set()
    for sample in (sample for tree in trees for sample in tree.samples):
        used |= {sample.infection, *(lung_files(sample.lung) if sample.lung else ())}
    folders = Folders(root)
    for folder in _mask_folders(folders):
        for name in sorted(folders.files(folder)):
            path = root / folder / name
            if name.casefold().endswith(IMAGE_SUFFIXES) and path not in used:
                yield Fault(NO_IMAGE, name_of(path, root))


def unread_pictures(root: Path) -> Iterator[Fault]:
    """Name the pictures that are left out because of their kind."""
    for path in root.rglob("*"):
        if path.name.casefold().endswith(UNREAD_SUFFIXES) and not path.name.startswith("."):
            yield Fault(NOT_READ, name_of(path, root), "save it as PNG")


def match_twins(
    root: Path, merged: Sequence[Sample], trees: Sequence[Tree], inspections: Mapping[str, Inspection]
) -> tuple[list[tuple[Sample, Sample]], list[Fault]]:
    """Match what was left out when the trees were merged with what stands for it, by class, name and pixels.

    `merged` has each image once; inspections are those of all trees, by sample id. Returned are the pairs of equal
    pixels, as in the data set (that of the lung tree) and as in the infection tree, whatever their splits; and faults
    of images or lung masks that are not equal.
    """
    kept = {sample.id for sample in merged}
    named: dict[tuple[int | None, str], list[Sample]] = defaultdict(list)
    for sample in merged:
        named[sample.label, sample.image.stem.casefold()].append(sample)
    twins, faults = [], []
    for sample in (sample for tree in trees for sample in tree.samples if sample.id not in kept):
        here = inspections[sample.id]
        if not here.signature:
            continue  # an image that cannot be read is a fault of its own
        namesakes = named[sample.label, sample.image.stem.casefold()]
        others = [(other, inspections[other.id].signature) for other in namesakes]
        same = [other for other, there in others if there and there.digest == here.signature.digest]
        if not same:
            faults.append(Fault(OTHER_IMAGE, sample.id, "no image of its class and name in the lung tree equals it"))
            continue
        first = next((other for other in same if other.split == sample.split), same[0])
        twins.append((first, sample))
        masks = here.lung_digest, inspections[first.id].lung_digest
        if sample.lung and None not in masks and masks[0] != masks[1]:
            faults.append(Fault(OTHER_MASK, name_of(sample.lung, root)))
    return twins, faults


def _mask_folders(folders: Folders, folder: str = "", depth: int = 0) -> Iterator[str]:
    """Folders that hold masks: mask folders, and those of one side each."""
    for name in folders.dirs(folder):
        inside = join(folder, name)
        is_side = any(name.casefold() in sides for sides in SIDES)
        if name.casefold() in MASK_FOLDERS or is_side:
            yield inside
        elif depth < 8 and name.casefold() not in IMAGE_FOLDERS:
            yield from _mask_folders(folders, inside, depth + 1)


def _probe(samples: Sequence[Sample], inspections: Sequence[Inspection]) -> list[Probe]:
    """Run the shortcut probe on the images that could be read."""
    no_lung = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
    pairs = zip(samples, inspections, strict=True)
    used = [(sample, found.cover, found.signature.image) for sample, found in pairs if found.signature]
    thumbnails = np.array([thumbnail(image) for _, _, image in used], np.uint8).reshape(-1, *no_lung.shape)
    covers = np.array([no_lung if cover is None else cover for _, cover, _ in used], np.uint8)
    return probe_shortcuts([sample for sample, _, _ in used], thumbnails, covers.reshape(thumbnails.shape))
