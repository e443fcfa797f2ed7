from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.data.lungs_apart import Sides, count_components, count_holes, part_like, part_lungs
from lungseg.data.phantom.generator import draw_phantom

Mask = NDArray[np.bool_]


def _mask(*rows: str) -> Mask:
    return np.array([[pixel != "." for pixel in row] for row in rows])


TWO = _mask(
    "..............",
    ".####...####..",
    ".####...####..",
    ".####...####..",
    "..............",
)


def test_two_components_are_the_two_lungs_by_their_column() -> None:
    sides = part_lungs(TWO)
    assert np.array_equal(sides.left, TWO & (np.arange(14) < 6)) and np.array_equal(sides.right, TWO & ~sides.left)


def test_lungs_lie_left_and_right_by_centroid_not_by_area_or_height() -> None:
    mask = np.zeros((20, 20), bool)
    mask[0:5, 12:15] = True  # right, higher and smaller
    mask[8:19, 2:8] = True
    sides = part_lungs(mask)
    assert np.array_equal(sides.right, mask & (np.arange(20)[:, None] < 6)) and sides.left.sum() == 66


def test_a_speck_goes_to_the_nearer_lung() -> None:
    mask = np.pad(TWO, ((0, 2), (0, 0)))
    mask[6, 2] = mask[6, 10] = True
    sides = part_lungs(mask)
    assert sides.left[6, 2] and sides.right[6, 10]
    assert sides.left.sum() == 13 and sides.right.sum() == 13


def test_touching_lungs_are_cut_at_the_column_of_the_centroid() -> None:
    mask = _mask(".####..####.", ".##########.", ".####..####.")
    sides = part_lungs(mask)
    assert np.array_equal(sides.left, mask & (np.arange(12) <= 5)) and sides.right.sum() == sides.left.sum()


def test_a_pixel_on_the_column_of_the_centroid_goes_to_the_left() -> None:
    sides = part_lungs(np.ones((3, 5), bool))
    assert sides.left.sum() == 9 and sides.right.sum() == 6


@pytest.mark.parametrize("side", [0, 1])
def test_one_lung_alone_is_not_cut(side: int) -> None:
    alone = TWO & ((np.arange(14) < 6) ^ bool(side))
    sides = part_lungs(alone)
    assert np.array_equal(sides[side], alone) and not sides[1 - side].any()


def test_an_empty_mask_has_two_empty_sides() -> None:
    sides = part_lungs(np.zeros((4, 4), bool))
    assert not sides.left.any() and not sides.right.any()


@pytest.mark.parametrize("seed", range(5))
def test_sides_are_the_mask_and_share_no_pixel(seed: int) -> None:
    lung = draw_phantom(seed, 0, 64).lung
    for mask in (lung, np.roll(lung, 5, axis=1), np.random.default_rng(seed).random((64, 64)) > 0.5):
        for sides in (part_lungs(mask), part_like(mask, part_lungs(lung))):
            assert np.array_equal(sides.left | sides.right, mask) and not (sides.left & sides.right).any()


@pytest.mark.parametrize("seed", range(5))
def test_a_phantom_and_its_mirror_image_have_their_lungs_changed_over(seed: int) -> None:
    lung = draw_phantom(seed, 0, 64).lung
    assert count_components(lung) == 2
    sides, mirrored = part_lungs(lung), part_lungs(lung[:, ::-1])
    assert np.array_equal(sides.left[:, ::-1], mirrored.right) and sides.left.any() and sides.right.any()


def test_a_prediction_is_parted_as_the_true_lungs_lie() -> None:
    merged = np.zeros_like(TWO)
    merged[1:4, 1:12] = True
    sides = part_like(merged, part_lungs(TWO))
    assert sides.left[2, :7].sum() == 6 and sides.right[2].sum() == 5  # column 6 is as near to both: left
    missed = TWO & (np.arange(14) < 6)
    assert not part_like(missed, part_lungs(TWO)).right.any()


def test_without_two_true_lungs_a_prediction_is_parted_by_itself() -> None:
    alone = TWO & (np.arange(14) < 6)
    for truth in (part_lungs(alone), Sides(np.zeros_like(TWO), np.zeros_like(TWO))):
        sides = part_like(TWO, truth)
        assert np.array_equal(sides.left, alone) and np.array_equal(sides.right, TWO & ~alone)


def test_pieces_touch_by_corners_and_holes_do_not_leak_through_them() -> None:
    ring = _mask(
        "......",
        "..##..",
        ".#..#.",
        ".#..#.",
        "..##..",
        "......",
    )
    assert (count_components(ring), count_holes(ring)) == (1, 1)
    open_ring = ring.copy()
    open_ring[1, 2:4] = False
    assert (count_components(open_ring), count_holes(open_ring)) == (1, 0)


def test_a_hole_reaches_no_border() -> None:
    mask = np.ones((7, 7), bool)
    assert (count_components(mask), count_holes(mask)) == (1, 0)
    mask[0, 2] = mask[3, 3] = mask[5, 5] = False
    assert (count_components(mask), count_holes(mask)) == (1, 2)
    empty = np.zeros((5, 5), bool)
    assert (count_components(empty), count_holes(empty)) == (0, 0)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_counts_equal_scipys(share: float) -> None:
    from scipy.ndimage import binary_fill_holes, label

    mask = np.random.default_rng(0).random((40, 40)) < share
    assert count_components(mask) == label(mask, np.ones((3, 3)))[1]
    assert count_holes(mask) == label(binary_fill_holes(mask) & ~mask)[1]


def test_a_pixel_as_near_to_both_lungs_goes_left_every_time() -> None:
    mask = np.zeros((61, 41), bool)
    mask[11:50:13, 4:11] = True
    lungs = Sides(mask, mask[:, ::-1].copy())  # the middle column is as far from one as from the other
    for _ in range(30):
        sides = part_like(np.ones_like(mask), lungs)
        assert sides.left[:, :21].all() and sides.right[:, 21:].all()
