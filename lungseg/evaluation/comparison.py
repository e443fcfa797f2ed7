"""Runs against the first of them, on the same images: paired bootstrap differences of every number."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.class_maps import MAP_COLUMNS
from lungseg.evaluation.classification import class_scores, images_by_class, present, ranking_scores, usable
from lungseg.evaluation.intervals import (
    REPLICATES,
    Difference,
    Interval,
    bootstrap,
    bootstrap_differences,
    defined_in_all,
)
from lungseg.evaluation.saved import Key, SavedEvaluation, image_values
from lungseg.evaluation.scoreboard import HEADLINES
from lungseg.evaluation.segmentation import PIXEL_COUNTS, global_scores
from lungseg.evaluation.statistics import Flags, Floats, Statistic, count_defined, means
from lungseg.evaluation.temperature import calibration_scores

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
    """Compare two or more evaluations with the first of them, by a bootstrap that draws the same images for all.

    `shared` takes the images that all have where they do not all have the same.

    Returns:
        Plain values: `what`, `runs` (numbers with intervals, by run), `differences` (run minus baseline: `value`,
        `low`, `high`, `p_value`, `undefined`, by `section/name`), `table` (the headlines), `notes`.

    Raises:
        UserError: Fewer than two runs, other classes, other images and not `shared`, or none in common, or labels that
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
    return {**content, "table": headline_rows(content), "notes": _notes(named, kept)}


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, Scand. J. Statist. 1979), in the order given; NaN stays out of it."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN is sorted to the end
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(len(order), 0, -1)))
    return [float(value) for value in corrected]


def score_statistics(
    run: SavedEvaluation, values: dict[str, Floats], known: Flags
) -> tuple[list[Statistic], dict[str, int]]:
    """All scores, named `section/name` as in metrics.json, and how many images are behind those that are means.

    The values are some of `image_values`; classes are scored on the images (N,) that are `known`.
    """
    statistics: list[Statistic] = []
    counts: dict[str, int] = {}
    groups = present(images_by_class(run.label, run.classes))
    for section in ("segmentation", "class_maps"):
        part = {name: column for name, column in values.items() if (name in MAP_COLUMNS) == (section == "class_maps")}
        statistics.append(_named_in(f"{section}/", means(part, groups)))
        counts |= {f"{section}/{name}": count for name, count in count_defined(part, groups).items()}
    for prefix in ("", "infection_"):
        pixels = {name: run.column(prefix + name) for name in PIXEL_COUNTS}
        if not np.isnan(pixels["pixels_true"]).all():
            statistics.append(_named_in(f"segmentation/{prefix}", global_scores(pixels)))
    label = run.label
    probs, label = run.probs, np.where(known if label.ndim == 1 else known[:, None], label, -1)
    if usable(probs, label).any():
        of_classes = [class_scores(probs, label, run.classes)] if label.ndim == 1 else []
        statistics += [
            *(_named_in("classification/", statistic) for statistic in of_classes),
            _named_in("classification/", ranking_scores(probs, label, run.classes)),
            _named_in("calibration/", calibration_scores(probs, label)),
        ]
    return statistics, counts


def comparable_values(runs: Sequence[SavedEvaluation]) -> list[dict[str, Floats]]:
    """`image_values` of runs on the same images, of what can be compared, NaN in all where one is.

    A distance in pixels is not one across sizes, nor are class maps of another method or target.
    """
    skipped: tuple[str, ...] = ()
    if len({run.image_size for run in runs}) > 1:
        skipped += tuple(f"{prefix}{score}_px" for prefix in ("", "infection_") for score in ("hd95", "asd"))
    if len({_maps(run) for run in runs}) > 1:
        skipped += MAP_COLUMNS
    values = defined_in_all([image_values(run) for run in runs])
    return [{name: column for name, column in each.items() if not name.startswith(skipped)} for each in values]


