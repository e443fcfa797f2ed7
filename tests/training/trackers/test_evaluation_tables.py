from __future__ import annotations

import dataclasses

from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.evaluation_tables import MOST_POINTS, evaluation_tables, headline_values, thin


def test_tables_hold_every_number_and_leave_out_what_was_not_measured(reported: Reported) -> None:
    results = reported.results
    tables = evaluation_tables(results)
    assert len(tables["scores"][1]) == len(results.segmentation) + len(results.classification)
    assert all(len(row) == len(columns) for columns, rows in tables.values() for row in rows)
    without = dataclasses.replace(results, robustness=None, calibration=None, segmentation={}, classification={})
    assert set(evaluation_tables(without)) == {"confusion_matrix", "scoreboard"}
    assert headline_values(without) == {}


def test_a_curve_is_thinned_with_both_ends_kept() -> None:
    values = [float(number) for number in range(5_001)]
    found = thin(values)
    assert len(found) == MOST_POINTS and (found[0], found[-1]) == (0, 5_000)
    assert thin(values[:MOST_POINTS]) == values[:MOST_POINTS]
