from __future__ import annotations

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from lungseg.config import AugmentConfig
from lungseg.data.augment import Draw, affine, apply, augment, draw, tone
from lungseg.data.decode import Plane
from lungseg.errors import UserError

OFF = AugmentConfig(shift=0, scale=0, rotate=0, flip=0, brightness=0, contrast=0, gamma=0, noise=0)
SIZE = 64


@pytest.fixture
def image() -> Plane:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    smooth: Plane = cv2.GaussianBlur(noise, (5, 5), 2).astype(np.uint8)
    return smooth


@pytest.fixture
def masks() -> Plane:
    """Lung (1) in a disc, infection (2) in a square that reaches out of it."""
    y, x = np.mgrid[:SIZE, :SIZE]
    lung = (x - 28) ** 2 + (y - 30) ** 2 < 400
    infection = (abs(x - 40) < 8) & (abs(y - 20) < 8)
    plane: Plane = (lung + 2 * infection).astype(np.uint8)
    return plane


def _plain(steps: list[A.BasicTransform], image: Plane, masks: Plane) -> tuple[Plane, Plane, Plane]:
    """What albumentations makes of the image and of each mask by itself."""
    done = A.Compose(steps)(image=image, masks=[masks & 1, masks >> 1 & 1])
    lung, infection = done["masks"]
    return np.asarray(done["image"]), np.asarray(lung), np.asarray(infection)


@pytest.mark.parametrize("flip", [False, True])
def test_warp_equals_albumentations_affine_and_flip(image: Plane, masks: Plane, flip: bool) -> None:
    steps: list[A.BasicTransform] = [
        A.Affine(
            translate_px={"x": (3, 3), "y": (-2, -2)},
            scale={"x": (1.08, 1.08), "y": (0.93, 0.93)},
            rotate=(9, 9),
            p=1.0,
        )
    ]
    matrix = affine((3, -2), (1.08, 0.93), 9, SIZE)
    if flip:
        steps.append(A.HorizontalFlip(p=1.0))
        matrix[0] = [-matrix[0, 0], -matrix[0, 1], SIZE - 1 - matrix[0, 2]]
    true_image, true_lung, true_infection = _plain(steps, image, masks)
    warped, planes = apply(Draw(matrix, None, 0.0, 0), image, masks)
    tolerance = 1 if flip else 0  # mirrored before or after it is rounded
    assert np.abs(warped.astype(int) - true_image).max() <= tolerance
    assert ((planes & 1) != true_lung).mean() <= 0.001 * tolerance
    assert ((planes >> 1) != true_infection).mean() <= 0.001 * tolerance
    assert not np.array_equal(planes, masks)


def test_affine_by_hand() -> None:
    quarter = affine((0, 0), (1, 1), 90, 5)
    assert np.allclose(quarter @ [4, 2, 1], [2, 0])  # the right goes up
    assert np.allclose(affine((1.5, -2), (2, 3), 0, 5) @ [3, 3, 1], [2 + 2 + 1.5, 2 + 3 - 2])


@pytest.mark.parametrize(("brightness", "contrast", "gamma"), [(0.1, 0.1, 1.2), (-0.12, 0.15, 0.8), (0.15, -0.1, 1.0)])
def test_tone_equals_albumentations_but_for_its_truncation(
    image: Plane, masks: Plane, brightness: float, contrast: float, gamma: float
) -> None:
    steps: list[A.BasicTransform] = [
        A.RandomBrightnessContrast((brightness, brightness), (contrast, contrast), p=1.0),
        A.RandomGamma((100 * gamma, 100 * gamma), p=1.0),
    ]
    stretched = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]  # None is allowed
    true = _plain(steps, stretched, masks)[0].astype(int)
    changed, same = apply(Draw(None, tone(brightness, contrast, gamma), 0.0, 0), stretched, masks)
    assert ((changed - true >= 0) & (changed - true <= 3)).all()
    assert 0.3 < (changed - true).mean() < 2
    assert np.array_equal(same, masks)


def test_tone_by_hand() -> None:
    assert np.array_equal(tone(0, 0, 1), np.arange(256))
    table = tone(0.2, 0.5, 2)
    assert table[0] == round(255 * 0.2**2) and table[51] == round(255 * 0.5**2) and table[200] == 255
    assert tone(-0.5, 0, 1)[[0, 127, 255]].tolist() == [0, 0, 128]


