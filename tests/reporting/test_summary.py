from __future__ import annotations

from pathlib import Path

from lungseg.reporting.summary import final_numbers, summary_lines

ROWS = [
    {"epoch": "0", "val/dice": "0.5", "train/loss": "2.0"},
    {"epoch": "1", "val/dice": "0.75", "train/loss": ""},
    {"epoch": "2", "val/dice": "0.25", "train/loss": "1.0"},
    {"epoch": "3", "train/loss": "", "test/dice": "0.5"},  # as Lightning counts the test that follows
]


def test_numbers_are_those_of_the_best_epoch_and_the_test() -> None:
    numbers = final_numbers(ROWS, 1, {"test/dice": 0.5}, minutes=2.0, images_per_second=30.0)
    assert numbers == {
        "fit/best_epoch": 1,
        "fit/epochs": 3,
        "fit/minutes": 2.0,
        "fit/images_per_second": 30.0,
        "val/dice": 0.75,
        "test/dice": 0.5,
    }


def test_table_has_a_column_a_stage_and_says_how_to_sync(tmp_path: Path) -> None:
    numbers = final_numbers(ROWS, 1, {"test/dice": 0.5, "test/accuracy": 1.0}, 2.0, 30.0)
    text = "\n".join(summary_lines(numbers, tmp_path, tmp_path / "wandb" / "offline-run-x"))
    assert "best epoch 1" in text and "   0.7500   0.5000" in text and "        -   1.0000" in text
    assert f"wandb sync {tmp_path}/wandb/offline-run-x" in text
    assert "W&B" not in "\n".join(summary_lines(numbers, tmp_path, None))


def test_without_a_test_split_the_table_has_val_alone(tmp_path: Path) -> None:
    lines = summary_lines(final_numbers(ROWS, 1, {}, 2.0, 30.0), tmp_path, None)
    assert "test" not in lines[1]