def headline_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each number of `TABLE` and each run: `name`, `title`, `run`, `baseline`, `own`, `difference`, `p_holm`."""
    runs = content["runs"]
    baseline = runs[content["what"]["baseline"]]
    rows = [
        {"name": name, "title": title, "run": run, "baseline": baseline[name], "own": runs[run][name]}
        | {"difference": differences[name]}
        for name, title in TABLE
        for run, differences in content["differences"].items()
        if name in differences and name in runs[run] and name in baseline
    ]
    corrected = holm([row["difference"]["p_value"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _named(evaluations: Sequence[SavedEvaluation]) -> list[SavedEvaluation]:
    """The same under names of their own."""
    names: list[str] = []
    for run in evaluations:
        # `run` and `run (2)`: two folders may have one name, and one run may be given twice
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
    first, *others = kept = [run.only([key for key in first.keys if key in in_all]) for run in runs]
    for run in others:
        # A label that only one of them has contradicts nothing: classes are compared where both have it.
        if run.label.shape != first.label.shape:
            raise UserError(f"{run.folder}: only one of it and {first.folder} has several classes an image")
        contrary = (run.label != first.label) & (run.label >= 0) & (first.label >= 0)
        differ = np.flatnonzero(contrary.reshape(len(contrary), -1).any(axis=1))
        if len(differ):
            row, other = first.rows[differ[0]], run.rows[differ[0]]
            raise UserError(
                f"{len(differ)} images have another label in {run.name} than in {first.name}, as {row['id']!r}: "
                f"{other['label']!r} and {row['label']!r}; evaluate both with the same data.label_map"
            )
    return kept


def _values(run: SavedEvaluation, replicates: int) -> dict[str, dict[str, float]]:
    """Every number of a run with its interval."""
    statistics, counts = score_statistics(run, image_values(run), usable(run.probs, run.label))
    return _defined(bootstrap(statistics, len(run.rows), run.groups, replicates), counts)


def _differences(run: SavedEvaluation, first: SavedEvaluation, replicates: int) -> dict[str, dict[str, float]]:
    """Run minus baseline of what can be compared."""
    own, baseline = comparable_values([run, first])
    known = usable(run.probs, run.label) & usable(first.probs, first.label)
    # Both by the classes of the baseline: a difference of means over other images would be no paired one.
    told = [name for name in ("label", *(f"true_{each}" for each in run.classes)) if name in first.rows[0]]
    pairs = zip(run.rows, first.rows, strict=True)
    run = replace(run, rows=[row | {name: base[name] for name in told} for row, base in pairs])
    statistics, counts = score_statistics(run, own, known)
    differences = bootstrap_differences(
        statistics, score_statistics(first, baseline, known)[0], len(first.rows), first.groups, replicates
    )
    return _defined(differences, counts)


def _defined(
    numbers: Mapping[str, Interval] | Mapping[str, Difference], counts: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """As plain values, with the number of images behind those that are means."""
    return {
        name: number._asdict() | ({"images": counts[name]} if name in counts else {})
        for name, number in numbers.items()
        if not np.isnan(number.value)
    }


def _named_in(prefix: str, statistic: Statistic) -> Statistic:
    return lambda weights: {f"{prefix}{name}": value for name, value in statistic(weights).items()}


def _maps(run: SavedEvaluation) -> tuple[str, str]:
    return run.cam_method, run.setup.map_class


def _about(run: SavedEvaluation) -> dict[str, Any]:
    names = ("checkpoint", "checkpoint_digest", "split", "data_name", "images", "date")
    about = {name: getattr(run.setup, name) for name in names}
    return about | {"origin": run.setup.data_origin, "image_size": run.image_size, "class_maps": run.cam_method}


def _notes(runs: Sequence[SavedEvaluation], kept: Sequence[SavedEvaluation]) -> list[str]:
    """What a reader must know."""
    first, images = kept[0], len(kept[0].rows)
    notes = [f"{len(runs)} runs on the same {images} images; differences are run minus {first.name}"]
    for run in runs:
        if len(run.rows) > images:
            notes.append(f"{run.name}: {len(run.rows) - images} of its {len(run.rows)} images are left out")
        if run.setup.split == "val" and run.setup.data_origin != "other":
            notes.append(f"{run.name}: Val also picked the epoch of its checkpoint, so its numbers flatter")
        if run.setup.data_origin == "changed":
            notes.append(f"{run.name}: images measured here may be among those it learned from")
    for run in kept[1:]:
        if run.setup.checkpoint_digest == first.setup.checkpoint_digest:
            notes.append(f"{run.name} and {first.name} are the same checkpoint")
        if run.image_size != first.image_size:
            sizes = f"{run.image_size} and {first.image_size} px"
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