def test_noise_is_normal_with_the_given_deviation_and_independent() -> None:
    grey, nothing = np.full((256, 256), 128, np.uint8), np.zeros((256, 256), np.uint8)
    noise = apply(Draw(None, None, 5.0, 12345), grey, nothing)[0].astype(float) - 128
    assert abs(noise.mean()) < 0.08  # four standard errors
    assert noise.std() == pytest.approx(5, rel=0.01)
    shares = [(np.abs(noise) <= k).mean() for k in (2, 5, 10)]
    assert shares == pytest.approx([0.383, 0.729, 0.964], abs=0.01)  # of |N(0, 5)| below 2.5, 5.5, 10.5
    for shift in (1, 2, 256, 257):
        assert abs(np.corrcoef(noise.ravel()[shift:], noise.ravel()[:-shift])[0, 1]) < 0.016
    inverted = apply(Draw(None, None, -5.0, 12345), grey, nothing)[0].astype(float) - 128
    assert np.array_equal(inverted, -noise)
    elsewhere = apply(Draw(None, None, 5.0, 99999), grey, nothing)[0].astype(float)
    assert abs(np.corrcoef(noise.ravel(), elsewhere.ravel())[0, 1]) < 0.016


def test_noise_equals_albumentations_but_for_its_truncation() -> None:
    grey = np.full((256, 256), 128, np.uint8)
    ours = apply(Draw(None, None, 5.0, 0), grey, grey)[0].astype(float) - 128
    theirs = A.Compose([A.GaussNoise(std_range=(5 / 255, 5 / 255), p=1.0)], seed=1)(image=grey)["image"] - 128.0
    assert np.abs(theirs).mean() + 0.5 == pytest.approx(np.abs(ours).mean(), rel=0.02)


def test_noise_stops_at_black_and_white() -> None:
    ends = np.repeat(np.array([[0], [255]], np.uint8), 64, axis=1).repeat(32, axis=0)
    noisy = apply(Draw(None, None, 100.0, 0), ends, ends)[0]
    assert 0.3 < (noisy[:32] == 0).mean() < 0.7 and noisy[:32].max() > 200
    assert 0.3 < (noisy[32:] == 255).mean() < 0.7 and noisy[32:].min() < 55


def test_the_same_key_gives_the_same_and_another_key_another(image: Plane, masks: Plane) -> None:
    config = AugmentConfig(flip=0.5)
    once, twice, other = (augment(config, image, masks, key) for key in ("0/1/a", "0/1/a", "0/2/a"))
    assert np.array_equal(once[0], twice[0]) and np.array_equal(once[1], twice[1])
    assert not np.array_equal(once[0], other[0]) and not np.array_equal(once[1], other[1])
    augment(config, image, masks, "id of a file that is no text: \udcff")


def test_the_draw_stays_the_same_from_version_to_version() -> None:
    """Else a resumed run would go on with other images; change these numbers knowingly."""
    drawn = draw(AugmentConfig(), SIZE, "0/3/Train/COVID-19/images/covid_1.png")
    assert drawn.matrix is not None and drawn.table is not None
    assert drawn.matrix.ravel().tolist() == pytest.approx(
        [0.942531, -0.136038, 7.705217, 0.137526, 0.932335, -1.220687], abs=1e-5
    )
    assert (drawn.table[[0, 100, 255]].tolist(), drawn.noise_at) == ([31, 118, 255], 3035013)
    assert drawn.noise_std == pytest.approx(-3.621501, abs=1e-5)
    flat = apply(Draw(None, None, 5.0, 0), np.full((8, 8), 128, np.uint8), np.zeros((8, 8), np.uint8))[0]
    assert flat[0].tolist() == [124, 127, 127, 131, 126, 130, 129, 129]


def test_strengths_bound_the_draws_and_are_reached() -> None:
    config = AugmentConfig(shift=0.1, scale=0.2, rotate=20, flip=0.25, brightness=0.3, contrast=0, gamma=0, noise=0.04)
    draws = [draw(config, 100, str(i)) for i in range(2000)]
    matrices = np.array([drawn.matrix for drawn in draws])
    flipped = matrices[:, 0, 0] < 0
    assert 0.21 < flipped.mean() < 0.29
    straight = matrices[~flipped]
    degrees = np.degrees(np.arctan2(-straight[:, 1, 0], straight[:, 0, 0]))
    scale_x = np.hypot(straight[:, 0, 0], straight[:, 1, 0])
    moved = straight @ np.array([49.5, 49.5, 1]) - 49.5
    blacks = np.array([drawn.table[0] for drawn in draws if drawn.table is not None]) / 255
    stds = np.array([drawn.noise_std for drawn in draws]) / 255
    for values, low, high in (
        (degrees, -20, 20),
        (scale_x, 0.8, 1.2),
        (moved[:, 0], -10, 10),
        (moved[:, 1], -10, 10),
        (blacks, 0, 0.3),
        (stds, -0.04, 0.04),
    ):
        reach = 0.02 * (high - low)
        assert low - 1e-9 <= values.min() <= low + reach and high - reach <= values.max() <= high + 1e-9
    assert np.mean(blacks > 0.15) == pytest.approx(0.25, abs=0.04) and np.mean(stds) == pytest.approx(0, abs=0.002)


