from __future__ import annotations

import csv
from pathlib import Path

from lungseg.runs.metrics_csv import MetricsCsv


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_is_on_disk_at_once(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path / "metrics.csv")
    table.log_metrics({"train/step_loss": 0.5, "epoch": 0}, 3)
    assert _rows(table.path) == [{"epoch": "0", "step": "3", "train/step_loss": "0.5"}]


def test_scalars_of_one_step_share_a_row_and_new_columns_lose_nothing(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path / "metrics.csv")
    table.log_metrics({"a": 1.0, "epoch": 0}, 9)
    table.log_metrics({"b": 2.0, "epoch": 0}, 9)
    table.log_metrics({"a": 3.0, "epoch": 1}, 19)
    table.log_metrics({"b": 4.0, "epoch": 1}, 19)
    table.log_metrics({"b": 5.0, "epoch": 1}, 19)
    assert [(row["epoch"], row["a"], row["b"]) for row in _rows(table.path)] == [
        ("0", "1.0", "2.0"),
        ("1", "3.0", "4.0"),
        ("1", "", "5.0"),
    ]


def test_a_row_that_was_cut_off_is_completed_and_a_whole_one_left_as_it_is(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path / "metrics.csv")
    table.log_metrics({"val": 1.0, "epoch": 0}, 9)
    MetricsCsv(table.path).complete({"epoch": 0, "step": 9, "train": 2.0})
    assert _rows(table.path) == [{"epoch": "0", "step": "9", "val": "1.0", "train": "2.0"}]
    MetricsCsv(table.path).complete({"epoch": 0, "step": 9, "train": 3.0})
    assert _rows(table.path) == [{"epoch": "0", "step": "9", "val": "1.0", "train": "2.0"}]
    MetricsCsv(table.path).complete({"epoch": 1, "step": 19, "train": 4.0})
    assert _rows(table.path)[1:] == [{"epoch": "1", "step": "19", "val": "", "train": "4.0"}]


def test_a_resumed_table_continues_and_forgets_the_epochs_to_be_repeated(tmp_path: Path) -> None:
    table = MetricsCsv(tmp_path / "metrics.csv")
    for epoch in range(3):
        table.log_metrics({"a": float(epoch), "epoch": epoch}, epoch)
    resumed = MetricsCsv(table.path)
    resumed.forget_from(2)
    resumed.log_metrics({"a": 20.0, "epoch": 2}, 2)
    assert [row["a"] for row in _rows(table.path)] == ["0.0", "1.0", "20.0"]
