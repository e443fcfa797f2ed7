"""Temperature and operating points are kept with the checkpoint that they were chosen for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lungseg.runs.calibration import Calibration, read_calibration, write_calibration
from lungseg.runs.run import Run

CLASSES = ("a", "b", "c")
ABOUT = {"split": "val", "data_fingerprint": "f"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.best_checkpoint.parent.mkdir()
    run.best_checkpoint.write_bytes(b"weights")
    return run


def test_what_is_kept_with_the_model_comes_back(run: Run) -> None:
    write_calibration(run, Calibration(1.5, np.array([0.2, np.nan, 0.4])), CLASSES, ABOUT)
    kept = json.loads(run.calibration_file.read_text())
    assert kept["temperature"] == 1.5 and kept["thresholds"] == {"a": 0.2, "b": None, "c": 0.4}
    found, where = read_calibration(run, CLASSES)
    assert found is not None and found.temperature == 1.5 and where == "val of the data of the training"
    assert found.thresholds == pytest.approx([0.2, np.nan, 0.4], nan_ok=True)


def test_class_sets_come_back_and_may_be_lacking(run: Run) -> None:
    least = np.array([0.1, 0.0, 0.35])
    write_calibration(run, Calibration(1.5, np.full(3, 0.5), 0.95, least, 0.8), CLASSES, ABOUT)
    kept = json.loads(run.calibration_file.read_text())["class_sets"]
    assert kept == {"coverage": 0.8, "least_probability": {"a": 0.1, "b": 0.0, "c": 0.35}}
    found, _ = read_calibration(run, CLASSES)
    assert found is not None and found.least is not None
    assert found.least.tolist() == least.tolist() and found.coverage == 0.8
    write_calibration(run, Calibration(1.5, np.full(3, 0.5)), CLASSES, ABOUT)
    found, _ = read_calibration(run, CLASSES)
    assert found is not None and found.least is None


def test_a_temperature_that_could_not_be_fitted_comes_back_as_nan(run: Run) -> None:
    write_calibration(run, Calibration(np.nan, np.full(3, np.nan)), CLASSES, ABOUT)
    found, _ = read_calibration(run, CLASSES)
    assert found is not None and np.isnan(found.temperature)


@pytest.mark.parametrize("sensitivity", [0.8, None])
def test_what_thresholds_were_chosen_for_comes_back_and_all_is_of_one_checkpoint(
    run: Run, sensitivity: float | None
) -> None:
    write_calibration(run, Calibration(1.5, np.array([0.2, 0.3, 0.4]), sensitivity), CLASSES, ABOUT)
    found, _ = read_calibration(run, CLASSES)
    assert found is not None and found.sensitivity == sensitivity
    run.best_checkpoint.write_bytes(b"other weights")
    assert read_calibration(run, CLASSES)[0] is None


def test_where_nothing_is_kept_the_reason_names_the_file(run: Run) -> None:
    found, why = read_calibration(run, CLASSES)
    assert found is None and "calibration.json" in why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *(({"temperature": value}, f"has the temperature {value:g}") for value in (0, -2.5, np.inf)),
        ({"temperature": "warm"}, "cannot be read"),
        ({"temperature": [1]}, "cannot be read"),
        ({"thresholds": 0.5}, "cannot be read"),
        ({"class_sets": {"coverage": 0.9}}, "cannot be read"),
        ({"class_sets": {"coverage": 0.9, "least_probability": {"a": 0, "b": 1, "c": 1.5}}}, "cannot be read"),
        ({"thresholds": {"a": {}}}, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_a_calibration_is_not_used(run: Run, change: dict[str, object] | None, why: str) -> None:
    write_calibration(run, Calibration(1.5, np.array([0.2, 0.3, 0.4])), CLASSES, ABOUT)
    kept = json.loads(run.calibration_file.read_text())
    run.calibration_file.write_text("{" if change is None else json.dumps(kept | change))
    found, reason = read_calibration(run, CLASSES)
    assert found is None and "calibration.json" in reason and why in reason
