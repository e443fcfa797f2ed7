"""From a file or an array to what the network takes, as in training, and from its maps back to the image's size."""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.dicom import full_scale, read_dicom
from lungseg.data.dicom_file import is_dicom
from lungseg.data.geometry import Letterbox
from lungseg.data.images import read_image
from lungseg.errors import UserError
from lungseg.runs.model_info import ModelInfo


class Picture(NamedTuple):
    """An image decoded."""

    pixels: NDArray[np.uint8]  # (H, W) uint8, 0 black to 255 white.
    spacing_mm: tuple[float, float] | None = None  # Height and width of a pixel in mm, where the file knows it.


def read_picture(path: Path) -> Picture:
    """Read a file of any format of `data.images.read_image`, with its errors."""
    if not is_dicom(path):
        return Picture(read_image(path))
    image = read_dicom(path)
    return Picture(image.pixels, image.spacing_mm)


def to_picture(array: NDArray[Any]) -> Picture:
    """Take an array as an image, by the rules of `data.images.read_image`.

    Args:
        array: (H, W) uint8 or uint16 grey, or (H, W, 3 or 4) uint8 RGB(A), whose transparency is ignored.

    Raises:
        UserError: Another shape, type, or no pixels.
    """
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UserError(f"an image is an array (H, W), or (H, W, 3) RGB, got shape {array.shape!r}")
    if array.dtype == np.uint16 and array.ndim == 2:
        # By the depth that holds the maximum, as for a file: 12-bit data in 16 bits are not dark.
        return Picture(np.rint(array * (255 / full_scale(int(array.max())))).astype(np.uint8))
    if array.dtype != np.uint8:
        raise UserError(f"an image is uint8, or uint16 grey, got {array.dtype}; scale it to 0..255 and convert it")
    if array.ndim == 3:
        array = cv2.cvtColor(np.ascontiguousarray(array[..., :3]), cv2.COLOR_RGB2GRAY)
    return Picture(array)


def letterbox_of(picture: Picture, info: ModelInfo) -> Letterbox:
    """How an image lies in the network's square."""
    height, width = picture.pixels.shape
    return Letterbox.of((height, width), info.image_size, info.keep_aspect)


def enlarge_map(cam: NDArray[np.float32], info: ModelInfo) -> NDArray[np.float32]:
    """Bring a class map (h, w) to the network's square (S, S), as `cam.lung.resize_map` does with torch."""
    # The map covers the padded input; the padding below and to the right is cut off afterwards.
    size = (cam.shape[1] * info.map_stride, cam.shape[0] * info.map_stride)
    full = cv2.resize(np.ascontiguousarray(cam, np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)[: info.image_size, : info.image_size]


def evidence_in_lungs(cam: NDArray[np.float32], lung: NDArray[np.bool_]) -> float | None:
    """As `cam.lung.evidence_in_lungs` with torch, of one map (H, W); None where it holds no positive evidence."""
    positive = np.maximum(cam, 0)
    total = float(positive.sum(dtype=np.float64))  # float32 would lose digits over a million pixels
    return float(positive[lung].sum(dtype=np.float64)) / total if total > 0 else None
