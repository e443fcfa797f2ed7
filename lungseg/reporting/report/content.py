"""What a report is made from: metrics.json, per_image.csv and images/ of an evaluation. Whatever lacks is empty."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.errors import UserError
from lungseg.reporting.report.pictures import read_pictures

Number = Mapping[str, Any]
"""`value`, `low`, `high`, each a float or None, and what else is known of a number."""


@dataclass(frozen=True)
class Content:
    """The files of one evaluation."""

    metrics: Mapping[str, Any]
    rows: list[dict[str, str]]
    """Of per_image.csv, empty cells as empty text."""
    pictures: Mapping[int, Mapping[str, Any]]
    """`read_pictures`."""

    def section(self, *names: str) -> Mapping[str, Any]:
        """A part of metrics.json by the names on the way to it; empty where it is not there or null."""
        found: Any = self.metrics
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def number(self, section: str, name: str) -> Number | None:
        """A number that has a value."""
        found = self.section(section).get(name)
        return found if isinstance(found, Mapping) and found.get("value") is not None else None

    @property
    def what(self) -> Mapping[str, Any]:
        """What was evaluated."""
        return self.section("what")

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.what.get("classes") or []]

    @property
    def images(self) -> int:
        """Images evaluated."""
        return int(self.what.get("images") or len(self.rows))

    @property
    def first_map(self) -> Mapping[str, Any]:
        """The section of the first way to class maps, the one that per_image.csv and the pictures show."""
        return self.section("class_maps", *list(self.section("class_maps"))[:1])

    def column(self, name: str, of_class: str | None = None) -> list[float]:
        """The known values of a column of per_image.csv, of all images or of those of a true class."""
        rows = [row for row in self.rows if of_class is None or row.get("label") == of_class]
        return [value for row in rows if (value := to_float(row.get(name))) is not None]


def load_content(folder: Path) -> Content:
    """Read the files of an evaluation.

    Raises:
        FileNotFoundError: No metrics.json.
        ValueError: It is not what `evaluate` writes.
    """
    path, table = folder / "metrics.json", folder / "per_image.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; `python -m lungseg.evaluate --checkpoint RUN` writes it")
    try:
        metrics = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is no JSON ({error}); evaluate again") from None
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: must hold an object, got {type(metrics).__name__!r}; evaluate again")
    rows = []
    if table.is_file():
        with table.open(newline="") as file:
            rows = [{name: cell or "" for name, cell in row.items() if name} for row in csv.DictReader(file)]
    return Content(metrics, rows, read_pictures(folder))


def to_float(text: Any) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
