"""How an image lies, and whether it resembles a frontal chest X-ray at all: from 768 numbers of it, without a network.

The numbers are a coarse picture and a histogram of oriented gradients (Dalal and Triggs, CVPR 2005) with signed
directions. Turned, mirrored or inverted, an image has the same numbers in other places, so one vector of weights
rates all 16 orientations of it. What was learned lies in `orientation.npz`, which
`python -m lungseg.benchmarks.fit_orientation` makes.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("orientation.npz")
_SIDE_PX, _COARSE, _CELLS, _BINS = 64, 16, 8, 8
_GRADIENTS = _BINS * _CELLS * _CELLS
FEATURES = _GRADIENTS + _COARSE * _COARSE
Array = NDArray[np.float32]


class Orientation(NamedTuple):
    """What was done to an upright X-ray, in this order."""

    mirrored: bool  # Left and right exchanged.
    quarter_turns: int  # Anticlockwise, 0 to 3.
    inverted: bool  # Black and white exchanged.


ORIENTATIONS = tuple(
    Orientation(mirror, turns, invert) for invert in (False, True) for mirror in (False, True) for turns in range(4)
)
"""The first is the upright one."""


class Known(NamedTuple):
    """What was learned from the F = `FEATURES` numbers of frontal chest X-rays; float32."""

    upright: Array
    """(F,) weights: the product with the numbers of an image is the logit that it lies upright, among the 16."""
    cropped: Array  # (F + 1,) weights and bias: the logit of a crop that leaves a third to a half of each side.
    mean: Array  # (F,).
    axes: Array  # (K, F): principal components, orthonormal.
    usual: Array  # (1,): root mean square of the distance from the plane of these.


class Likeness(NamedTuple):
    """What the numbers of one image say."""

    turned: float  # Probability that it is turned.
    degrees: int  # The likeliest turn, clockwise: 0, 90, 180 or 270.
    inverted: float  # Probability.
    mirrored: float  # Probability.
    cropped: float  # Probability that most of the chest is missing; as the distance, in the likeliest orientation.
    distance: float  # From the frontal chest X-rays known; 1 is usual.


def reorient(image: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Mirror, turn and invert an image (H, W)."""
    turned = np.rot90(image[:, ::-1] if orientation.mirrored else image, orientation.quarter_turns)
    return np.ascontiguousarray(255 - turned if orientation.inverted else turned)


def compare(image: NDArray[np.uint8]) -> Likeness:
    """Compare an image (H, W) with the frontal chest X-rays known."""
    known, spread_out = load_known()
    numbers = features(image)
    logits = numbers @ spread_out
    probs = np.exp(logits - logits.max())  # without an overflow
    probs = (probs / probs.sum()).astype(np.float64).reshape(2, 2, 4)  # inverted, mirrored, turns: as `ORIENTATIONS`
    turns = probs.sum(axis=(0, 1))
    index, sign = _rearrangements()[int(logits.argmax())]
    righted = numbers[index] * sign
    away = righted - known.mean
    # Pythagoras: the squared distance from the plane is that from the mean less what lies within the plane.
    left = max(0.0, float(np.square(away).sum()) - float(np.square(known.axes @ away).sum()))
    return Likeness(
        max(0.0, 1 - float(turns[0])),
        int(-90 * np.argmax(turns)) % 360,
        float(probs[1].sum()),
        float(probs[:, 1].sum()),
        1 / (1 + float(np.exp(-(righted @ known.cropped[:-1] + known.cropped[-1])))),
        float(np.sqrt(left)) / float(known.usual[0]),
    )


@cache
def load_known() -> tuple[Known, Array]:
    """What was learned, and its weights spread over the orientations."""
    with np.load(FILE, allow_pickle=False) as arrays:
        known = Known(*(arrays[name].astype(np.float32) for name in Known._fields))
    return known, spread(known.upright)


def features(image: NDArray[np.uint8]) -> Array:
    """The numbers of an image (H, W): (F,) float32, free of brightness, contrast, gamma and aspect.

    Grey values become ranks. The square roots of the gradients' shares, by direction (8, 45 degrees each) and cell
    (8 x 8), come first; then the picture of 16 x 16 pixels, of length 1.
    """
    small = np.asarray(cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    ranks = (grey_ranks(small) - 0.5).astype(np.float32)
    even = cv2.GaussianBlur(ranks[small], (0, 0), 1.0)
    coarse = np.asarray(cv2.resize(even, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA), np.float32).ravel()
    cells = _gradients(np.asarray(even, np.float32))
    # Square roots of shares, so that the few strong edges (markers, collars) do not outweigh the ribs.
    strong = np.sqrt(cells / max(float(cells.sum()), 1e-6))
    return np.concatenate([strong, coarse / max(float(np.linalg.norm(coarse)), 1e-6)]).astype(np.float32)


def grey_ranks(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean rank, in [0, 1], of an image's pixels of each grey value: (256,)."""
    counts = np.bincount(image.ravel(), minlength=256)
    return np.asarray((np.cumsum(counts) - counts / 2) / image.size)


def spread(upright: NDArray[Any]) -> Array:
    """Weights (F,) that rate an image as it is: (F, 16), that rate it as each of `ORIENTATIONS`."""
    spread_out = np.zeros((FEATURES, len(ORIENTATIONS)), np.float32)
    for column, (index, sign) in enumerate(_rearrangements()):
        spread_out[index, column] = upright * sign
    return spread_out


def _gradients(even: Array) -> Array:
    """Length of the gradients (64, 64), by direction and cell, each shared by the two nearest directions: (512,)."""
    right = cv2.Sobel(even, cv2.CV_32F, 1, 0, ksize=3)
    up = -cv2.Sobel(even, cv2.CV_32F, 0, 1, ksize=3)
    length, angle = cv2.cartToPolar(right, up)
    away = np.abs(angle * np.float32(_BINS / (2 * np.pi)) - np.arange(_BINS, dtype=np.float32)[:, None, None])
    planes = length * np.maximum(0, 1 - np.minimum(away, _BINS - away))
    cell = _SIDE_PX // _CELLS
    return np.asarray(planes.reshape(_BINS, _CELLS, cell, _CELLS, cell).sum(axis=(2, 4)), np.float32).ravel()


@cache
def _rearrangements() -> list[tuple[NDArray[np.intp], Array]]:
    """For each orientation: `features(reoriented)[index] * sign` are those of the upright image; (F,) each."""
    rearrangements = []
    for each in ORIENTATIONS:
        # Mirrored, a gradient to the right points to the left; turned by 90 degrees, it points two directions on;
        # inverted, every gradient points the other way, and the coarse picture changes its sign.
        bins = (4 - np.arange(_BINS) if each.mirrored else np.arange(_BINS)) + 2 * each.quarter_turns
        cells = _undo(np.arange(_GRADIENTS).reshape(_BINS, _CELLS, _CELLS), each)
        cells = cells[(bins + (_BINS // 2 if each.inverted else 0)) % _BINS]
        coarse = _undo(np.arange(_GRADIENTS, FEATURES).reshape(1, _COARSE, _COARSE), each)
        sign = np.ones(FEATURES, np.float32)
        sign[_GRADIENTS:] = -1 if each.inverted else 1
        rearrangements.append((np.concatenate([cells.ravel(), coarse.ravel()]), sign))
    return rearrangements


def _undo(planes: NDArray[np.intp], orientation: Orientation) -> NDArray[np.intp]:
    """Bring planes (N, S, S) of a reoriented image back to those of the upright one."""
    back = np.rot90(planes, -orientation.quarter_turns, axes=(1, 2))
    return back[..., ::-1] if orientation.mirrored else back
