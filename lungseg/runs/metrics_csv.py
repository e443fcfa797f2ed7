"""A Lightning logger that keeps every scalar in one `metrics.csv`, complete at any moment.

Each row is on disk at once; a new column rewrites the file beside itself and renames it. No wall-clock time enters, so
that two equal runs give equal files.
"""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsCsv(Logger):
    """Columns `epoch`, `step`, then one per scalar in order of first appearance; an empty cell was not logged.

    Args:
        path: File to write; if it exists, its rows are kept and continued.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._columns = ["epoch", "step"]
        self._last: tuple[int, dict[str, Any]] | None = None  # where the last row begins, and the row
        if path.exists():
            with path.open(newline="") as file:
                self._columns = next(csv.reader(file), self._columns)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics_csv"

    @property
    def version(self) -> str:
        """One file, one version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row."""
        row: dict[str, Any] = {"epoch": "", "step": "" if step is None else step} | metrics
        if row["epoch"] != "":
            row["epoch"] = int(row["epoch"])
        new = sorted(set(row) - set(self._columns))
        # A scalar that appears late (the first validation, the test) needs a column: the file is written anew, once.
        if new or not self.path.exists():
            self._columns += new
            self._rewrite(self.rows())
            self._last = self._find_last()
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        """Write a row, over the last one if that is of the same epoch and step and shares no scalar with it."""
        start = self.path.stat().st_size
        if self._last is not None:
            offset, last = self._last
            if all(last[key] == row[key] for key in ("epoch", "step")) and len(set(last) & set(row)) == 2:
                start, row = offset, last | row
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerow(row)
        with self.path.open("r+", newline="") as file:
            file.seek(start)
            file.write(text.getvalue())
        self._last = start, row

    def _find_last(self) -> tuple[int, dict[str, Any]] | None:
        """The last row as it now stands in the file, after a rewrite moved it."""
        if self._last is None:
            return None
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerow(self._last[1])
        return self.path.stat().st_size - len(text.getvalue().encode()), self._last[1]

    def rows(self) -> list[dict[str, str]]:
        """All rows so far, as text."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))

    @rank_zero_only
    def forget_from(self, epoch: int) -> None:
        """Drop the rows of this epoch and later ones: a resumed run writes them again."""
        if self.path.exists():
            self._rewrite([row for row in self.rows() if row["epoch"] and int(row["epoch"]) < epoch])

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".csv.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)
