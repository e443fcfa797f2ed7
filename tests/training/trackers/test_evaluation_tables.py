from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.evaluation_tables import (
    MOST_POINTS,
    evaluation_tables,
    headline_values,
    image_table,
    thin,
)


def test_tables_hold_every_number_and_leave_out_what_was_not_measured(reported: Reported) -> None:
    results = reported.results
    tables = evaluation_tables(results)
    assert len(tables["scores"][1]) == len(results.segmentation) + len(results.classification)
    assert all(len(row) == len(columns) for columns, rows in tables.values() for row in rows)
    without = dataclasses.replace(results, robustness=None, calibration=None, segmentation={}, classification={})
    assert set(evaluation_tables(without)) == {"confusion_matrix"}
    assert headline_values(without) == {}


def test_images_go_by_number_with_truth_and_prediction_and_without_names(reported: Reported) -> None:
    columns, rows = image_table(reported)
    classes = ["COVID-19", "Non-COVID", "Normal"]
    probs = [f"prob_{name}" for name in classes]
    assert columns == ("image", "label", "predicted", *probs, "dice", "evidence_in_lungs", "evidence_outside")
    assert [row[0] for row in rows] == list(range(6)) and {row[1] for row in rows} == set(classes)
    for row in rows:
        assert sum(row[3:6]) == pytest.approx(1) and row[2] == classes[int(np.argmax(row[3:6]))]
    assert all(row[8] == (row[7] < 0.5) for row in rows), "flagged where the evidence lies mostly outside"
    dice = reported.results.segmentation["dice"].value
    assert np.mean([row[6] for row in rows]) == pytest.approx(dice)


def test_a_curve_is_thinned_with_both_ends_kept() -> None:
    values = [float(number) for number in range(5_001)]
    found = thin(values)
    assert len(found) == MOST_POINTS and (found[0], found[-1]) == (0, 5_000)
    assert thin(values[:MOST_POINTS]) == values[:MOST_POINTS]
