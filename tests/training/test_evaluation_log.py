from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lungseg.evaluation.plain_data import to_plain
from lungseg.evaluation.results import EvaluationResults
from lungseg.reporting.report_run import AFTER_TRAINING
from lungseg.training.evaluation_log import (
    MOST_POINTS,
    evaluation_tables,
    headline_values,
    report_training,
    send_evaluation,
    thin,
)


class Recorder:
    """Stands for a W&B run."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


@pytest.fixture(scope="module")
def reported(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationResults]:
    run = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(untrained, run)
    with pytest.MonkeyPatch.context() as patch:
        small = {"faithfulness": 0, "robustness": 3, "bootstraps": 20, "shortcut_images": 3}
        patch.setattr("lungseg.training.evaluation_log.AFTER_TRAINING", type(AFTER_TRAINING)(**small))
        return run, report_training(run, has_test=True).results


def test_a_trained_run_gets_its_report_on_test(reported: tuple[Path, EvaluationResults]) -> None:
    run, results = reported
    folder = run / "evaluation" / "test"
    assert (folder / "report.html").is_file() and (folder / "table.tex").is_file()
    assert json.loads((folder / "metrics.json").read_text())["what"] == to_plain(results.setup)
    assert results.shortcuts is not None and results.robustness is not None
    assert results.shortcuts.images == results.robustness.images == 3


def test_wandb_gets_numbers_tables_and_curves_but_no_names_of_files(reported: tuple[Path, EvaluationResults]) -> None:
    import wandb

    run, results = reported
    recorder = Recorder()
    send_evaluation(recorder, results)
    assert len(recorder.logged) == 1, "one step"
    logged = recorder.logged[0]
    assert logged["evaluation_test/dice"] == results.segmentation["dice"].value
    matrix = logged["evaluation_test/confusion_matrix"]
    assert isinstance(matrix, wandb.Table)
    assert [row[2] for row in matrix.data] == [count for row in results.confusion for count in row]
    assert {"evaluation_test/roc_curve", "evaluation_test/precision_recall_curve"} <= logged.keys()
    assert recorder.summary == {"evaluation_test/shortcuts": results.verdict.flag if results.verdict else None}
    said = repr([table.data for table in logged.values() if isinstance(table, wandb.Table)])
    assert str(run) not in said and ".png" not in said


def test_tables_hold_every_number_and_leave_out_what_was_not_measured(reported: tuple[Path, EvaluationResults]) -> None:
    results = reported[1]
    tables = evaluation_tables(results)
    assert len(tables["scores"][1]) == len(results.segmentation) + len(results.classification)
    assert all(len(row) == len(columns) for columns, rows in tables.values() for row in rows)
    without = replace(results, robustness=None, calibration=None, segmentation={}, classification={})
    assert set(evaluation_tables(without)) == {"confusion_matrix", "scoreboard"}
    assert headline_values(without) == {}


def test_a_curve_is_thinned_with_both_ends_kept() -> None:
    values = [float(number) for number in range(5_001)]
    found = thin(values)
    assert len(found) == MOST_POINTS and (found[0], found[-1]) == (0, 5_000)
    assert thin(values[:MOST_POINTS]) == values[:MOST_POINTS]