def test_switching_one_thing_off_leaves_the_other_draws_as_they_are() -> None:
    every = draw(AugmentConfig(), SIZE, "k")
    assert every.matrix is not None and every.table is not None
    calm = draw(AugmentConfig(noise=0), SIZE, "k")
    still = draw(AugmentConfig(shift=0, scale=0, rotate=0), SIZE, "k")
    assert np.array_equal(np.asarray(calm.matrix), every.matrix) and calm.noise_std == 0
    assert still.matrix is None and np.array_equal(np.asarray(still.table), every.table)
    assert still.noise_std == every.noise_std


@pytest.mark.parametrize("name", ["shift", "scale", "rotate", "flip", "brightness", "contrast", "gamma", "noise"])
def test_each_strength_switches_its_own_transform(image: Plane, masks: Plane, name: str) -> None:
    config = replace(OFF, **{name: {"rotate": 90.0, "flip": 1.0}.get(name, 0.3)})
    changed, moved = augment(config, image, masks, "k")
    assert not np.array_equal(changed, image)
    assert np.array_equal(moved, masks) != (name in ("shift", "scale", "rotate", "flip"))


def test_flip_alone_mirrors(image: Plane, masks: Plane) -> None:
    flipped, moved = augment(replace(OFF, flip=1.0), image, masks, "k")
    assert np.array_equal(flipped, image[:, ::-1]) and np.array_equal(moved, masks[:, ::-1])


def test_everything_off_gives_copies(image: Plane, masks: Plane) -> None:
    same, planes = augment(OFF, image, masks, "k")
    assert np.array_equal(same, image) and np.array_equal(planes, masks)
    assert not np.shares_memory(same, image) and not np.shares_memory(planes, masks)


def test_what_goes_in_is_not_changed(image: Plane, masks: Plane) -> None:
    image.setflags(write=False)
    masks.setflags(write=False)
    before, planes = image.copy(), masks.copy()
    for config in (AugmentConfig(), replace(OFF, noise=0.1), replace(OFF, gamma=0.5)):
        augment(config, image, masks, "k")
    assert np.array_equal(before, image) and np.array_equal(planes, masks)


def test_transforms_of_albumentations_come_last_and_depend_on_the_key_alone(image: Plane, masks: Plane) -> None:
    calls = ["OneOf([CLAHE(clip_limit=4.0), Sharpen()], p=0.5)", "ElasticTransform(alpha=40, sigma=6, p=0.5)"]
    config = replace(OFF, transforms=calls)
    first = [augment(config, image, masks, f"0/{n}/a.png") for n in range(8)]
    again = [augment(config, image, masks, f"0/{n}/a.png") for n in reversed(range(8))][::-1]
    for (one, one_mask), (other, other_mask) in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one_mask, other_mask)
        assert set(np.unique(one_mask)) <= {0, 1, 2, 3}
    assert len({one.tobytes() for one, _ in first}) > 4
    assert any((mask != masks).any() for _, mask in first)
    fused = augment(replace(OFF, flip=1.0), image, masks, "k")[0]
    mirrored = augment(replace(OFF, flip=1.0, transforms=["InvertImg(p=1)"]), image, masks, "k")[0]
    np.testing.assert_array_equal(mirrored, 255 - fused)


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("CLAHE", "must be a number, a text, a list of these, or a call"),
        ("CLAHEE(p=1)", "albumentations has no 'CLAHEE'; did you mean 'CLAHE'"),
        ("CLAHE(clip_limti=4)", "clip_limti"),
        ("CLAHE(clip_limit='much')", "clip_limit"),
        ("CLAHE(p=", "must be calls such as"),
        ("__import__('os').system('x')", "albumentations has no"),
        ("CLAHE(p=open('x'))", "albumentations has no 'open'"),
        ("Resize(height=32, width=32)", "changes the size or the kind"),
        ("ToFloat()", "changes the size or the kind"),
    ],
)
def test_a_transform_that_cannot_be_is_one_line(call: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault) as error:
        AugmentConfig(transforms=[call])
    assert str(error.value).startswith("augment.transforms: ") and "\n" not in str(error.value)
