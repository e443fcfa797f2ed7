"""Infected shares by hand: of the patient's lungs, of zones of equal height, and of what is not there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.data.lungs_apart import Sides, part_lungs
from lungseg.data.severity import Severity, severity_of


def _lungs() -> NDArray[np.bool_]:
    """The image's left lung is 30 rows high from row 5 on, the right one 15 from row 40 on; both 10 wide."""
    mask = np.zeros((64, 64), bool)
    mask[5:35, 10:20] = mask[40:55, 40:50] = True
    return mask


def test_left_is_the_patients_and_thirds_are_of_the_height_of_each_lung() -> None:
    infection = np.zeros((64, 64), bool)
    infection[15:25, 10:15] = True  # half the middle zone of the image's left lung
    infection[50:60, 40:50] = True  # the lower zone of the other, and as much below it
    found = severity_of(part_lungs(_lungs()), infection)
    assert found == Severity(
        lungs=(50 + 50) / 450, left=50 / 150, right=50 / 300, upper=0, middle=50 / 150, lower=50 / 150
    )


def test_a_speck_of_a_mask_does_not_stretch_the_zones() -> None:
    infection = np.zeros((64, 64), bool)
    infection[5:15, 10:20] = True  # the upper zone of the image's left lung
    mask = _lungs()
    mask[0, 12] = mask[62, 12] = True
    found = severity_of(part_lungs(mask), infection)
    assert found.upper == pytest.approx(100 / 151) and found.middle == 0
    assert found.lungs == 100 / 452, "it is part of the lungs all the same"


def test_what_is_not_there_has_no_share() -> None:
    nothing, all_of_it = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    assert severity_of(part_lungs(nothing), all_of_it) == Severity(*[None] * 6)
    assert severity_of(Sides(all_of_it, nothing), all_of_it) == Severity(1, None, 1, 1, 1, 1)
    low = np.zeros((8, 8), bool)
    low[3] = True
    assert severity_of(Sides(low, nothing), nothing) == Severity(0, None, 0, 0, None, None)
