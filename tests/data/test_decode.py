from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.data.decode import INFECTION, LUNG, read_sample
from lungseg.data.sample import Sample
from lungseg.errors import DataError


def _write(path: Path, picture: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def _mask(height: int, width: int, columns: slice) -> npt.NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[:, columns] = 255
    return mask


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """An image 64 high and 32 wide; lung in columns 0-15, infection in 8-23."""
    image = _write(tmp_path / "image.png", np.full((64, 32), 200, np.uint8))
    lung = _write(tmp_path / "lung.png", _mask(64, 32, slice(0, 16)))
    infection = _write(tmp_path / "infection.png", _mask(64, 32, slice(8, 24)))
    return Sample("image.png", image, lung, infection, 0, "train")


def test_masks_are_bits_of_one_plane_in_the_letterbox(sample: Sample) -> None:
    image, masks = read_sample(sample, 64)
    assert image.dtype == masks.dtype == np.uint8
    row = [0] * 16 + [LUNG] * 8 + [LUNG | INFECTION] * 8 + [INFECTION] * 8 + [0] * 24
    assert (masks == np.array(row)).all()
    assert (image == np.array([0] * 16 + [200] * 32 + [0] * 16)).all()


def test_without_keep_aspect_the_image_fills_the_square(sample: Sample) -> None:
    image, masks = read_sample(sample, 64, keep_aspect=False)
    assert (image == 200).all()
    assert (masks[:, 4] == LUNG).all() and (masks[:, 24] == LUNG | INFECTION).all() and (masks[:, 60] == 0).all()


def test_a_missing_mask_leaves_its_bit_unset(sample: Sample) -> None:
    assert set(np.unique(read_sample(replace(sample, infection=None), 64)[1])) == {0, LUNG}
    assert set(np.unique(read_sample(replace(sample, lung=None), 64)[1])) == {0, INFECTION}
    assert not read_sample(replace(sample, lung=None, infection=None), 64)[1].any()


def test_lungs_kept_apart_are_united(sample: Sample, tmp_path: Path) -> None:
    left = _write(tmp_path / "ManualMask/leftMask/image.png", _mask(64, 32, slice(0, 8)))
    _write(tmp_path / "ManualMask/rightMask/image.png", _mask(64, 32, slice(24, 32)))
    _, masks = read_sample(replace(sample, lung=left, infection=None), 64)
    assert (masks == np.array([0] * 16 + [LUNG] * 8 + [0] * 16 + [LUNG] * 8 + [0] * 16)).all()


@pytest.mark.parametrize("kind", ["lung", "infection"])
def test_a_mask_of_another_size_names_its_file(sample: Sample, kind: str, tmp_path: Path) -> None:
    wrong = _write(tmp_path / f"wrong_{kind}.png", _mask(32, 16, slice(0, 8)))
    with pytest.raises(DataError, match=rf"wrong_{kind}\.png: mask has another size than its image"):
        read_sample(replace(sample, lung=wrong) if kind == "lung" else replace(sample, infection=wrong), 64)


def test_masks_of_another_size_are_fitted_where_the_data_set_is_published_so(sample: Sample, tmp_path: Path) -> None:
    small = _write(tmp_path / "small.png", _mask(32, 16, slice(0, 8)))
    fitted = read_sample(replace(sample, lung=small, infection=None, fit_masks=True), 64)[1]
    assert np.array_equal(fitted, read_sample(replace(sample, infection=None), 64)[1])
    square = _write(tmp_path / "square.png", _mask(32, 32, slice(0, 8)))
    with pytest.raises(DataError, match=r"square\.png: mask has another aspect ratio"):
        read_sample(replace(sample, lung=square, fit_masks=True), 64)
