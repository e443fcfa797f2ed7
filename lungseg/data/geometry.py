"""From an image's own size to the network's square, and exactly back for maps and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.errors import UserError


@dataclass(frozen=True)
class Letterbox:
    """How an image of one size lies in the network's square: scaled to `content`, with black bars around it.

    Both ways pixel areas correspond: row r of the square covers rows (r - top) * H / h to (r - top + 1) * H / h of
    the image, and likewise for columns. Shrinking averages (INTER_AREA), growing interpolates (INTER_LINEAR), each
    axis by itself. Masks are resized the same way as floats, and are true from one half on.
    """

    shape: tuple[int, int]  # Height and width of the image, pixels.
    size_px: int  # Side of the network's square.
    content: tuple[int, int]  # Height h and width w of the scaled image inside the square, pixels.
    top: int  # Rows above the content; where the bars cannot be equal, the lower one has a row more.
    left: int  # Columns left of the content; where the bars cannot be equal, the right one has a column more.

    @classmethod
    def of(cls, shape: tuple[int, int], size_px: int, keep_aspect: bool = True) -> Letterbox:
        """Fit an image of `shape` (H, W): its longer side to `size_px`, or, without `keep_aspect`, both sides."""
        height, width = shape
        if min(height, width, size_px) < 1:
            raise UserError(f"an image needs at least one pixel, got shape {shape!r} for size_px {size_px!r}")
        longer = max(shape)
        h, w = (max(1, (2 * n * size_px + longer) // (2 * longer)) if keep_aspect else size_px for n in shape)
        return cls((height, width), size_px, (h, w), (size_px - h) // 2, (size_px - w) // 2)

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring an image (H, W) to the square (size_px, size_px), bars 0; itself, not a copy, if it fits already."""
        self._check(image, self.shape)
        return self._pad(_resize(image, self.content))

    def apply_mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Bring a mask (H, W) to the square, bars False; itself, not a copy, if it fits already."""
        self._check(mask, self.shape)
        return self._pad(_resize_mask(mask, self.content))

    def invert_map(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring a map (size_px, size_px) back to (H, W); what lies on the bars is cut off."""
        self._check(values, (self.size_px, self.size_px))
        return _resize(self._crop(values), self.shape)

    def invert_mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Bring a mask (size_px, size_px) back to (H, W); what lies on the bars is cut off."""
        self._check(mask, (self.size_px, self.size_px))
        return _resize_mask(self._crop(mask), self.shape)

    def _check(self, array: npt.NDArray[Any], shape: tuple[int, int]) -> None:
        if array.shape != shape:
            raise UserError(f"this letterbox takes an array of shape {shape!r}, got {array.shape!r}")

    def _pad(self, content: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if content.shape == (self.size_px, self.size_px):
            return content
        square = np.zeros((self.size_px, self.size_px), dtype=content.dtype)
        self._crop(square)[:] = content
        return square

    def _crop(self, square: npt.NDArray[Any]) -> npt.NDArray[Any]:
        h, w = self.content
        return square[self.top : self.top + h, self.left : self.left + w]


def _resize(array: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Shrink the axes that shrink, then grow those that grow: INTER_AREA averages only where both shrink."""
    smaller = (min(array.shape[0], shape[0]), min(array.shape[1], shape[1]))
    if array.shape != smaller:
        array = cv2.resize(array, smaller[::-1], interpolation=cv2.INTER_AREA)
    if array.shape != shape:
        array = cv2.resize(array, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return array


def _resize_mask(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if mask.shape == shape:
        return mask
    resized: npt.NDArray[np.bool_] = _resize(mask.astype(np.float32), shape) >= 0.5
    return resized
