"""An evaluation for W&B: numbers, tables, curves and the confusion matrix; no file name, no picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from lungseg.evaluation.intervals import Number
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.tables import HEADLINES
from lungseg.reporting.report_run import AFTER_TRAINING, Reported, report_run

MOST_POINTS = 200
"""Of a curve: W&B draws no more than a few thousand rows of a table."""
_CURVES = {
    "roc": ("1 - specificity", "sensitivity"),
    "precision_recall": ("sensitivity (recall)", "precision"),
}


def report_training(folder: Path, has_test: bool, loggers: Iterable[Logger] = ()) -> Reported:
    """Make the report of a run that has just been trained, on Test (Val where there is none), and send it to W&B.

    For rank zero alone, after the last collective call: it reads the best checkpoint from the run folder.

    Args:
        folder: Of the run; the report lies in `evaluation/test/report.html`.
        has_test: Whether the data have a Test split.
        loggers: Of the trainer; only W&B's is used.

    Raises:
        ValueError: As of `report_run`.
    """
    reported = report_run(folder, (), "test" if has_test else "val", AFTER_TRAINING)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            send_evaluation(logger.experiment, reported.results)
    return reported


def send_evaluation(run: Any, results: EvaluationResults) -> None:
    """Log an evaluation to a W&B run, all in one step that goes on from the last.

    Args:
        run: What `wandb.init` gave, or stands for it.
        results: What `evaluate` gave.
    """
    import wandb

    prefix = f"evaluation_{results.setup.split}"
    logged: dict[str, Any] = {f"{prefix}/{name}": value for name, value in headline_values(results).items()}
    for name, (columns, rows) in evaluation_tables(results).items():
        logged[f"{prefix}/{name}"] = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    for kind, axes in _CURVES.items():
        curves = getattr(results.curves, kind)
        if curves:
            thinned = {name: (thin(curve.x), thin(curve.y)) for name, curve in curves.items()}
            logged[f"{prefix}/{kind}_curve"] = wandb.plot.line_series(
                xs=[x for x, _ in thinned.values()],
                ys=[y for _, y in thinned.values()],
                keys=list(thinned),
                title=f"{axes[1]} over {axes[0]}",
                xname=axes[0],
            )
    run.log(logged)
    if results.verdict is not None:
        run.summary[f"{prefix}/shortcuts"] = results.verdict.flag


def headline_values(results: EvaluationResults) -> dict[str, float | None]:
    """The numbers of the summary by name, those that are defined."""
    found = {name: results.headline(section, name) for section, name, _ in HEADLINES}
    return {name: number.value for name, number in found.items() if number is not None}


def evaluation_tables(results: EvaluationResults) -> dict[str, tuple[Sequence[str], list[Sequence[Any]]]]:
    """Columns and rows by name: `scores`, `confusion_matrix`, `reliability`, `robustness`, `scoreboard`."""
    classes = results.setup.classes
    sections = {"segmentation": results.segmentation, "classification": results.classification}
    scores = [(section, name, *_ends(n)) for section, numbers in sections.items() for name, n in numbers.items()]
    cells = [
        (true, guess, count)
        for true, row in zip(classes, results.confusion, strict=True)
        for guess, count in zip(classes, row, strict=True)
    ]
    diagram = results.calibration.reliability if results.calibration else []
    board = [(row.what, row.value, row.low, row.high, row.data, row.source) for row in results.scoreboard]
    tables: dict[str, tuple[Sequence[str], list[Sequence[Any]]]] = {
        "scores": (("section", "name", "value", "low", "high"), [*scores]),
        "confusion_matrix": (("true", "predicted", "images"), [*cells]),
        "reliability": (
            ("low", "images", "confidence", "accuracy"),
            [(entry.low, entry.images, entry.confidence, entry.accuracy) for entry in diagram],
        ),
        "robustness": (("perturbation", "strength", "score", "value", "low", "high"), _robustness(results)),
        "scoreboard": (("what", "value", "low", "high", "data", "source"), [*board]),
    }
    return {name: table for name, table in tables.items() if table[1]}


def thin(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of a curve's values, spread evenly, both ends among them."""
    last, most = len(values) - 1, MOST_POINTS
    places = range(len(values)) if last < most else sorted({round(i * last / (most - 1)) for i in range(most)})
    return [values[place] for place in places]


def _robustness(results: EvaluationResults) -> list[Sequence[Any]]:
    curves = results.robustness.curves if results.robustness else {}
    return [
        (name, point.strength, score, *_ends(number))
        for name, curve in curves.items()
        for point in curve.points
        for score, number in point.scores.items()
    ]


def _ends(number: Number) -> tuple[float | None, float | None, float | None]:
    return number.value, number.low, number.high
