"""Whether two radiographs are one exposure: a signature an image, the search for neighbours, and the confirmation.

A pixel hash finds exact copies. Altered ones are mostly cropped anew, and a 64-bit hash of the DCT misses them: of 393
copies in COVID-QU-Ex it has 39 % among its 17,567 nearest pairs, `neighbours` all among 14,430. For a signature holds
the box of the lungs too, which a crop does not move. Candidates count as copies when their fine detail correlates.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FRAME_PX = 64
NEAR_LUNGS = 0.965
"""Likeness of the lungs' boxes from which two images are one exposure. Among the Train and Val images of COVID-QU-Ex's
infection tree the least of 393 copies found has 0.98, the most of all others (one patient taken twice) 0.951; phantoms
reach 0.937."""
NEAR_IMAGE = 0.975  # The same for whole images, whose outlines are more alike: there 0.957, phantoms reach 0.961.
NEIGHBOURS = 4  # Candidates an image and kind of picture; there each copy was the nearest image but for other copies.
TILE_PX = 8
MOST_STRETCH = 1.5
DIMENSIONS = 128
_BLOCK = 128  # rows of the matrix of cosines at a time: all at once would not fit into memory

Frame = npt.NDArray[np.uint8]  # (FRAME_PX, FRAME_PX) uint8.
Array = npt.NDArray[np.float32]


class Signature(NamedTuple):
    """What is kept of an image to find its copies; about 8 kB."""

    digest: bytes  # Hash of shape and pixels.
    image: Frame  # The image, stretched to a square.
    lungs: Frame | None  # The box of its lungs, stretched to a square; None without a lung mask.


def sign(image: npt.NDArray[np.uint8], lung: npt.NDArray[np.bool_] | None) -> Signature:
    """Make the signature of an image (H, W) with its lung mask (H, W) or None."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    box = None if lung is None else lung_box(lung)
    return Signature(digest.digest(), _frame(image), None if box is None else _frame(image[box]))


def lung_box(lung: npt.NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold all but 2 % of a mask at each end, so that specks do not move it; None if tiny."""
    sides = []
    for axis in (1, 0):
        share = np.cumsum(cv2.reduce(lung.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel())
        start, stop = np.searchsorted(share, share[-1] * np.array([0.02, 0.98]))
        sides.append(slice(int(start), int(stop) + 1))
    rows, columns = sides
    return None if min(rows.stop - rows.start, columns.stop - columns.start) < 8 else (rows, columns)


def neighbours(frames: Sequence[Frame]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs (i, j), i < j, of frames near each other with their cosine, some of them twice.

    Each frame is averaged down to 16x16, freed of brightness and contrast, and projected on the principal
    components of all, divided by the root of their strength: what all chests share weighs less, and what tells
    them apart weighs more. Time grows with the square of the count (2 at least), in matrix products only.
    """
    points = _whiten(np.stack([cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA) for frame in frames]))
    count = min(NEIGHBOURS, len(points) - 1)
    for start in range(0, len(points), _BLOCK):
        cosines = points[start : start + _BLOCK] @ points.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -2  # no frame is its own neighbour
        nearest = np.argpartition(cosines, -count, axis=1)[:, -count:]
        values = np.take_along_axis(cosines, nearest, axis=1)
        for i, others, row in zip((start + rows).tolist(), nearest.tolist(), values.tolist(), strict=True):
            yield from ((min(i, j), max(i, j), cosine) for j, cosine in zip(others, row, strict=True))


def likeness(first: Frame, second: Frame) -> float:
    """Align two frames and compare their fine detail.

    Detail is the image (blurred by 0.7 px, so that compression does not count) less its mean over 4 px, by its
    standard deviation over 4 px. An affine map is fitted by ECC (Evangelidis and Psarakis, IEEE TPAMI 2008). The
    median over tiles is not moved by arrows and captions that were added.

    Returns:
        Median over tiles of 8 px of the correlation of details, in [-1, 1]; 0 where no alignment is found.
    """
    a, b = _detail(first), _detail(second)
    enough, start = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4), np.eye(2, 3, dtype=np.float32)
    try:
        # its types forget that the mask may be None here too
        _, warp = cv2.findTransformECC(a, b, start, cv2.MOTION_AFFINE, enough, None, 5)  # type: ignore[call-overload]
    except cv2.error:  # the fit does not converge
        return 0.0
    stretch = np.linalg.svd(warp[:, :2], compute_uv=False)
    if stretch[0] > MOST_STRETCH or stretch[1] < 1 / MOST_STRETCH:
        return 0.0
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (FRAME_PX, FRAME_PX)
    seen = _tiles(cv2.warpAffine(np.ones_like(b), warp, size, flags=flags)).min(axis=1) > 0.5
    return _tile_correlation(_tiles(a)[seen], _tiles(cv2.warpAffine(b, warp, size, flags=flags))[seen])


def is_blank(frame: Frame) -> bool:
    """Whether there is nothing in a frame to compare."""
    return int(frame.max()) - int(frame.min()) < 4


def _frame(image: npt.NDArray[np.uint8]) -> Frame:
    """Average the sides that shrink, then interpolate those that grow: INTER_AREA would leave blocks there."""
    height, width = (min(side, FRAME_PX) for side in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR), np.uint8)


def _whiten(thumbnails: npt.NDArray[np.uint8]) -> Array:
    """(n, 16, 16) -> (n, d) of unit length."""
    points = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    points = _unit(points - points.mean(axis=1, keepdims=True))
    points -= points.mean(axis=0)
    strength, axes = np.linalg.eigh((points.T @ points).astype(np.float64))
    used = np.flatnonzero(strength > 1e-6 * strength[-1])[-DIMENSIONS:]
    scaled = axes[:, used] / strength[used] ** 0.25  # strength is that of the squares
    return _unit(points @ scaled.astype(np.float32))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6)))


def _detail(frame: Frame) -> Array:
    smooth = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 0.7)
    detail = smooth - cv2.GaussianBlur(smooth, (0, 0), 4)
    return np.asarray(detail / (np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4)) + 1), np.float32)


def _tiles(frame: npt.NDArray[Any]) -> Array:
    """(FRAME_PX, FRAME_PX) -> (tiles, pixels)."""
    across = FRAME_PX // TILE_PX
    return frame.reshape(across, TILE_PX, across, TILE_PX).swapaxes(1, 2).reshape(across * across, -1)


def _tile_correlation(a: Array, b: Array) -> float:
    """Median correlation of tiles (n, pixels), those without detail in both left out; 0 where too few are left."""
    a, b = (tiles - tiles.mean(axis=1, keepdims=True) for tiles in (a, b))
    power_a, power_b = (np.einsum("ij,ij->i", tiles, tiles) / TILE_PX**2 for tiles in (a, b))
    full = np.maximum(power_a, power_b) > 0.1  # of 1
    if np.count_nonzero(full) < 20:
        return 0.0
    products = np.einsum("ij,ij->i", a, b)[full] / TILE_PX**2
    return float(np.median(products / np.sqrt(power_a[full] * power_b[full] + 1e-6)))
