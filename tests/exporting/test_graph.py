"""The letterbox as matrices is the letterbox of the data."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lungseg.data.geometry import Letterbox
from lungseg.data.images import _to_8bit
from lungseg.data.phantom.generator import draw_phantom
from lungseg.exporting.graph import letterbox_matrices, to_8bit

IMAGE = draw_phantom(0, 0, 256).image


@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (192, 256), (201, 77), (256, 250), (31, 40), (1, 7)])
def test_square_is_the_letterbox_within_a_grey_level_and_maps_come_back_exactly(
    shape: tuple[int, int], keep_aspect: bool
) -> None:
    image = cv2.resize(IMAGE, shape[::-1], interpolation=cv2.INTER_NEAREST)
    box, fit = Letterbox.of(shape, 64, keep_aspect), letterbox_matrices(shape, 64, keep_aspect)
    exact = fit.rows @ torch.from_numpy(image).float() @ fit.columns.T
    square = torch.where(fit.halves, (exact + 0.5).floor(), exact.round()).numpy()
    off = np.abs(square - box.apply(image))
    shrinks_both = box.content[0] <= shape[0] and box.content[1] <= shape[1]
    assert off.max() <= 1 and (off > 0).mean() < (0.02 if shrinks_both else 0.15)
    values = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    back = (fit.rows_back @ torch.from_numpy(values) @ fit.columns_back.T).numpy()
    np.testing.assert_allclose(back, box.invert_map(values), atol=1e-6)


def test_halving_rounds_as_opencv_does() -> None:
    """A quarter of the means of four pixels lie on a tie, and OpenCV rounds them up in this one case."""
    image = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    fit = letterbox_matrices((128, 128), 64, True)
    exact = fit.rows @ torch.from_numpy(image).float() @ fit.columns.T
    assert bool(fit.halves)
    assert np.array_equal((exact + 0.5).floor().numpy(), Letterbox.of((128, 128), 64).apply(image))
    assert not np.array_equal(exact.round().numpy(), Letterbox.of((128, 128), 64).apply(image))


@pytest.mark.parametrize("top", [256, 1023, 1024, 4095, 4096, 16383, 16384, 65535])
def test_deep_images_are_scaled_as_files_are(top: int) -> None:
    image = np.minimum(np.arange(65536), top).astype(np.uint16).reshape(256, 256)
    assert np.array_equal(to_8bit(torch.from_numpy(image)[None])[0].numpy(), _to_8bit(image))


def test_8_bit_values_stay_and_every_image_of_a_batch_has_its_own_scale() -> None:
    images = np.stack([IMAGE.astype(np.uint16) // 2, IMAGE.astype(np.uint16) * 16, IMAGE.astype(np.uint16) * 0])
    found = to_8bit(torch.from_numpy(images)).numpy()
    assert np.array_equal(found[0], images[0]) and not found[2].any()
    assert np.array_equal(found[1], _to_8bit(images[1]))
