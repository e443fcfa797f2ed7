"""Means over trainings, and intervals that hold what they say: 95 % over images and trainings both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.errors import UserError
from lungseg.evaluation.results import EvaluationSetup
from lungseg.evaluation.saved import SavedEvaluation
from lungseg.evaluation.study_results import Training, study_results
from lungseg.reporting.study_report import study_csv, study_latex, study_lines, study_markdown
from lungseg.runs.whole_files import without_nan

DICE = "segmentation/dice"
Table = NDArray[np.float64]


def _setup(classes: list[str]) -> EvaluationSetup:
    words: dict[str, Any] = dict.fromkeys(EvaluationSetup.__dataclass_fields__, "")
    return EvaluationSetup(**words | {"split": "val", "classes": classes, "data": {"image_size": 64}, "data_name": "x"})


def _training(name: str, dice: Table, folds: int = 1, predicted: list[str] | None = None) -> Training:
    """One training that gave each image this dice; image i is of fold i % folds."""
    rows = [
        {"id": f"{i:03d}", "digest": "d", "group": "", "label": "", "dice": repr(value), "pixels_true": ""}
        for i, value in enumerate(dice.tolist())
    ]
    for row, label in zip(rows, predicted or [], strict=False):
        row |= {
            "label": "ab"[int(row["id"]) % 2],
            "prob_a": str(float(label == "a")),
            "prob_b": str(float(label == "b")),
        }
    saved = SavedEvaluation(name, Path(name), _setup(["a", "b"] if predicted else []), "", rows)
    return Training(name, saved, {key: i % folds for i, key in enumerate(saved.keys)}, minutes=2.0)


def _study(tables: dict[str, Table], folds: int = 1, **options: int) -> dict[str, Any]:
    """Of variants whose dice is (trainings, images)."""
    named = {name: [_training(f"seed{i}", row, folds) for i, row in enumerate(table)] for name, table in tables.items()}
    return study_results(named, **options)


def _draw(generator: np.random.Generator, seeds: int, images: int, shift: float = 0.0, folds: int = 1) -> Table:
    """Effects of images, of the trainings (one a seed and fold), and of each training on each image."""
    trainings = 0.02 * generator.standard_normal((seeds, folds))
    return (
        0.5
        + shift
        + 0.05 * generator.standard_normal((1, images))
        + trainings[:, np.arange(images) % folds]
        + 0.05 * generator.standard_normal((seeds, images))
    )


def test_value_and_spread_by_hand() -> None:
    table = np.array([[0.8, 0.9, 0.7, 0.8], [0.9, 0.9, 0.8, 0.8]])
    content = _study({"one": table, "two": table - 0.1}, folds=2, replicates=50)
    number = content["runs"]["one"][DICE]
    assert number["value"] == pytest.approx(0.825)
    assert number["seed_sd"] == pytest.approx(np.std([0.8, 0.85], ddof=1))
    # fold 0 holds images 0 and 2: means of the two trainings there 0.75 and 0.85, in fold 1 both 0.85
    assert number["fold_sd"] == pytest.approx(np.std([0.8, 0.85], ddof=1))
    assert number["error_of_trainings"] == pytest.approx(np.sqrt(0.25 * np.var([0.75, 0.85], ddof=1) / 2))
    difference = content["differences"]["two"][DICE]
    assert difference["value"] == pytest.approx(-0.1) and difference["error_of_images"] == pytest.approx(0, abs=1e-12)
    assert difference["error_of_trainings"] == pytest.approx(np.sqrt(2) * number["error_of_trainings"])
    assert content["cost"]["one"] == {"trainings": 2, "minutes": 2.0, "minutes_sd": 0.0}


@pytest.mark.parametrize("folds", [1, 3])
def test_intervals_cover_95_percent_where_images_and_trainings_are_drawn_anew(folds: int) -> None:
    generator, inside, of_difference, narrow = np.random.default_rng(0), 0, 0, 0
    for draw in range(200):
        tables = {name: _draw(generator, 3, 60, folds=folds) for name in ("one", "two")}
        content = _study(tables, folds, replicates=100, seed=draw)
        number, difference = content["runs"]["one"][DICE], content["differences"]["two"][DICE]
        inside += number["low"] <= 0.5 <= number["high"]
        of_difference += difference["low"] <= 0 <= difference["high"]
        narrow += abs(difference["value"]) <= 1.96 * difference["error_of_images"]
    # Binomial: 2.5 standard deviations of 200 draws are 4 %; the method errs to the wide.
    assert min(inside, of_difference) / 200 >= 0.91
    assert narrow / 200 < (0.75 if folds == 1 else 0.9)  # images alone would have promised too much


def test_a_true_difference_is_found_and_its_p_value_corrected() -> None:
    generator = np.random.default_rng(1)
    content = _study({"one": _draw(generator, 4, 200), "two": _draw(generator, 4, 200, shift=0.3)}, replicates=200)
    (row,) = [row for row in content["table"] if row["name"] == DICE]
    assert row["difference"]["low"] > 0 and row["difference"]["p_value"] < 0.01 and row["p_holm"] < 0.01


def test_a_variant_trained_once_says_that_its_interval_counts_images_only() -> None:
    content = _study({"one": np.full((1, 5), 0.5), "two": np.full((2, 5), 0.6)}, replicates=20)
    assert any("one training alone of one:" in note for note in content["notes"])
    assert content["runs"]["one"][DICE]["error_of_trainings"] == 0 and np.isnan(content["runs"]["one"][DICE]["seed_sd"])


def test_an_interval_of_a_share_ends_at_1() -> None:
    content = _study({"one": np.array([[1.0, 0.99, 1.0], [0.9, 1.0, 1.0]])}, replicates=50)
    assert content["runs"]["one"][DICE]["high"] == 1.0 and content["differences"] == {} and content["table"] == []


def test_masks_alone_stand_beside_a_variant_with_classes() -> None:
    dice = np.linspace(0.5, 0.9, 6)
    both = [_training(f"seed{i}", dice, predicted=list("abbbab")) for i in range(2)]
    content = study_results({"both": both, "masks": [_training("seed0", dice)]}, replicates=50)
    assert content["runs"]["both"]["classification/accuracy"]["value"] == pytest.approx(5 / 6)
    assert "classification/accuracy" not in content["runs"]["masks"]
    assert content["differences"]["masks"][DICE]["value"] == pytest.approx(0)


def test_only_common_images_count_and_the_others_are_told() -> None:
    content = study_results(
        {"one": [_training("s", np.full(5, 0.5))], "two": [_training("s", np.full(3, 0.5))]}, replicates=20
    )
    assert content["what"]["images"] == 3 and any(note.startswith("2 images are left out") for note in content["notes"])


def test_without_a_whole_training_there_is_nothing_to_tell() -> None:
    with pytest.raises(UserError, match="no variant has a whole training yet"):
        study_results({})


def test_every_table_has_each_score_of_each_variant() -> None:
    table = np.array([[0.8, 0.9, 0.7], [0.9, 0.9, 0.8]])
    content = _study({"one": table, "t|w_o": table - 0.1}, replicates=50)
    line = "| Lung dice, mean over images | t\\|w_o | 0.7333 [0."
    assert line in study_markdown(content)
    assert r"t|w\_o & 0.7333" in study_latex(content) and "$-$0.1000" in study_latex(content)
    assert any(words.startswith("Lung dice, mean over images  t|w_o") for words in study_lines(content))
    rows = study_csv(content).splitlines()
    assert rows[0].startswith("section,name,variant,value,low,high,error_of_images,error_of_trainings,seed_sd")
    assert sum(row.startswith("segmentation,dice,") for row in rows) == 2


def test_columns_of_pixels_are_not_compared_across_sizes_and_labels_must_agree() -> None:
    dice = np.linspace(0.5, 0.9, 4)
    one, two = (_training(name, dice) for name in ("a", "b"))
    for training, factor in ((one, 1), (two, 2)):
        for place, row in enumerate(training.evaluation.rows):
            row["hd95_px"] = row["hd95_px_image_left"] = str(factor * (place + 1.0))
    two.evaluation.setup.data["image_size"] = 128
    content = study_results({"one": [one], "two": [two]}, replicates=20)
    assert "segmentation/hd95_px_image_left" in content["runs"]["two"] and DICE in content["differences"]["two"]
    assert not any("_px" in name for name in content["differences"]["two"])
    one.evaluation.rows[0]["label"], two.evaluation.rows[0]["label"] = "a", "b"
    with pytest.raises(UserError, match="'000' is 'b', and 'a' in another training; give all variants the same"):
        study_results({"one": [one], "two": [two]}, replicates=20)


def test_what_not_every_training_defines_is_left_out_and_told() -> None:
    good, bad = _training("a", np.linspace(0.5, 0.9, 4)), _training("b", np.full(4, np.nan))
    for row in bad.evaluation.rows:
        row["dice"] = ""
    content = study_results({"one": [good, bad]}, replicates=20)
    assert DICE not in content["runs"]["one"]
    assert any("only 1 of 2 trainings of one define it: left out" in note for note in content["notes"])


def test_where_nothing_varies_a_difference_has_no_p_value() -> None:
    content = _study({"one": np.full((2, 3), 0.5), "two": np.full((2, 3), 0.6)}, replicates=20)
    assert np.isnan(content["differences"]["two"][DICE]["p_value"])
    assert any(line.startswith("Lung dice, mean over images  two") for line in study_lines(without_nan(content)))
