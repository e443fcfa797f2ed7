"""Training augmentation in three passes over bytes: one warp, one table, one noise; between `decode` and tensors.

It does what albumentations' Affine, HorizontalFlip, RandomBrightnessContrast, RandomGamma and GaussNoise do one after
the other, and tests compare them; but it rounds where those truncate, which darkens images and thins the noise.
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.config import AugmentConfig
from lungseg.config.transforms import build_transforms
from lungseg.data.decode import Plane

cv2.setNumThreads(0)  # loader processes are the parallelism; OpenCV's own threads only get in each other's way

Matrix = npt.NDArray[np.float64]

_SHEET = 2**22  # Places at which the sheet of noise may be cut.
_quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
_NORMAL = _quantiles / _quantiles.std()
"""The standard normal distribution as 256 equally likely values: mean 0, variance 1, at most 2.9."""
_GREYS = np.arange(256) / 255


@dataclass(frozen=True, eq=False)
class Draw:
    """What is done to one image; None: nothing of that kind."""

    matrix: Matrix | None  # (2, 3), from pixels of the image (x, y) to pixels of the result.
    table: Plane | None  # (256,) uint8, new value of each grey value.
    noise_std: float  # Standard deviation of the noise, grey values; negative: the noise is inverted.
    noise_at: int  # Where the noise is cut from the sheet.


def augment(config: AugmentConfig, image: Plane, masks: Plane, key: str) -> tuple[Plane, Plane]:
    """Give a changed copy of image and masks (S, S); the same key and config give the same anywhere.

    Masks are warped nearest neighbour. What comes in from outside the image is black, and no lung; brightness,
    contrast and gamma change that black too. Noise comes last and on the image only: independent from pixel to pixel,
    cut at a random place from one fixed sheet. The config's own `transforms` follow.
    """
    image, masks = apply(draw(config, image.shape[0], key), image, masks)
    if config.transforms:
        transforms = build_transforms(tuple(config.transforms))
        # Of the key alone, so that neither the worker nor the images before it matter.
        digest = hashlib.blake2b(f"transforms/{key}".encode("utf-8", "surrogateescape"), digest_size=4).digest()
        transforms.set_random_seed(int.from_bytes(digest, "big"))
        changed = transforms(image=image, mask=masks)
        image, masks = changed["image"], changed["mask"]
    return image, masks


def draw(config: AugmentConfig, size_px: int, key: str) -> Draw:
    """Draw what `key` stands for: each number has its place in the key's hash, whatever is switched on."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape")).digest()
    u = [number / 2**32 for number in struct.unpack("<16I", digest)]  # in [0, 1)
    return Draw(
        matrix=_matrix(config, size_px, u[:6]),
        table=_table(config, u[6:9]),
        noise_std=255 * config.noise * _signed(u[9]),
        noise_at=int(u[10] * _SHEET),
    )


def apply(drawn: Draw, image: Plane, masks: Plane) -> tuple[Plane, Plane]:
    """Apply a draw to image and masks (S, S) uint8, whose values may be any; neither is changed."""
    if drawn.matrix is None:
        image, masks = image.copy(), masks.copy()
    else:
        image, masks = _warp(image, drawn.matrix, cv2.INTER_LINEAR), _warp(masks, drawn.matrix, cv2.INTER_NEAREST)
    if drawn.table is not None:
        cv2.LUT(image, drawn.table, dst=image)
    if drawn.noise_std:
        _add_noise(image, drawn.noise_std, drawn.noise_at)
    return image, masks


def affine(shift: tuple[float, float], scale: tuple[float, float], degrees: float, size_px: int) -> Matrix:
    """The matrix (2, 3) that scales x and y, rotates counter-clockwise about the centre, then shifts by pixels."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = (size_px - 1) / 2
    a, b, c, d = scale[0] * cos, scale[1] * sin, -scale[0] * sin, scale[1] * cos
    x, y = centre + shift[0] - (a + b) * centre, centre + shift[1] - (c + d) * centre
    return np.array([[a, b, x], [c, d, y]])


def tone(brightness: float, contrast: float, gamma: float) -> Plane:
    """The table (256,) uint8 of v -> 255 * clip((1 + contrast) * v / 255 + brightness, 0, 1) ** gamma, rounded."""
    changed = np.minimum(np.maximum(_GREYS * (1 + contrast) + brightness, 0), 1) ** gamma
    table: Plane = (255 * changed + 0.5).astype(np.uint8)
    return table


def _matrix(config: AugmentConfig, size_px: int, u: list[float]) -> Matrix | None:
    matrix = None
    if config.shift or config.scale or config.rotate:
        shift = (config.shift * size_px * _signed(u[0]), config.shift * size_px * _signed(u[1]))
        scale = (1 + config.scale * _signed(u[2]), 1 + config.scale * _signed(u[3]))
        matrix = affine(shift, scale, config.rotate * _signed(u[4]), size_px)
    if u[5] < config.flip:
        matrix = affine((0, 0), (1, 1), 0, size_px) if matrix is None else matrix
        matrix[0] = [-matrix[0, 0], -matrix[0, 1], size_px - 1 - matrix[0, 2]]
    return matrix


def _table(config: AugmentConfig, u: list[float]) -> Plane | None:
    if not (config.brightness or config.contrast or config.gamma):
        return None
    brightness, contrast, gamma = config.brightness, config.contrast, config.gamma
    return tone(brightness * _signed(u[0]), contrast * _signed(u[1]), 1 + gamma * _signed(u[2]))


def _signed(u: float) -> float:
    """From [0, 1) to [-1, 1)."""
    return 2 * u - 1


def _warp(plane: Plane, matrix: Matrix, interpolation: int) -> Plane:
    warped: Any = cv2.warpAffine(plane, matrix, plane.shape[::-1], flags=interpolation)
    return warped  # type: ignore[no-any-return]  # OpenCV keeps the type, its annotations do not say so


def _add_noise(image: Plane, std: float, at: int) -> None:
    """Add a cut of the sheet times `std`, rounded, in place; black and white stop it."""
    brighter = np.minimum(np.maximum(_NORMAL * std + 0.5, 0), 255).astype(np.uint8)
    for table, combine in ((brighter, cv2.add), (brighter[::-1].copy(), cv2.subtract)):  # _NORMAL is symmetric
        change = _sheet(image.size)[at : at + image.size].reshape(image.shape).copy()
        cv2.LUT(change, table, dst=change)
        combine(image, change, dst=image)


@lru_cache(maxsize=2)
def _sheet(pixels: int) -> Plane:
    """Make uniform bytes, independent of each other, with `_SHEET` places to cut an image of so many pixels.

    Fresh ones for each image would take longer than all else but the warp. Images that happen to share a part of the
    sheet show it at different pixels.
    """
    words = -(-(_SHEET + pixels) // 8)
    return np.random.SFC64(0).random_raw(words).astype("<u8").view(np.uint8)  # a stream that NumPy promises to keep
