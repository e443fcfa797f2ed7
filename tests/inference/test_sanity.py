"""Flags of a mask that does not look like two lungs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.inference.sanity import check


def _mask(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((100, 100), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("boxes", "names"),
    [
        ([(20, 80, 10, 40), (20, 80, 60, 90)], []),
        ([], ["no_lungs"]),
        ([(0, 7, 0, 7)], ["no_lungs"]),
        ([(20, 80, 10, 40)], ["one_lung"]),
        ([(20, 80, 10, 40), (20, 24, 60, 90)], ["one_lung"]),
        ([(40, 50, 10, 25), (40, 50, 60, 75)], ["lung_area"]),
        ([(0, 100, 0, 45), (0, 100, 55, 100)], ["lung_area"]),
    ],
)
def test_mask_is_flagged_by_what_is_wrong_with_it(boxes: list[tuple[int, int, int, int]], names: list[str]) -> None:
    assert [flag.name for flag in check(np.zeros((100, 100), np.uint8), _mask(*boxes))] == names


def test_a_reason_says_the_number() -> None:
    (flag,) = check(np.zeros((100, 100), np.uint8), _mask((40, 50, 10, 25), (40, 50, 60, 75)))
    assert flag.value == 0.03
    assert flag.reason == "the lungs cover 3.0% of the image, usual are 5% to 60%"
