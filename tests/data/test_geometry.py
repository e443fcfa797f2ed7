"""The letterbox: where every pixel goes, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.data.geometry import Letterbox


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def ellipse(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y + 0.5) / shape[0] - 0.45) ** 2 / 0.09 + ((x + 0.5) / shape[1] - 0.55) ** 2 / 0.06 < 1


@pytest.mark.parametrize(
    ("shape", "size_px", "content", "top", "left"),
    [
        ((64, 64), 64, (64, 64), 0, 0),
        ((100, 200), 64, (32, 64), 16, 0),  # landscape
        ((200, 100), 64, (64, 32), 0, 16),  # portrait
        ((61, 64), 64, (61, 64), 1, 0),  # 3 rows to share: 1 above, 2 below
        ((3, 2), 5, (5, 3), 0, 1),  # 2 * 5 / 3 = 3.33
        ((1, 1000), 64, (1, 64), 31, 0),  # never thinner than a pixel
        ((31, 47), 64, (42, 64), 11, 0),  # 31 * 64 / 47 = 42.2
        ((2, 4), 5, (3, 5), 1, 0),  # 2.5 rounds up
    ],
)
def test_content_and_bars(shape: tuple[int, int], size_px: int, content: tuple[int, int], top: int, left: int) -> None:
    box = Letterbox.of(shape, size_px)
    assert (box.content, box.top, box.left) == (content, top, left)


def test_without_keep_aspect_there_are_no_bars() -> None:
    box = Letterbox.of((30, 90), 64, keep_aspect=False)
    assert (box.content, box.top, box.left) == ((64, 64), 0, 0)
    assert box.apply(np.full((30, 90), 7, dtype=np.uint8)).min() == 7


def test_shrinking_averages_areas_and_bars_are_black() -> None:
    image = np.array([[10, 20, 100, 120], [30, 40, 140, 160]], dtype=np.uint8)
    expected = [[25, 130], [0, 0]]  # means of 2x2; the odd bar row lies below
    np.testing.assert_array_equal(Letterbox.of((2, 4), 2).apply(image), expected)


def test_growing_interpolates_between_pixel_centres() -> None:
    image = np.array([[0, 100]], dtype=np.uint8)
    expected = [[0, 0, 0, 0], [0, 25, 75, 100], [0, 25, 75, 100], [0, 0, 0, 0]]
    np.testing.assert_array_equal(Letterbox.of((1, 2), 4).apply(image), expected)


def test_stretching_shrinks_one_axis_by_area_and_grows_the_other() -> None:
    image = np.array([[0, 40, 80, 120]], dtype=np.uint8)
    expected = [[20, 100], [20, 100]]
    np.testing.assert_array_equal(Letterbox.of((1, 4), 2, keep_aspect=False).apply(image), expected)


def test_an_image_that_fits_is_not_copied() -> None:
    image, mask = np.zeros((64, 64), dtype=np.uint8), np.zeros((64, 64), dtype=bool)
    box = Letterbox.of((64, 64), 64)
    assert box.apply(image) is image
    assert box.apply_mask(mask) is mask
    assert np.shares_memory(box.invert_mask(mask), mask)


def test_a_block_lands_where_the_numbers_say_and_comes_back() -> None:
    box = Letterbox.of((100, 200), 50)  # scale 1/4, content 25x50 from row 12
    image = np.zeros((100, 200), dtype=np.uint8)
    image[40:48, 120:132] = 255
    square = box.apply(image)
    assert np.argwhere(square).min(axis=0).tolist() == [22, 30]  # 12 + 40 / 4, 120 / 4
    assert np.argwhere(square).max(axis=0).tolist() == [23, 32]
    missing = np.argwhere(box.invert_mask(square > 0) != (image > 0))
    assert missing.tolist() == [[40, 120], [40, 131], [47, 120], [47, 131]]  # bilinear rounds the four corners off


def test_a_point_of_a_map_returns_to_its_pixel() -> None:
    box = Letterbox.of((32, 24), 64)  # scale 2, content 64x48 from column 8
    values = np.zeros((64, 64), dtype=np.float32)
    values[20:22, 18:20] = 1.0
    back = box.invert_map(values)
    assert back.dtype == np.float32
    assert np.argwhere(back).tolist() == [[10, 5]]  # 20 / 2, (18 - 8) / 2
    assert back[10, 5] == 1.0


def test_a_map_grows_bilinearly_without_its_bars() -> None:
    box = Letterbox.of((4, 8), 4)  # content 2x4 from row 1
    values = np.array([[9, 9, 9, 9], [0, 1, 2, 3], [0, 1, 2, 3], [9, 9, 9, 9]], dtype=np.float32)
    expected = np.tile([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], (4, 1))
    np.testing.assert_allclose(box.invert_map(values), expected)


@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("shape", [(256, 256), (299, 299), (301, 203), (157, 255), (64, 63), (40, 33)])
def test_a_smooth_mask_survives_the_round_trip(shape: tuple[int, int], keep_aspect: bool) -> None:
    box, mask = Letterbox.of(shape, 128, keep_aspect), ellipse(shape)
    back = box.invert_mask(box.apply_mask(mask))
    assert back.shape == shape
    assert dice(back, mask) > 0.98


@pytest.mark.parametrize("shape", [(61, 64), (64, 63), (127, 128)])
def test_without_scaling_the_round_trip_is_exact(shape: tuple[int, int]) -> None:
    box = Letterbox.of(shape, max(shape))
    mask = np.random.default_rng(0).random(shape) > 0.5
    np.testing.assert_array_equal(box.invert_mask(box.apply_mask(mask)), mask)


def test_image_and_mask_stay_aligned() -> None:
    box, mask = Letterbox.of((157, 255), 64), ellipse((157, 255))
    image = box.apply((mask * 255).astype(np.uint8))
    np.testing.assert_array_equal(image > 127, box.apply_mask(mask))


def test_a_mask_covering_half_of_a_pixel_counts() -> None:
    mask = np.array([[True, False, True, True], [True, False, False, False]])
    assert Letterbox.of((2, 4), 2).apply_mask(mask).tolist() == [[True, True], [False, False]]


def test_arrays_of_another_shape_are_refused() -> None:
    box = Letterbox.of((32, 48), 64)
    with pytest.raises(ValueError, match=r"takes an array of shape \(32, 48\), got \(48, 32\)"):
        box.apply(np.zeros((48, 32), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"takes an array of shape \(64, 64\), got \(16, 16\)"):
        box.invert_map(np.zeros((16, 16), dtype=np.float32))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one pixel, got shape \(0, 5\)"):
        Letterbox.of((0, 5), 64)
