"""What came of a run, read from its folder and log: the metric, its epochs, or the line that says what went wrong."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

FINISHED = "metrics.json"
"""Written last: a run folder that holds it is complete."""


def final_value(run: Path, metric: str) -> float | None:
    """The metric of a finished run: at its best checkpoint where it is known there, else as last logged.

    None if the run never logged it, or if it is no number.
    """
    path = run / FINISHED
    numbers = json.loads(path.read_text()) if path.is_file() else {}
    values = [float(row[metric]) for row in rows(run) if row.get(metric)]
    value = float(numbers.get(metric, values[-1] if values else math.nan))
    return value if math.isfinite(value) else None


def epochs(run: Path, metric: str) -> int:
    """Epochs after which a run has logged the metric; the row of the test has an epoch of its own."""
    return 1 + max((int(row["epoch"]) for row in rows(run) if row.get("epoch") and row.get(metric)), default=-1)


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`, none if there is no file yet."""
    try:
        with (run / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file, restval=""))
    except FileNotFoundError:
        return []


def last_words(log: Path, code: int) -> str:
    """The line of a log that says why a run failed: its `error:`, else the last one, the end of a traceback."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    how = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    return (errors or lines or [how])[-1] if code >= 0 else f"{how}; last line: {lines[-1] if lines else ''}"


def short(value: Any) -> str:
    """Write a value for people: a float with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
