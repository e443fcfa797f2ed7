from __future__ import annotations

import numpy as np
import pytest

from lungseg.evaluation.lungs_apart import Sides
from lungseg.inference.input_checks.midline import find_midline


def _lung(rows: slice, columns: slice) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((10, 10), bool)
    mask[rows, columns] = True
    return mask


def test_width_and_contrast_are_those_computed_by_hand() -> None:
    image = np.full((10, 10), 50, np.uint8)
    image[:, 4:6] = 200
    sides = Sides(_lung(slice(2, 8), slice(1, 4)), _lung(slice(4, 10), slice(6, 9)))
    found = find_midline(image, sides)
    assert found is not None
    assert found.width == pytest.approx(2 / 8)
    assert found.contrast == pytest.approx(0.9 - 0.4)  # middle ranks of 20 bright and 80 dark pixels


def test_lungs_that_touch_have_no_width_between_them() -> None:
    sides = Sides(_lung(slice(2, 8), slice(1, 5)), _lung(slice(2, 8), slice(5, 9)))
    assert find_midline(np.zeros((10, 10), np.uint8), sides) == (0.0, 0.0)


def test_no_row_with_both_lungs_gives_nothing() -> None:
    sides = Sides(_lung(slice(0, 4), slice(1, 5)), _lung(slice(5, 9), slice(5, 9)))
    assert find_midline(np.zeros((10, 10), np.uint8), sides) is None
