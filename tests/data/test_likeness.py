"""When two images count as one exposure."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.data.likeness import NEAR_IMAGE, NEAR_LUNGS, is_blank, likeness, lung_box, neighbours, sign
from lungseg.data.phantom.generator import Phantom, draw_phantom

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def chests() -> list[Phantom]:
    return [draw_phantom(seed, seed % 3, 128) for seed in range(12)]


def resized(image: Image, factor: float) -> Image:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


def jpeg(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def brightened(image: Image, gain: float, offset: float, gamma: float) -> Image:
    shifted = np.clip(image / 255 * gain + offset / 255, 0, 1) ** gamma
    return np.round(shifted * 255).astype(np.uint8)


def captioned(image: Image) -> Image:
    copy = image.copy()
    copy[100:112, 30:90] = 255
    return np.asarray(cv2.arrowedLine(copy, (40, 40), (60, 60), 255, 2))


ALTERED: dict[str, Callable[[Image], Image]] = {
    "jpeg": lambda image: jpeg(image, 40),
    "half": lambda image: resized(image, 0.5),
    "enlarged": lambda image: resized(image, 1.7),
    "brighter": lambda image: brightened(image, 1.2, 15, 1),
    "darker": lambda image: brightened(image, 0.6, -5, 1),
    "gamma": lambda image: brightened(image, 1, 0, 1.4),
    "all": lambda image: jpeg(resized(brightened(image, 0.85, 10, 0.8), 0.8), 60),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_altered_copy_is_near_and_the_next_chest_is_not(
    chests: list[Phantom], change: Callable[[Image], Image]
) -> None:
    frames = [sign(chest.image, None).image for chest in chests]
    for at, chest in enumerate(chests):
        copy = sign(change(chest.image), None).image
        assert likeness(frames[at], copy) >= NEAR_IMAGE
        assert likeness(frames[at - 1], copy) < 0.9


def test_copy_with_arrow_and_caption_is_near_by_its_lungs(chests: list[Phantom]) -> None:
    for chest in chests:
        plain, marked = sign(chest.image, chest.lung).lungs, sign(captioned(chest.image), chest.lung).lungs
        assert plain is not None and marked is not None
        assert likeness(plain, marked) >= NEAR_LUNGS


def test_cropped_copy_is_near_by_its_lungs(chests: list[Phantom]) -> None:
    for chest in chests:
        whole = sign(chest.image, chest.lung)
        rows, columns = lung_box(chest.lung) or (slice(0), slice(0))
        part = (slice(rows.start // 2, None), slice(columns.start // 2, columns.stop + (128 - columns.stop) // 2))
        size = (160, 150)
        image = np.asarray(cv2.resize(chest.image[part], size, interpolation=cv2.INTER_LINEAR), np.uint8)
        lung = np.asarray(cv2.resize(chest.lung[part].astype(np.float32), size)) > 0.5
        crop = sign(image, lung)
        assert whole.lungs is not None and crop.lungs is not None
        assert likeness(whole.lungs, crop.lungs) >= NEAR_LUNGS


def test_likeness_of_a_frame_with_itself_is_one_and_with_its_negative_is_not_near(chests: list[Phantom]) -> None:
    frame = sign(chests[0].image, None).image
    assert likeness(frame, frame) == pytest.approx(1, abs=1e-4)
    assert likeness(frame, 255 - frame) < 0.5


def test_frames_without_detail_are_like_nothing(chests: list[Phantom]) -> None:
    flat = np.full((64, 64), 100, np.uint8)
    assert is_blank(flat) and not is_blank(sign(chests[0].image, None).image)
    assert likeness(flat, flat) == 0
    assert likeness(flat, sign(chests[0].image, None).image) == 0


def test_digest_is_of_shape_and_pixels() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert sign(image, None).digest == sign(np.asfortranarray(image), None).digest
    assert sign(image, None).digest != sign(image.reshape(4, 16), None).digest
    other = image.copy()
    other[0, 0] += 1
    assert sign(image, None).digest != sign(other, None).digest


def test_lung_box_leaves_two_percent_out_at_each_end() -> None:
    lung = np.zeros((100, 200), np.bool_)
    lung[20:60, 50:150] = True  # 40 rows of 2.5 %, 100 columns of 1 %
    assert lung_box(lung) == (slice(20, 60), slice(51, 148))
    lung[90, 10] = True  # a speck
    assert lung_box(lung) == (slice(20, 60), slice(51, 148))


def test_lungs_too_small_for_a_picture_have_no_box() -> None:
    lung = np.zeros((64, 64), np.bool_)
    assert lung_box(lung) is None
    lung[10:14, 10:40] = True
    assert lung_box(lung) is None
    assert sign(np.zeros((64, 64), np.uint8), lung).lungs is None


def test_neighbours_hold_every_copy_whatever_its_brightness(chests: list[Phantom]) -> None:
    frames = [sign(chest.image, None).image for chest in chests]
    copies = [sign(brightened(jpeg(chest.image, 50), 0.8, 10, 1), None).image for chest in chests]
    best: dict[int, tuple[float, int]] = {}
    for i, j, cosine in neighbours(frames + copies):
        assert i < j
        for one, other in ((i, j), (j, i)):
            best[one] = max(best.get(one, (-2.0, -1)), (cosine, other))
    assert [best[at][1] for at in range(12)] == list(range(12, 24))


def test_two_frames_are_neighbours() -> None:
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 255, (2, 64, 64)).astype(np.uint8))
    assert {(i, j) for i, j, _ in neighbours(frames)} == {(0, 1)}
