from __future__ import annotations

import numpy as np
import pytest

from lungseg.evaluation.statistics import count_defined, divide, mean_defined, means, score_set

VALUES = {"dice": np.array([0.5, np.nan, 1.0, 0.0]), "hit": np.array([True, False, True, True])}
GROUPS = {"a": np.array([True, True, False, False]), "none": np.zeros(4, bool)}


def test_means_are_those_of_the_images_where_a_value_is_defined() -> None:
    found = score_set(means(VALUES, GROUPS), 4)
    assert found["dice"] == 0.5 and found["hit"] == 0.75
    assert found["dice_a"] == 0.5 and found["hit_a"] == 0.5
    assert np.isnan(found["dice_none"]) and np.isnan(found["hit_none"])
    assert list(found) == ["dice", "hit", "dice_a", "dice_none", "hit_a", "hit_none"]


def test_a_weight_counts_an_image_that_often() -> None:
    weights = np.array([[2.0, 1, 0, 1], [0, 4, 0, 0]])
    found = means(VALUES)(weights)
    assert found["dice"][0] == pytest.approx(1 / 3) and np.isnan(found["dice"][1])
    assert found["hit"].tolist() == [0.75, 0]


def test_count_defined_names_the_images_behind_each_mean() -> None:
    assert count_defined(VALUES, GROUPS) == {
        **{"dice": 3, "hit": 4, "dice_a": 1, "dice_none": 0},
        **{"hit_a": 2, "hit_none": 0},
    }


def test_no_values_have_no_means() -> None:
    assert means({})(np.ones((3, 5))) == {}


@pytest.mark.filterwarnings("error")
def test_division_by_zero_is_undefined_without_a_warning() -> None:
    assert np.array_equal(divide(np.array([1.0, 0, 2]), np.array([2.0, 0, 0])), [0.5, np.nan, np.nan], equal_nan=True)
    rows = np.array([[1.0, np.nan, 3], [np.nan, np.nan, np.nan]])
    assert np.array_equal(mean_defined(rows), [2, np.nan], equal_nan=True)
