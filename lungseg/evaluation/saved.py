"""Results as plain values for metrics.json and back, and an evaluation read back from its files.

Of each image enough is kept there to compute every number again.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from lungseg.errors import UserError
from lungseg.evaluation.class_maps import MAP_COLUMNS, map_values
from lungseg.evaluation.infection_scores import SEVERITY_SCORES
from lungseg.evaluation.results import EvaluationResults, EvaluationSetup
from lungseg.evaluation.segmentation import OVERLAP_SCORES, SIDES, SURFACE_SCORES
from lungseg.evaluation.statistics import Floats, Integers
from lungseg.runs.run import METRICS_FILE, ROWS_FILE
from lungseg.runs.whole_files import plain_cell

_BY_SIDE = OVERLAP_SCORES + SURFACE_SCORES
MASK_SCORES = (
    *OVERLAP_SCORES,
    *("pixel_accuracy", *SURFACE_SCORES, "components", "holes"),
    *(f"{score}_{side}" for side in SIDES for score in _BY_SIDE),
)
"""Columns of per_image.csv that are averaged of lung masks, and as `infection_...` of infection masks."""
_KEYS = {"setup": "what", "caveats": "notes", "data_origin": "origin", "map_class": "target"}
"""Keys of metrics.json that are not called as the field is in the code."""
_OMITTED, _EMPTY = {"after", "reliability_after", "images"}, {"calibration", "operating_points"}
"""Fields whose None is no key at all, and fields whose None is an empty object."""
Key = tuple[str, str]  # Id of an image and digest of its file: two data sets may give different images the same id.


@dataclass(frozen=True)
class SavedEvaluation:
    """The evaluation of a run."""

    name: str  # Of the run's folder.
    folder: Path
    setup: EvaluationSetup
    cam_method: str  # Name of the method whose class maps the rows hold; empty of masks alone.
    rows: list[dict[str, str]]  # Of per_image.csv.

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.setup.classes

    @property
    def keys(self) -> list[Key]:
        """(N,) which image each row is of."""
        return [(row["id"], row["digest"]) for row in self.rows]

    @property
    def image_size(self) -> int:
        """Side in pixels at which the network saw the images."""
        return int(self.setup.data["image_size"])

    @property
    def groups(self) -> list[str | None]:
        """(N,) patient or study."""
        return [row["group"] or None for row in self.rows]

    @property
    def label(self) -> Integers:
        """(N,), -1 where unknown; (N, C) 1, 0 or -1 where an image may have several classes."""
        if self.setup.multi_label:
            marks = np.stack([self.column(f"true_{name}") for name in self.classes], axis=1)
            return np.nan_to_num(marks, nan=-1).astype(np.int64)
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index.get(row["label"], -1) for row in self.rows], np.int64)

    @property
    def probs(self) -> Floats:
        """(N, C), NaN where the network gave none."""
        columns = [self.column(f"prob_{name}") for name in self.classes]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.rows), 0))

    def column(self, name: str) -> Floats:
        """(N,) numbers, NaN where a cell is empty, or everywhere if there is no such column."""
        return np.array([float(row.get(name) or math.nan) for row in self.rows], np.float64)

    def only(self, keys: Sequence[Key]) -> SavedEvaluation:
        """The same with the rows of these images, in this order."""
        place = {key: index for index, key in enumerate(self.keys)}
        return replace(self, rows=[self.rows[place[key]] for key in keys])


def to_plain(results: Any) -> dict[str, Any]:
    """Dicts, lists and scalars of a dataclass of `results`, under the keys and in the order of metrics.json."""

    def to_object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        there = [(name, value) for name, value in fields if value is not None or name not in _OMITTED]
        return {_KEYS.get(name, name): {} if value is None and name in _EMPTY else value for name, value in there}

    return dataclasses.asdict(results, dict_factory=to_object)


def from_plain(plain: Any, where: str = "") -> EvaluationResults:
    """The inverse of `to_plain`; keys that no field has are passed over.

    Raises:
        UserError: A key is lacking whose field has no default: the file `where` is of another version.
    """
    results: EvaluationResults = _parse(EvaluationResults, plain, where)
    return results


def _parse(kind: Any, plain: Any, where: str) -> Any:
    """A value of the type `kind`: a scalar, `dict[str, X]`, `list[X]`, `X | None`, or a dataclass of these."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if plain is None else _parse(arguments[0], plain, where)
    if origin is dict:
        return {name: _parse(arguments[1], item, where) for name, item in plain.items()}
    if origin is list:
        return [_parse(arguments[0], item, where) for item in plain]
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return plain
    if not isinstance(plain, Mapping):
        raise UserError(f"{where}: must hold an object, got {type(plain).__name__!r}; evaluate again")
    hints, values = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        key = _KEYS.get(field.name, field.name)
        if key in plain:
            empty = field.name in _EMPTY and not plain[key]
            values[field.name] = None if empty else _parse(hints[field.name], plain[key], where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: {key!r} is lacking, it is of another version of lungseg; evaluate again")
    return kind(**values)


def read_results(folder: Path) -> EvaluationResults:
    """Read the metrics.json of an evaluation's folder.

    Raises:
        FileNotFoundError: It is not there.
        UserError: It is no JSON, or of another version.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; `python -m lungseg.evaluate --checkpoint RUN` writes it")
    try:
        plain = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is no JSON ({error}); evaluate again") from None
    return from_plain(plain, str(path))


def read_evaluation(run: Path, name: str) -> SavedEvaluation:
    """Read what `evaluate` wrote of a run.

    Args:
        run: A run folder, or the folder of one evaluation.
        name: Which evaluation of a run folder: `test`, `val`, or `NAME-all` and the like of another data set.

    Raises:
        FileNotFoundError: There is no such folder, or nothing was evaluated.
        UserError: The files are of another version.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such folder; give run folders, or folders that `evaluate` wrote")
    itself = (run / ROWS_FILE).is_file()
    folder = run if itself else run / "evaluation" / name
    for file_name in (METRICS_FILE, ROWS_FILE):
        if not (folder / file_name).is_file():
            there = sorted(path.parent.name for path in run.glob(f"evaluation/*/{ROWS_FILE}"))
            hint = f"--split takes one of {', '.join(there)}; or " if there else ""
            word = "" if name == "test" else f" data.split={name}"
            raise FileNotFoundError(
                f"{folder / file_name}: not there; {hint}run "
                f"`python -m lungseg.evaluate --checkpoint {run}{word}` first"
            )
    with (folder / ROWS_FILE).open(newline="", encoding="utf-8") as file:
        rows = [{name: plain_cell(cell or "") for name, cell in row.items() if name} for row in csv.DictReader(file)]
    if not rows or not {"digest", "group", "label"} <= rows[0].keys():
        raise UserError(f"{folder / ROWS_FILE}: is of another version of lungseg; evaluate the run again")
    results = read_results(folder)
    # `RUN/evaluation/test` is called as its run: all runs have a folder `test`
    place = run.resolve()
    named = place.parents[1] if itself and place.parent.name == "evaluation" else place
    return SavedEvaluation(named.name, folder, results.setup, next(iter(results.class_maps), ""), rows)


def image_values(saved: SavedEvaluation) -> dict[str, Floats]:
    """What a mean over images makes sense of, (N,) each: scores of masks and of class maps, by the column's name.

    Infection masks are scored only where there is infection: elsewhere an empty mask scores 1. Severity is scored, and
    false infection looked for, wherever it is known what there is.
    """
    there = saved.rows[0]
    infected = saved.column("infection_pixels_true") > 0
    values = {name: saved.column(name) for name in MASK_SCORES if name in there}
    values |= {
        f"infection_{name}_infected": np.where(infected, saved.column(f"infection_{name}"), np.nan)
        for name in MASK_SCORES
        if f"infection_{name}" in there
    }
    values |= {name: saved.column(name) for score in SEVERITY_SCORES if (name := f"infection_{score}") in there}
    maps = {name: saved.column(name) for name in there if name in MAP_COLUMNS}
    return values | (map_values(maps) if maps else {})
