from __future__ import annotations

from pathlib import Path

from lungseg.reporting.summary import final_numbers, summary_lines

ROWS = [
    {"epoch": "0", "val/dice": "0.5", "train/loss": "2.0"},
    {"epoch": "1", "val/dice": "0.75", "train/loss": ""},
    {"epoch": "2", "val/dice": "0.25", "train/loss": "1.0"},
    {"epoch": "3", "train/loss": "", "test/dice": "0.5"},  # as Lightning counts the test that follows
]

SPEED = {"images_per_second": 30.0, "share_waiting": 0.25, "share_validating": 0.125, "share_drawing": 0.0625}


def test_numbers_are_those_of_the_best_epoch_and_the_test() -> None:
    numbers = final_numbers(ROWS, 1, {"test/dice": 0.5}, minutes=2.0, speed=SPEED)
    assert numbers == {
        "fit/best_epoch": 1,
        "fit/epochs": 3,
        "fit/minutes": 2.0,
        "fit/images_per_second": 30.0,
        "fit/share_waiting": 0.25,
        "fit/share_validating": 0.125,
        "fit/share_drawing": 0.0625,
        "val/dice": 0.75,
        "test/dice": 0.5,
    }


def test_table_has_a_column_a_stage_and_says_how_to_sync(tmp_path: Path) -> None:
    numbers = final_numbers(ROWS, 1, {"test/dice": 0.5, "test/accuracy": 1.0}, 2.0, SPEED)
    text = "\n".join(summary_lines(numbers, tmp_path, tmp_path / "wandb" / "offline-run-x"))
    assert "best epoch 1" in text and "   0.7500   0.5000" in text and "        -   1.0000" in text
    assert f"wandb sync {tmp_path}/wandb/offline-run-x" in text
    assert "W&B" not in "\n".join(summary_lines(numbers, tmp_path, None))


def test_without_a_test_split_the_table_has_val_alone(tmp_path: Path) -> None:
    lines = summary_lines(final_numbers(ROWS, 1, {}, 2.0, SPEED), tmp_path, None)
    assert "test" not in lines[1]


def test_one_line_says_where_the_time_of_fit_went_if_anything_was_trained(tmp_path: Path) -> None:
    lines = summary_lines(final_numbers(ROWS, 1, {}, 2.0, SPEED), tmp_path, None)
    assert "2.0 minutes, 30 training images/s" in lines
    shares = "25.0% waiting for training data, 12.5% validating, 6.2% drawing overlays"
    assert f"fit's time  {shares}; the rest is training and saving" in lines
    assert "waiting" not in "\n".join(summary_lines(final_numbers(ROWS, 1, {}, 2.0, {}), tmp_path, None))
