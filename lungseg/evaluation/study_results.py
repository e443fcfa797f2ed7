"""Variants of a study against the first of them, from the evaluations of their trainings."""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.comparison import TABLE, headline_rows
from lungseg.evaluation.intervals import scores_of
from lungseg.evaluation.saved import Key, SavedEvaluation
from lungseg.evaluation.statistics import Integers
from lungseg.evaluation.trainings import difference_numbers, mean_numbers, statistics_of

REPLICATES = 2_000  # They give a variance, which needs fewer than the ends of an interval.


@dataclass(frozen=True)
class Training:
    """What a variant was trained to once: with one seed on all folds, each image measured where it was not learned."""

    name: str
    evaluation: SavedEvaluation
    fold: Mapping[Key, int]  # In which each image was measured; 0 without folds.
    minutes: float  # Of all its runs.


def study_results(
    variants: Mapping[str, Sequence[Training]], replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Compare variants with the first of them.

    Args:
        variants: Trainings of each, at least one.
        replicates: Resamples of the images.
        seed: The same seed draws the same resamples.

    Returns:
        Plain values as of `comparison.compare`, of variants in place of runs; those of a variant also have `seed_sd`
        and `fold_sd`. `cost` has for each variant `trainings`, and `minutes` and `minutes_sd` of one.

    Raises:
        UserError: No variant, other classes, or no image in common.
    """
    if not variants or not all(variants.values()):
        raise UserError("study: no variant has a whole training yet (one seed, all folds); run it first")
    keys, left_out = _common(variants)
    trained = {name: [training.evaluation.only(keys) for training in each] for name, each in variants.items()}
    folds = next(iter(variants.values()))[0].fold
    strata = np.array([folds[key] for key in keys], np.int64)
    baseline, *others = variants
    draw = {"replicates": replicates, "seed": seed}
    content: dict[str, Any] = {
        "what": {
            "images": len(keys),
            "bootstraps": replicates,
            "baseline": baseline,
            "classes": trained[baseline][0].classes,
            "data": sorted(
                {f"{run.setup.split} of {run.setup.data_name}" for each in trained.values() for run in each}
            ),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "runs": {name: {"trainings": len(each)} for name, each in trained.items()},
        },
        "runs": {name: mean_numbers(each, strata, **draw) for name, each in trained.items()},
        "differences": {name: difference_numbers(trained[name], trained[baseline], strata, **draw) for name in others},
        "cost": {name: _cost(each) for name, each in variants.items()},
    }
    notes = [*_notes(variants, strata, left_out), *_undefined(trained, content["runs"])]
    return {**content, "table": headline_rows(content), "notes": notes}


def _common(variants: Mapping[str, Sequence[Training]]) -> tuple[list[Key], int]:
    """Images that all trainings were measured on, sorted, and how many others there are."""
    runs = [training.evaluation for each in variants.values() for training in each]
    named = [run for run in runs if run.classes]  # a variant may learn masks alone
    for run in named:
        if run.classes != named[0].classes:
            raise UserError(f"{run.folder}: has the classes {run.classes}, {named[0].folder} has {named[0].classes}")
    labels: dict[Key, str] = {}
    for run in runs:
        for key, row in zip(run.keys, run.rows, strict=True):
            if row["label"] and labels.setdefault(key, row["label"]) != row["label"]:
                raise UserError(
                    f"{run.folder}: {key[0]!r} is {row['label']!r}, and {labels[key]!r} in another training; give all "
                    "variants the same data.label_map and data.multi_label"
                )
    sets = [set(run.keys) for run in runs]
    common = set.intersection(*sets)
    if not common:
        raise UserError("study: the variants were measured on different images, with none in common")
    return sorted(common), len(set.union(*sets)) - len(common)


def _cost(trainings: Sequence[Training]) -> dict[str, float]:
    minutes = np.array([training.minutes for training in trainings])
    sd = float(minutes.std(ddof=1)) if len(minutes) > 1 else math.nan
    return {"trainings": len(minutes), "minutes": float(minutes.mean()), "minutes_sd": sd}


def _undefined(trained: Mapping[str, Sequence[SavedEvaluation]], runs: Mapping[str, Any]) -> list[str]:
    """Scores of the table that not all trainings of a variant define: their mean would be one of fewer."""
    notes = []
    for variant, each in trained.items():
        scores = [scores_of(statistics_of(run), np.ones((1, len(run.rows)))) for run in each]
        for name, title in TABLE:
            defined = sum(name in score and not np.isnan(score[name][0]) for score in scores)
            if name not in runs[variant] and defined:
                notes.append(f"{title}: only {defined} of {len(each)} trainings of {variant} define it: left out")
    return notes


def _notes(variants: Mapping[str, Sequence[Training]], strata: Integers, left_out: int) -> list[str]:
    """What a reader must know."""
    counts = {name: len(each) for name, each in variants.items()}
    folds = len(np.unique(strata))
    baseline = next(iter(variants))
    notes = [f"trainings of each variant: {', '.join(f'{name} {count}' for name, count in counts.items())}"]
    notes[0] += f"; each is {folds} runs, one a fold, and every image is measured by the one that did not learn it" * (
        folds > 1
    )
    notes.append(f"differences are variant minus {baseline}")
    if left_out:
        notes.append(f"{left_out} images are left out, which not all trainings were measured on")
    single = [name for name, count in counts.items() if count == 1]
    if single:
        notes.append(
            f"one training alone of {', '.join(single)}: its intervals count images only, and another seed may move a "
            "number by more than they say; give two seeds or more"
        )
    split = next(iter(variants.values()))[0].evaluation.setup.split
    if split == "val":
        notes.append("the images measured also picked the epoch of each checkpoint, so all numbers flatter a little")
    return [
        *notes,
        "intervals: the mean and Cochran's t times the root of the variance over images (bootstrap) plus that over "
        "trainings (between seeds); p: two-sided, of no difference; p (Holm): corrected for the number of rows",
        "what another collection of training images would change is in no interval, whatever the folds",
    ]
