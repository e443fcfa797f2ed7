"""The audit of a data set: everything that the modules beside it can find, in one pass over its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.auditing.class_probes import Probe, probe_shortcuts
from lungseg.auditing.integrity import COVER_PX, Fault, Inspection, inspect
from lungseg.auditing.inventory import (
    NO_LUNG_MASK,
    Cell,
    Tree,
    count_cells,
    count_faults,
    list_trees,
    match_twins,
    missing_masks,
    stray_masks,
)
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
    images: int
    """Each image once, though it be in both trees."""
    sizes: dict[str, int]
    """Images by width x height, pixels, the most frequent first."""
    cells: list[Cell]
    problems: list[str]
    """What keeps the index from being used, a phrase a kind, as far as no fault says it."""
    faults: list[Fault]
    """In the order of kind, then file."""
    in_both_trees: int
    """Images that both trees have under the same split, as published."""
    moved: list[Leak]
    """Images that the two trees have under different splits."""
    leaks: list[Leak]
    """Copies among the images, those across splits first."""
    probes: list[Probe]

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to tell."""
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
    """Look at every file of a data set once and tell all that is wrong with it.

    Args:
        root: Folder or CSV manifest, as for `load_index`.
        quiet: Without progress.

    Raises:
        FileNotFoundError: There is no such root.
        DataError: Nothing in it can be read as a data set.
    """
    root = Path(root).expanduser()
    reading = read_index(root)
    trees = list_trees(root, reading)
    base = root if root.is_dir() else root.parent
    inspections = _inspect_all(base, trees, quiet)
    merged = list({sample.id: sample for sample in reading.samples}.values())
    twins, differing = match_twins(base, merged, trees, inspections)
    cells = count_cells(trees)
    faults = {
        *(fault for inspection in inspections.values() for fault in inspection.faults),
        *differing,
        *count_faults(cells),
        *missing_masks(trees),
        *(stray_masks(root, trees) if root.is_dir() else ()),
    }
    seen = [inspections[sample.id] for sample in merged]
    return Audit(
        root,
        reading.layout,
        reading.has_splits,
        len(merged),
        _sizes(seen),
        cells,
        [problem for problem in reading.problems if not problem.startswith(f"{NO_LUNG_MASK}:")],
        sorted(faults),
        sum(twin.first.split == twin.second.split for twin in twins),
        [Leak("exact", 1.0, *twin) for twin in twins if twin.first.split != twin.second.split],
        find_leaks(merged, [inspection.signature for inspection in seen], quiet),
        _probe(merged, seen),
    )


def _inspect_all(base: Path, trees: Sequence[Tree], quiet: bool) -> Mapping[str, Inspection]:
    """Inspect the samples of all trees, by id."""
    samples = [sample for tree in trees for sample in tree.samples]

    def look(sample: Sample) -> Inspection:
        return inspect(sample, base)

    looks = in_threads(look, samples, "reading images", quiet)
    return {sample.id: look for sample, look in zip(samples, looks, strict=True)}


def _sizes(seen: Sequence[Inspection]) -> dict[str, int]:
    counts = Counter(f"{look.shape[1]}x{look.shape[0]}" for look in seen if look.shape)
    return dict(counts.most_common())


def _probe(samples: Sequence[Sample], seen: Sequence[Inspection]) -> list[Probe]:
    """Run the shortcut probe on the images that could be read."""
    used = [at for at, look in enumerate(seen) if look.signature]
    thumbnails = np.zeros((len(used), COVER_PX, COVER_PX), np.uint8)
    covers = np.zeros_like(thumbnails)
    for row, at in enumerate(used):
        signature, cover = seen[at].signature, seen[at].cover
        if signature is not None:
            thumbnails[row] = _thumbnail(signature.whole)
        if cover is not None:
            covers[row] = cover
    return probe_shortcuts([samples[at] for at in used], thumbnails, covers)


def _thumbnail(whole: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(whole, (COVER_PX, COVER_PX), interpolation=cv2.INTER_AREA), np.uint8)
