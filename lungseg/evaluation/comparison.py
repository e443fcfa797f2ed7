"""Runs against the first of them, on the same images: paired bootstrap differences of every number."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.class_maps import MAP_COLUMNS
from lungseg.evaluation.intervals import (
    REPLICATES,
    bootstrap,
    bootstrap_differences,
    defined_in_both,
)
from lungseg.evaluation.saved import (
    Key,
    SavedEvaluation,
    calibration_statistics,
    class_statistics,
    image_values,
    pixel_counts,
)
from lungseg.evaluation.segmentation import global_scores
from lungseg.evaluation.statistics import Flags, Floats, Statistic, count_defined, means
from lungseg.evaluation.tables import HEADLINES

TABLE = (
    *((f"{section}/{name}", title) for section, name, title in HEADLINES),
    ("calibration/ece", "Calibration error (ECE), as the network gives it"),
    ("calibration/brier", "Brier score, as the network gives it"),
    ("class_maps/evidence_in_lungs", "Evidence in the lungs before the crop"),
)
"""Name and title of the numbers that are shown; the others stand in the files."""


def compare(
    evaluations: Sequence[SavedEvaluation], shared: bool = False, replicates: int = REPLICATES
) -> dict[str, Any]:
    """Compare evaluations with the first of them.

    Args:
        evaluations: Two or more.
        shared: Take the images that all have where they do not all have the same.
        replicates: Resamples of the bootstrap; the same images are drawn for all runs.

    Returns:
        Plain values: `what`, `runs` (numbers with intervals, by run), `differences` (run minus baseline: `value`,
        `low`, `high`, `p_value`, `undefined`, by `section/name`), `table` (the headlines), `notes`.

    Raises:
        ValueError: Fewer than two runs, other classes, other images and not `shared`, or none in common, or labels that
            contradict each other.
    """
    if len(evaluations) < 2:
        raise UserError(f"RUN: give two runs or more to compare, got {len(evaluations)}")
    named = _named(evaluations)
    kept = _same_images(named, shared)
    first, *others = kept
    content: dict[str, Any] = {
        "what": {
            "images": len(first.rows),
            "bootstraps": replicates,
            "baseline": first.name,
            "classes": first.classes,
            "data": sorted({f"{run.setup.split} of {run.setup.data_name}" for run in named}),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "runs": {run.name: _about(run) for run in named},
        },
        "runs": {run.name: _values(run, replicates) for run in kept},
        "differences": {run.name: _differences(run, first, replicates) for run in others},
    }
    table = _table(content, content["runs"][first.name])
    return {**content, "table": table, "notes": _notes(named, kept)}


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, Scand. J. Statist. 1979), in the order given; NaN stays out of it."""
    values = np.asarray(p_values, np.float64)
    order = [int(index) for index in np.argsort(values) if not np.isnan(values[index])]
    corrected, highest = np.full(len(values), np.nan), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(values[index])))
        corrected[index] = highest
    return [float(value) for value in corrected]


def _named(evaluations: Sequence[SavedEvaluation]) -> list[SavedEvaluation]:
    """The same under names of their own."""
    names: list[str] = []
    for run in evaluations:
        same = sum(name == run.name or name.startswith(f"{run.name} (") for name in names)
        names.append(f"{run.name} ({same + 1})" if same else run.name)
    return [replace(run, name=name) for run, name in zip(evaluations, names, strict=True)]


def _same_images(runs: Sequence[SavedEvaluation], shared: bool) -> list[SavedEvaluation]:
    """Each run on the images that all have, in the order of the first."""
    first, *others = runs
    for run in others:
        if run.classes != first.classes:
            raise UserError(f"{run.folder}: has the classes {run.classes}, {first.folder} has {first.classes}")
    in_all: set[Key] = set.intersection(*(set(run.keys) for run in runs))
    if not shared and any(len(run.rows) != len(in_all) for run in runs):
        counts = ", ".join(f"{run.name} {len(run.rows)}" for run in runs)
        raise UserError(
            f"the runs were not evaluated on the same images ({counts}, in common {len(in_all)}); evaluate them on the "
            "same data, or give --shared to compare on what they have in common"
        )
    if not in_all:
        raise UserError("the runs have no image in common: nothing can be compared; evaluate them on the same data")
    kept = [run.only([key for key in first.keys if key in in_all]) for run in runs]
    _check_labels(kept)
    return kept


def _check_labels(runs: Sequence[SavedEvaluation]) -> None:
    first, *others = runs
    for run in others:
        differ = np.flatnonzero((run.label != first.label) & (run.label >= 0) & (first.label >= 0))
        if len(differ):
            row, other = first.rows[differ[0]], run.rows[differ[0]]
            raise UserError(
                f"{len(differ)} images have another label in {run.name} than in {first.name}, as {row['id']!r}: "
                f"{other['label']!r} and {row['label']!r}; evaluate both with the same data.label_map"
            )


def _values(run: SavedEvaluation, replicates: int) -> dict[str, dict[str, float]]:
    """Every number of a run with its interval."""
    statistics, counts = _statistics(run, image_values(run), _classes(run), run.label >= 0)
    found = bootstrap(statistics, len(run.rows), run.groups, replicates)
    return {
        name: dict(interval._asdict()) | ({"images": counts[name]} if name in counts else {})
        for name, interval in found.items()
        if not np.isnan(interval.value)
    }


