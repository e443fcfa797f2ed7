"""The audit of a data set: everything that the modules beside it can find, in one pass over its files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lungseg.auditing import inventory
from lungseg.auditing.class_probes import Probe, probe_shortcuts
from lungseg.auditing.integrity import THUMBNAIL_PX, Fault, Inspection, inspect, thumbnail
from lungseg.auditing.inventory import Cell
from lungseg.data.duplicates import Leak, copies_in_train, find_leaks, group_copies
from lungseg.data.index import read_index
from lungseg.data.sample import Sample
from lungseg.runs.progress import in_threads


@dataclass(frozen=True)
class Audit:
    """What was found in a data set."""

    root: Path
    layout: str
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


def audit(root: Path, quiet: bool = False) -> Audit:
    """Read every file of a data set (a folder or CSV manifest, as for `load_index`) once and list all that is wrong.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: Nothing in it can be read as a data set.
    """
    root = Path(root).expanduser()
    reading = read_index(root)
    trees = inventory.list_trees(root, reading)
    base = root if root.is_dir() else root.parent
    samples = [sample for tree in trees for sample in tree.samples]
    results = in_threads(partial(inspect, root=base), samples, "reading images", quiet)
    by_id = {sample.id: inspection for sample, inspection in zip(samples, results, strict=True)}
    merged = list({sample.id: sample for sample in reading.samples}.values())
    inspections = [by_id[sample.id] for sample in merged]
    twins, differing = inventory.match_twins(base, merged, trees, by_id)
    cells = inventory.count_cells(trees)
    # A set, for an image that both trees hold is inspected in each of them.
    faults = {
        *(fault for inspection in by_id.values() for fault in inspection.faults),
        *differing,
        *inventory.count_faults(cells),
        *inventory.missing_masks(trees),
        *(inventory.stray_masks(root, trees) if root.is_dir() else ()),
    }
    sizes = Counter(f"{shape[1]}x{shape[0]}" for inspection in inspections if (shape := inspection.shape))
    return Audit(
        root=root,
        layout=reading.layout,
        has_splits=reading.has_splits,
        images=len(merged),
        sizes=dict(sizes.most_common()),
        cells=cells,
        problems=[problem for problem in reading.problems if not problem.startswith(f"{inventory.NO_LUNG_MASK}:")],
        faults=sorted(faults),
        in_both_trees=sum(first.split == second.split for first, second in twins),
        moved=[Leak("exact", 1.0, *twin) for twin in twins if twin[0].split != twin[1].split],
        leaks=find_leaks(merged, [inspection.signature for inspection in inspections], quiet),
        probes=_probe(merged, inspections),
    )


def _probe(samples: Sequence[Sample], inspections: Sequence[Inspection]) -> list[Probe]:
    """Run the shortcut probe on the images that could be read."""
    no_lung = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
    pairs = zip(samples, inspections, strict=True)
    used = [(sample, found.cover, found.signature.image) for sample, found in pairs if found.signature]
    thumbnails = np.array([thumbnail(image) for _, _, image in used], np.uint8).reshape(-1, *no_lung.shape)
    covers = np.array([no_lung if cover is None else cover for _, cover, _ in used], np.uint8)
    return probe_shortcuts([sample for sample, _, _ in used], thumbnails, covers.reshape(thumbnails.shape))
