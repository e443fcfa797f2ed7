from __future__ import annotations

from lungseg.evaluation.intervals import Number
from lungseg.evaluation.scoreboard import BOARD, NOT_MEASURED, Own, ScoreboardRow, scoreboard


def number(value: float) -> Number:
    return Number(value, value - 0.01, value + 0.01, 0)


def test_published_numbers_stand_as_they_are_in_the_papers() -> None:
    published = {(entry.what, entry.value) for entry in BOARD if isinstance(entry, ScoreboardRow)}
    assert published == {
        ("lung dice, as published", 0.9691),
        ("lung dice, as published", 0.9799),
        ("lung IoU, as published", 0.9611),
        ("accuracy of pixels or of images, the paper leaves open which", 0.9772),
        ("infection dice, as published, probably with two empty masks as 1", 0.8821),
        ("infection IoU, as published, probably with two empty masks as 1", 0.8305),
    }


def test_numbers_of_this_run_come_with_their_interval_and_its_data() -> None:
    board = scoreboard({"dice": number(0.9)}, {"accuracy": number(0.7)}, "test of here, 5 images")
    found = {row.what: row for row in board if row.source == "this run"}
    dice = found["lung dice, mean over images"]
    assert (dice.value, dice.low, dice.high) == (0.9, 0.89, 0.91)
    assert dice.data == "test of here, 5 images" and not dice.published
    assert found["image accuracy of the class"].value == 0.7


def test_what_was_not_measured_says_so_and_why() -> None:
    for row in scoreboard({}, {}, "nothing"):
        if row.published:
            assert row.value is not None and row.data.startswith("COVID-QU-Ex")
        else:
            assert row.value is None and row.data.startswith(f"{NOT_MEASURED}: ")


def test_infection_stands_by_both_conventions_each_with_its_images() -> None:
    numbers = {"infection_dice": Number(0.88, 0.8, 0.9, 0, 9), "infection_dice_infected": Number(0.76, 0.7, 0.8, 0, 5)}
    rows = {row.what: (row.value, row.data) for row in scoreboard(numbers, {}, "test of here, 12 images")}
    infected = rows["infection dice, mean over images with infection"]
    assert infected == (0.76, "test of here, 12 images, 5 of them scored")
    both = rows["infection dice, two empty masks count as 1"]
    assert both == (0.88, "test of here, 12 images, 9 of them scored, 4 of these without infection")
    data = rows["infection dice, as published, probably with two empty masks as 1"][1]
    assert "0.764 over images with infection" in data and (0.764 + 1) / 2 == 0.882


def test_the_accuracy_of_the_paper_shares_its_name_with_no_number_of_this_run() -> None:
    own = {entry.what for entry in BOARD if isinstance(entry, Own)}
    assert "pixel accuracy of the lung mask" in own and "image accuracy of the class" in own
    assert not own & {entry.what for entry in BOARD if isinstance(entry, ScoreboardRow)}
