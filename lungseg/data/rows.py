"""A sample as one row of the cache file: the image byte by byte, its masks two bits a pixel."""

from __future__ import annotations

import numpy as np

from lungseg.data.decode import Plane


def row_bytes(image_size: int) -> int:
    """Bytes of a row: S * S of the image and a quarter of that, rounded up, for the masks."""
    return image_size**2 + -(-(image_size**2) // 4)


def pack_row(image: Plane, masks: Plane) -> bytes:
    """Put image and masks (S, S) into a row.

    Pixel i of quarter j of the masks goes to bits 2j and 2j + 1 of byte i; the last quarter may be short.
    """
    quarters = np.zeros((4, -(-masks.size // 4)), np.uint8)
    quarters.reshape(-1)[: masks.size] = masks.reshape(-1)
    packed: Plane = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return image.tobytes() + packed.tobytes()


def unpack_row(row: Plane, image_size: int) -> tuple[Plane, Plane]:
    """Give image and masks (S, S) of a row (`row_bytes`,) uint8; the image is a view of it."""
    pixels, square = image_size**2, (image_size, image_size)
    packed = row[pixels:]
    quarters = np.empty((4, packed.size), np.uint8)
    for place in range(4):
        np.right_shift(packed, 2 * place, out=quarters[place])
    quarters &= 3
    return row[:pixels].reshape(square), quarters.reshape(-1)[:pixels].reshape(square)
