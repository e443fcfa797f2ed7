"""Flags of images that are no upright frontal chest X-ray, and of masks that do not look like two lungs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.benchmarks.input_checks import CHANGES
from lungseg.data.lungs_apart import Sides, part_lungs
from lungseg.data.phantom.generator import Phantom, draw_phantom
from lungseg.inference.input_checks.checks import (
    IMAGE_FLAGS,
    _midline_flags,
    check_image,
    check_input,
    check_mask,
    find_midline,
)


def _mask(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((100, 100), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(scope="module")
def good() -> list[Phantom]:
    return [draw_phantom(70_000 + number, number % 3, 64) for number in range(12)]


@pytest.mark.parametrize(
    ("boxes", "names"),
    [
        ([(20, 80, 10, 40), (20, 80, 60, 90)], []),
        ([], ["no_lungs"]),
        ([(0, 7, 0, 7)], ["no_lungs"]),
        ([(20, 80, 10, 40)], ["one_lung"]),
        ([(20, 80, 10, 40), (20, 24, 60, 90)], ["one_lung"]),
        ([(40, 50, 10, 25), (40, 50, 60, 75)], ["lung_area"]),
        ([(0, 100, 0, 45), (0, 100, 55, 100)], ["lung_area", "lungs_cut"]),
        ([(0, 60, 0, 40), (0, 60, 55, 95)], ["lungs_cut"]),
        ([(0, 45, 0, 24), (0, 45, 55, 80)], []),
        ([(10, 40, 20, 80), (60, 90, 22, 82)], ["lungs_uneven"]),
        ([(10, 60, 10, 40), (35, 85, 60, 90)], []),
        ([(20, 80, 2, 17), (20, 80, 21, 36)], ["lung_position"]),
        ([(65, 90, 10, 40), (65, 90, 60, 90)], ["lung_position"]),
    ],
)
def test_mask_is_flagged_by_what_is_wrong_with_it(boxes: list[tuple[int, int, int, int]], names: list[str]) -> None:
    assert [flag.name for flag in check_mask(_mask(*boxes))] == names


def test_a_reason_says_the_number() -> None:
    (flag,) = check_mask(_mask((40, 50, 10, 25), (40, 50, 60, 75)))
    assert flag.value == 0.03
    assert flag.reason == "the lungs cover 3.0% of the image, usual are 5% to 60%"


def test_a_good_image_with_its_mask_has_no_flag(good: list[Phantom]) -> None:
    assert [check_input(phantom.image, phantom.lung) for phantom in good] == [()] * len(good)


@pytest.mark.parametrize(
    ("change", "flag", "words"),
    [
        ("inverted", "inverted", "black and white look exchanged"),
        ("turned by 90 degrees", "rotated", "by 270 degrees clockwise"),
        ("turned by 180 degrees", "rotated", "by 180 degrees clockwise"),
        ("turned by 270 degrees", "rotated", "by 90 degrees clockwise"),
    ],
)
def test_a_changed_image_is_flagged_as_what_it_is(good: list[Phantom], change: str, flag: str, words: str) -> None:
    rng = np.random.default_rng(0)
    for phantom in good:
        (found,) = check_image(CHANGES[change](phantom.image, rng))
        assert found.name == flag and words in found.reason and found.value > 0.5


def test_inverted_and_turned_has_both_flags(good: list[Phantom]) -> None:
    names = [[flag.name for flag in check_image(np.rot90(255 - phantom.image))] for phantom in good]
    assert names == [["rotated", "inverted"]] * len(good)


@pytest.mark.parametrize("change", [name for name in CHANGES if "cropped" in name])
def test_a_crop_is_flagged(good: list[Phantom], change: str) -> None:
    rng = np.random.default_rng(0)
    assert np.mean([bool(check_image(CHANGES[change](phantom.image, rng))) for phantom in good]) >= 0.9


@pytest.mark.parametrize("change", ["noise", "photo (dead leaves)", "page of text"])
def test_what_is_no_chest_is_never_without_a_flag(good: list[Phantom], change: str) -> None:
    rng = np.random.default_rng(0)
    for phantom in good:
        like = cv2.resize(phantom.image, (256, 256)).astype(np.uint8)
        assert check_image(CHANGES[change](like, rng))


def test_a_blank_image_is_flagged_as_that_alone_whatever_its_grey() -> None:
    for grey in (0, 100, 255):
        (found,) = check_image(np.full((50, 80), grey, np.uint8))
        assert found.name == "blank" and found.value == 0


def test_lungs_that_touch_or_have_nothing_bright_between_them_look_lateral(good: list[Phantom]) -> None:
    for phantom in good:
        left, right = part_lungs(phantom.lung)
        reach = np.maximum.accumulate(left, axis=1) & np.maximum.accumulate(right[:, ::-1], axis=1)[:, ::-1]
        (touching,) = check_input(phantom.image, phantom.lung | reach)
        assert touching.name == "lateral" and touching.value < 0.14
        dark = phantom.image.copy()
        dark[reach & ~phantom.lung] = int(np.median(phantom.image[phantom.lung]))
        (found,) = list(_midline_flags(dark, part_lungs(phantom.lung)))
        assert found.name == "lateral" and found.value < 0.08


def test_mirrored_images_are_mostly_flagged(good: list[Phantom]) -> None:
    names = [[flag.name for flag in check_image(np.ascontiguousarray(phantom.image[:, ::-1]))] for phantom in good]
    assert np.mean([found == ["mirrored"] for found in names]) >= 0.6


def test_exposure_size_and_aspect_do_not_matter(good: list[Phantom]) -> None:
    for phantom in good:
        dark = (np.square(phantom.image / 255) * 120).astype(np.uint8)
        large = cv2.resize(phantom.image, (900, 700)).astype(np.uint8)
        assert check_image(dark) == check_image(large) == ()


def test_names_of_flags_of_the_image_are_listed(good: list[Phantom]) -> None:
    rng = np.random.default_rng(0)
    images = [change(phantom.image, rng) for change in CHANGES.values() for phantom in good]
    assert {flag.name for image in images for flag in check_image(image)} == set(IMAGE_FLAGS)


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
