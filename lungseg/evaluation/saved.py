"""An evaluation read back from its files: enough of each image to compute every number again, alone or in pairs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import UserError
from lungseg.evaluation.calibration import calibration_scores
from lungseg.evaluation.class_maps import MAP_COLUMNS, map_values
from lungseg.evaluation.classification import class_scores, usable
from lungseg.evaluation.ranking import ranking_scores
from lungseg.evaluation.segmentation import OVERLAP_SCORES, SIDES, SURFACE_SCORES
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic

_BY_SIDE = OVERLAP_SCORES + SURFACE_SCORES
MASK_SCORES = (
    *OVERLAP_SCORES,
    *("pixel_accuracy", *SURFACE_SCORES, "components", "holes"),
    *(f"{score}_{side}" for side in SIDES for score in _BY_SIDE),
)
"""Columns of per_image.csv that are averaged of lung masks, and as `infection_...` of infection masks."""
Key = tuple[str, str]
"""Id of an image and digest of its file: two data sets may give different images the same id."""


@dataclass(frozen=True)
class Stored:
    """The evaluation of a run."""

    name: str
    """Of the run's folder."""
    folder: Path
    what: dict[str, Any]
    """As in metrics.json."""
    way: str
    """Way to the class maps that the rows hold."""
    rows: list[dict[str, str]]
    """Of per_image.csv."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.what["classes"]]

    @property
    def keys(self) -> list[Key]:
        """(N,) which image each row is of."""
        return [(row["id"], row["digest"]) for row in self.rows]

    @property
    def groups(self) -> list[str | None]:
        """(N,) patient or study."""
        return [row["group"] or None for row in self.rows]

    @property
    def label(self) -> Integers:
        """(N,), -1 where unknown."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index.get(row["label"], -1) for row in self.rows], np.int64)

    @property
    def probs(self) -> Floats:
        """(N, C), NaN where the network gave none."""
        return np.stack([self.column(f"prob_{name}") for name in self.classes], axis=1)

    def column(self, name: str) -> Floats:
        """(N,) numbers, NaN where a cell is empty, or everywhere if there is no such column."""
        return np.array([float(row.get(name) or math.nan) for row in self.rows], np.float64)

    def only(self, keys: Sequence[Key]) -> Stored:
        """The same with the rows of these images, in this order."""
        place = {key: index for index, key in enumerate(self.keys)}
        return replace(self, rows=[self.rows[place[key]] for key in keys])


def read_evaluation(run: Path, scope: str) -> Stored:
    """Read what `evaluate` wrote of a run.

    Args:
        run: A run folder, or the folder of one evaluation.
        scope: Which evaluation of a run folder: `test`, `val`, or `NAME-all` and the like of another data set.

    Raises:
        FileNotFoundError: There is no such folder, or nothing was evaluated.
        ValueError: The files are of another version.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such folder; give run folders, or folders that `evaluate` wrote")
    itself = (run / "per_image.csv").is_file()
    folder = run if itself else run / "evaluation" / scope
    for name in ("metrics.json", "per_image.csv"):
        if not (folder / name).is_file():
            there = sorted(path.parent.name for path in run.glob("evaluation/*/per_image.csv"))
            hint = f"--split takes one of {', '.join(there)}; or " if there else ""
            told = "" if scope == "test" else f" data.split={scope}"
            raise FileNotFoundError(
                f"{folder / name}: not there; {hint}run `python -m lungseg.evaluate --checkpoint {run}{told}` first"
            )
    with (folder / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"digest", "group", "label"} <= rows[0].keys():
        raise UserError(f"{folder / 'per_image.csv'}: is of another version of lungseg; evaluate the run again")
    content = json.loads((folder / "metrics.json").read_text())
    named = run.resolve() if not itself or run.resolve().parent.name != "evaluation" else run.resolve().parents[1]
    return Stored(named.name, folder, content["what"], next(iter(content["class_maps"])), rows)


def image_values(stored: Stored) -> dict[str, Floats]:
    """What a mean over images makes sense of, (N,) each: scores of masks and of class maps, by the column's name.

    Infection masks are scored only where there is infection: elsewhere an empty mask scores 1.
    """
    there = set(stored.rows[0])
    infected = stored.column("infection_pixels_true") > 0
    values = {name: stored.column(name) for name in MASK_SCORES if name in there}
    for name in MASK_SCORES:
        if f"infection_{name}" in there:
            values[f"infection_{name}_infected"] = np.where(infected, stored.column(f"infection_{name}"), np.nan)
    maps = [name for name in stored.rows[0] if name in MAP_COLUMNS]
    return {**values, **map_values({name: stored.column(name) for name in maps})}


def pixel_counts(stored: Stored, prefix: str) -> dict[str, NDArray[Any]] | None:
    """`pixels_overlap`, ... (N,) of the lung masks (prefix: none) or `infection_`; None if not measured."""
    names = ("pixels_overlap", "pixels_predicted", "pixels_true")
    found = {name: stored.column(prefix + name) for name in names}
    return None if np.isnan(found["pixels_true"]).all() else found


def class_statistics(stored: Stored, known: Flags) -> list[Statistic]:
    """Scores of the classes over the images (N,) that are known; none if there is none."""
    label = np.where(known, stored.label, -1)
    arguments = stored.probs, label, stored.classes
    return [class_scores(*arguments), ranking_scores(*arguments)] if usable(stored.probs, label).any() else []


def calibration_statistics(stored: Stored, known: Flags) -> list[Statistic]:
    """Errors of calibration of the probabilities as they are, as `class_statistics`."""
    label = np.where(known, stored.label, -1)
    return [calibration_scores(stored.probs, label)] if usable(stored.probs, label).any() else []
