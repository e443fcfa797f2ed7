"""Everything measured of each image of a split, before any statistic: masks, classes, and class maps.

One pass of the network over the split and one over Val (for what is tuned there); all else is done on what they leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.cam.layers import FEATURES
from lungseg.data.sample import Sample
from lungseg.evaluation.class_maps import MapMeasurements, measure_maps
from lungseg.evaluation.outputs import Look, Picture, Target, Way, check_ways, look_at
from lungseg.evaluation.segmentation import measure_masks
from lungseg.evaluation.spacing import read_spacings
from lungseg.evaluation.statistics import Flags, Floats, Integers
from lungseg.evaluation.target import Subject
from lungseg.evaluation.tuning import softmax
from lungseg.runs.progress import cores, no_word

CAM: Way = ("cam", FEATURES)


@dataclass(frozen=True)
class MaskResults:
    """Scores of one kind of mask."""

    index: Integers
    """(K,) images of the split that have a true mask."""
    found: dict[str, NDArray[Any]]
    """(K,) each: what `measure_masks` gives."""


@dataclass(frozen=True)
class Measured:
    """All that is known of the N images of a split."""

    classes: tuple[str, ...]
    samples: list[Sample]
    logits: Floats
    """(N, C)."""
    label: Integers
    """(N,), -1 where unknown."""
    masks: dict[str, MaskResults]
    """`lung`, and `infection` if the network predicts it; only kinds of which there is a true mask."""
    broken_masks: int
    """Images whose mask logits are not all finite."""
    maps: dict[Way, MapMeasurements]
    val_logits: Floats | None
    """(M, C) of Val; None if that is the split itself, is not there, or belongs to another data set."""
    val_label: Integers | None
    """(M,)."""
    halves: Integers
    """(N,) `Subject.halves`."""

    @property
    def probs(self) -> Floats:
        """(N, C) in [0, 1], as the network gives them; NaN where it does not."""
        return softmax(self.logits)

    @property
    def groups(self) -> list[str | None]:
        """(N,) patient or study."""
        return [sample.group for sample in self.samples]

    @property
    def confused(self) -> Flags:
        """(N,): the class logits are not all finite."""
        return np.asarray(~np.isfinite(self.logits).all(axis=1))


def measure(
    subject: Subject,
    ways: Sequence[Way] = (CAM,),
    target: Target = "predicted",
    show: Callable[[Picture], None] | None = None,
    say: Callable[[str], None] = no_word,
) -> Measured:
    """Measure every image of the split of a subject.

    Args:
        subject: Network and data.
        ways: Methods and the layers they are applied at, the first of them for `show`.
        target: Whose map: of the predicted class, as a user sees it, or of the true one where it is known.
        show: Given every image as of `look_at`, while the network passes over them.
        say: Told what is being done.

    Raises:
        ValueError: Unknown method or layer.
    """
    looks, tuning = run_network(subject, ways, target, show, say)
    halves = subject.halves()
    say("masks")
    masks = _measure_masks(subject, looks)
    maps = {}
    for way in ways:
        say(f"class maps of {way[0]} at {way[1]}")
        maps[way] = measure_maps(subject, way, looks, tuning, halves)
    val = tuning if subject.origin != "other" else None
    return Measured(
        classes=subject.classes,
        samples=subject.samples,
        logits=np.concatenate([look.logits for look in looks]),
        label=np.concatenate([look.label for look in looks]),
        masks=masks,
        broken_masks=sum(int(np.count_nonzero(~look.finite_masks)) for look in looks),
        maps=maps,
        val_logits=np.concatenate([look.logits for look in val]) if val else None,
        val_label=np.concatenate([look.label for look in val]) if val else None,
        halves=halves,
    )


def run_network(
    subject: Subject,
    ways: Sequence[Way],
    target: Target,
    show: Callable[[Picture], None] | None = None,
    say: Callable[[str], None] = no_word,
) -> tuple[list[Look], list[Look] | None]:
    """The forward passes of `measure`, shared by the subject's team: over the split, and over Val if it is another."""
    check_ways(subject, ways)
    say(f"network on {len(subject.samples)} images of {subject.scope}")
    looks = look_at(subject, ways, target, show=show)
    if subject.split == "val" or subject.whole or not subject.data.samples["val"]:
        return looks, None
    say(f"network on {len(subject.data.samples['val'])} images of val, to tune what is tuned")
    return looks, look_at(subject, ways, target, "val")


def _measure_masks(subject: Subject, looks: Sequence[Look]) -> dict[str, MaskResults]:
    """Score the predicted masks of all images that have a true one; images are shared out over the cores."""
    spacing, starts = read_spacings(subject.samples, subject.config.data), _starts(looks)
    kinds = [kind for kind in ("lung", "infection") if any(f"predicted_{kind}" in look.packed for look in looks)]
    parts: dict[str, list[tuple[Integers, dict[str, NDArray[Any]]]]] = {kind: [] for kind in kinds}

    def of_look(number: int) -> dict[str, tuple[Integers, dict[str, NDArray[Any]]]]:
        look, found = looks[number], {}
        for kind in kinds:
            known = look.known[kind]
            if known.any():
                true, predicted = look.mask(kind).numpy()[known], look.mask(f"predicted_{kind}").numpy()[known]
                index = starts[number] + np.flatnonzero(known)
                found[kind] = index, measure_masks(predicted, true, spacing[index], lungs=kind == "lung")
        return found

    with ThreadPoolExecutor(cores()) as pool:
        for done in subject.track(pool.map(of_look, range(len(looks))), len(looks)):
            for kind, part in done.items():
                parts[kind].append(part)
    return {kind: _joined(found) for kind, found in parts.items() if found}


def _joined(parts: Sequence[tuple[Integers, dict[str, NDArray[Any]]]]) -> MaskResults:
    found = {name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]}
    return MaskResults(np.concatenate([index for index, _ in parts]), found)


def _starts(looks: Sequence[Look]) -> list[int]:
    """Place in the split of each look's first image."""
    return [0, *np.cumsum([len(look.label) for look in looks]).tolist()][:-1]
