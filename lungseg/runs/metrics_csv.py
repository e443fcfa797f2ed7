"""A Lightning logger that keeps every scalar in one `metrics.csv`, complete at any moment.

Each row is on disk at once; a new column rewrites the file beside itself and renames it. No wall-clock time enters, so
that two equal runs give equal files.
"""

import csv
import io
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lungseg.runs.whole_files import write_whole


class MetricsCsv(Logger):
    """Columns `epoch`, `step`, then one per scalar in order of first appearance; an empty cell was not logged.

    The rows of a file that exists are kept and continued.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._columns = ["epoch", "step"]
        self._last: dict[str, Any] = {}  # the row that was written last, and its bytes in the file
        self._last_bytes = 0
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
        """Append one row, or add to the last one if that is of the same epoch and step and shares no scalar with it."""
        row: dict[str, Any] = {"epoch": "", "step": "" if step is None else step} | metrics
        if row["epoch"] != "":
            row["epoch"] = int(row["epoch"])
        same_place = all(self._last.get(key) == row[key] for key in ("epoch", "step"))
        merged = same_place and len(set(self._last) & set(row)) == 2
        row = self._last | row if merged else row
        new = sorted(set(row) - set(self._columns))
        # A scalar that appears late (the first validation, the test) needs a column: the file is written anew, once.
        if new or not self.path.exists():
            rows = self.rows()[: -1 if merged else None]
            self._columns += new
            self._rewrite([*rows, row])
        else:
            with self.path.open("r+b") as file:
                file.seek(-self._last_bytes if merged else 0, os.SEEK_END)
                file.write(self._lines(row))
        self._last, self._last_bytes = row, len(self._lines(row))

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

    @rank_zero_only
    def complete(self, row: dict[str, Any]) -> None:
        """Add the cells of a row that its epoch and step lack: a run may end between its checkpoint and its row."""
        place = {"epoch": int(row["epoch"]), "step": int(row["step"])}
        rows = [{name: cell for name, cell in known.items() if cell != ""} for known in self.rows()]
        here = [known for known in rows if all(known.get(name) == str(at) for name, at in place.items())]
        missing = {name: value for name, value in row.items() if not any(name in known for known in here)}
        if not missing:
            return
        if here and here[-1] is rows[-1]:
            self._last, self._last_bytes = here[-1] | place, len(self._lines(here[-1]))
        self.log_metrics(missing | {"epoch": place["epoch"]}, place["step"])

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        header = dict(zip(self._columns, self._columns, strict=True))
        write_whole(self.path, self._lines(header, *rows))

    def _lines(self, *rows: dict[str, Any]) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerows(rows)
        return text.getvalue().encode()
