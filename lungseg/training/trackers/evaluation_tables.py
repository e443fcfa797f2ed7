"""An evaluation as a tracker shows it: headline numbers, tables and curves, without the name of a file or a patient."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungseg.evaluation.intervals import Number
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.scoreboard import HEADLINES
from lungseg.reporting.evaluation_files import read_content, to_float
from lungseg.reporting.formatting import confusion_names
from lungseg.reporting.report_run import Reported

MOST_IMAGES = 10_000  # What W&B shows of a table.
MOST_POINTS = 200  # Of a curve: W&B draws no more than a few thousand rows of a table.
_INTERVAL = ("value", "low", "high")


def headline_values(results: EvaluationResults) -> dict[str, float | None]:
    """The numbers of the summary by name, those that are defined."""
    found = {name: results.headline(section, name) for section, name, _ in HEADLINES}
    return {name: number.value for name, number in found.items() if number is not None}


def evaluation_tables(results: EvaluationResults) -> dict[str, tuple[Sequence[str], list[Sequence[Any]]]]:
    """Columns and rows by name: `scores`, `confusion_matrix`, `reliability`, `robustness`, as far as they have rows."""
    classes = confusion_names(results)
    sections = {"segmentation": results.segmentation, "classification": results.classification}
    scores = [(section, name, *_ends(n)) for section, numbers in sections.items() for name, n in numbers.items()]
    cells = [
        (true, guess, count)
        for true, row in zip(classes, results.confusion, strict=True)
        for guess, count in zip(classes, row, strict=True)
    ]
    cells = cells if sum(map(sum, results.confusion)) else []
    diagram = results.calibration.reliability if results.calibration else []
    tables: dict[str, tuple[Sequence[str], list[Sequence[Any]]]] = {
        "scores": (("section", "name", *_INTERVAL), [*scores]),
        "confusion_matrix": (("true", "predicted", "images"), [*cells]),
        "reliability": (
            ("low", "images", "confidence", "accuracy"),
            [(entry.low, entry.images, entry.confidence, entry.accuracy) for entry in diagram],
        ),
        "robustness": (("perturbation", "strength", "score", *_INTERVAL), _robustness(results)),
    }
    return {name: table for name, table in tables.items() if table[1]}


def image_table(reported: Reported) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Columns and rows of single images: number in the report, truth, prediction, probabilities, dice, evidence.

    The first `MOST_IMAGES`, flagged by `evidence_outside` where the evidence lies mostly outside the lungs. Names of
    files, groups and digests are not among the columns.
    """
    rows = read_content(reported.folder).rows[:MOST_IMAGES]
    there = list(rows[0]) if rows else []
    words = [name for name in ("label", "predicted") if name in there]
    numbers = [name for name in there if name.startswith("prob_")]
    numbers += [name for name in ("dice", "infection_dice", "evidence_in_lungs", "evidence_outside") if name in there]
    table = [
        (number, *(row[name] for name in words), *(to_float(row[name]) for name in numbers))
        for number, row in enumerate(rows)
    ]
    return ("image", *words, *numbers), [*table]


def thin(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of a curve's values, spread evenly, both ends among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int)
    return [values[place] for place in places]


def _robustness(results: EvaluationResults) -> list[Sequence[Any]]:
    curves = results.robustness.curves if results.robustness else {}
    return [
        (name, point.strength, score, *_ends(number))
        for name, curve in curves.items()
        for point in curve.points
        for score, number in point.scores.items()
    ]


def _ends(number: Number) -> Sequence[float | None]:
    return [getattr(number, end) for end in _INTERVAL]