def _differences(run: SavedEvaluation, first: SavedEvaluation, replicates: int) -> dict[str, dict[str, float]]:
    """Run minus baseline of what can be compared."""
    pairs = [dict(part) for part in defined_in_both(image_values(run), image_values(first))]
    for part in pairs:
        for name in [name for name in part if name.startswith(_not_comparable(run, first))]:
            del part[name]
    known = (
        ~np.isnan(run.probs).any(axis=1) & ~np.isnan(first.probs).any(axis=1) & (run.label >= 0) & (first.label >= 0)
    )
    groups = _classes(first)
    one, counts = _statistics(run, pairs[0], groups, known)
    other, _ = _statistics(first, pairs[1], groups, known)
    found = bootstrap_differences(one, other, len(first.rows), first.groups, replicates)
    return {
        name: dict(difference._asdict()) | ({"images": counts[name]} if name in counts else {})
        for name, difference in found.items()
        if not np.isnan(difference.value)
    }


def _statistics(
    run: SavedEvaluation, values: dict[str, Floats], groups: dict[str, Flags], known: Flags
) -> tuple[list[Statistic], dict[str, int]]:
    """All scores, named `section/name` as in metrics.json, and how many images are behind those that are means.

    Args:
        run: Whose.
        values: (N,) each, of `image_values`.
        groups: (N,) each true class that has an image.
        known: (N,) images on which the classes are scored.
    """
    found: list[Statistic] = []
    counts: dict[str, int] = {}
    for section in ("segmentation", "class_maps"):
        part = {name: column for name, column in values.items() if (name in MAP_COLUMNS) == (section == "class_maps")}
        found.append(_named_in(section, means(part, groups)))
        counts |= {f"{section}/{name}": count for name, count in count_defined(part, groups).items()}
    for prefix in ("", "infection_"):
        pixels = pixel_counts(run, prefix)
        if pixels is not None:
            found.append(_named_in(f"segmentation/{prefix}", global_scores(pixels)))
    found += [_named_in("classification", statistic) for statistic in class_statistics(run, known)]
    found += [_named_in("calibration", statistic) for statistic in calibration_statistics(run, known)]
    return found, counts


def _named_in(section: str, statistic: Statistic) -> Statistic:
    prefix = section if section.endswith("_") else f"{section.removesuffix('/')}/"
    return lambda weights: {f"{prefix}{name}": value for name, value in statistic(weights).items()}


def _classes(run: SavedEvaluation) -> dict[str, Flags]:
    found: dict[str, Flags] = {name: run.label == index for index, name in enumerate(run.classes)}
    return {name: members for name, members in found.items() if members.any()}


def _not_comparable(run: SavedEvaluation, first: SavedEvaluation) -> tuple[str, ...]:
    """Beginnings of the names of numbers that mean something else in each."""
    names: list[str] = []
    if _size(run) != _size(first):
        names += [f"{prefix}{score}_px" for prefix in ("", "infection_") for score in ("hd95", "asd")]
    if _maps(run) != _maps(first):
        names += MAP_COLUMNS
    return tuple(names)


def _size(run: SavedEvaluation) -> int:
    return int(run.setup.data["image_size"])


def _maps(run: SavedEvaluation) -> tuple[str, str]:
    return run.cam_method, run.setup.map_class


def _about(run: SavedEvaluation) -> dict[str, Any]:
    about = {
        name: getattr(run.setup, name)
        for name in ("checkpoint", "checkpoint_digest", "split", "data_name", "images", "date")
    }
    return about | {"origin": run.setup.data_origin, "image_size": _size(run), "class_maps": run.cam_method}


def _notes(whole: Sequence[SavedEvaluation], kept: Sequence[SavedEvaluation]) -> list[str]:
    """What a reader must know."""
    first, images = kept[0], len(kept[0].rows)
    notes = [f"{len(whole)} runs on the same {images} images; differences are run minus {first.name}"]
    for run in whole:
        if len(run.rows) > images:
            notes.append(f"{run.name}: {len(run.rows) - images} of its {len(run.rows)} images are left out")
        if run.setup.split == "val" and run.setup.data_origin != "other":
            notes.append(f"{run.name}: Val also picked the epoch of its checkpoint, so its numbers flatter")
        if run.setup.data_origin == "changed":
            notes.append(f"{run.name}: images measured here may be among those it learned from")
    for run in kept[1:]:
        if run.setup.checkpoint_digest == first.setup.checkpoint_digest:
            notes.append(f"{run.name} and {first.name} are the same checkpoint")
        if _size(run) != _size(first):
            sizes = f"{_size(run)} and {_size(first)} px"
            notes.append(f"{run.name}: masks are compared at each network's own size ({sizes}): no distances in pixels")
        if _maps(run) != _maps(first):
            notes.append(f"{run.name}: its class maps are of another method or target: they are not compared")
    units = {group for group in first.groups if group is not None}
    return [
        *notes,
        f"paired bootstrap over {'groups' if units else 'images'}; p: two-sided, of no difference; p (Holm): corrected "
        "for the number of rows of the table",
        "intervals and p-values speak of these very networks on other images of this kind; how much another seed of "
        "the same training would move a number is not in them: train several to know",
    ]


def _table(content: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each number of `TABLE` and each run: `name`, `title`, `run`, `baseline`, `own`, `difference`, `p_holm`."""
    rows = [
        {"name": name, "title": title, "run": run, "baseline": baseline[name], "own": content["runs"][run][name]}
        | {"difference": found[name]}
        for name, title in TABLE
        for run, found in content["differences"].items()
        if name in found
    ]
    corrected = holm([row["difference"]["p_value"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]
