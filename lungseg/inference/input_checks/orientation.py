"""How an image lies, and whether it resembles a frontal chest X-ray at all: from 768 numbers of it, without a network.

The numbers are a coarse picture and a histogram of oriented gradients (Dalal and Triggs, CVPR 2005) with signed
directions. Turned, mirrored or inverted, an image has the same numbers in other places, so one vector of weights
rates all 16 views of it. What was learned lies in `orientation.npz`, made by `python -m lungseg.benchmarks.fit_view`.
"""

from __future__ import annotations

from functools import lru_cache
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


class View(NamedTuple):
    """What was done to an upright X-ray, in this order."""

    mirrored: bool
    """Left and right exchanged."""
    quarter_turns: int
    """Anticlockwise, 0 to 3."""
    inverted: bool
    """Black and white exchanged."""


VIEWS = tuple(View(mirror, turns, invert) for invert in (False, True) for mirror in (False, True) for turns in range(4))
"""The first is the upright one."""


class Known(NamedTuple):
    """What was learned from the F = `FEATURES` numbers of frontal chest X-rays; float32."""

    upright: Array
    """(F,) weights: the product with the numbers of a view is the logit of that view among the 16."""
    cropped: Array
    """(F + 1,) weights and bias: the logit of a crop that leaves a third to a half of each side."""
    mean: Array
    """(F,)."""
    axes: Array
    """(K, F): principal components, orthonormal."""
    usual: Array
    """(1,): root mean square of the distance from the plane of these."""


class Likeness(NamedTuple):
    """What the numbers of one image say."""

    turned: float
    """Probability that it is turned."""
    degrees: int
    """The likeliest turn, clockwise: 0, 90, 180 or 270."""
    inverted: float
    """Probability."""
    mirrored: float
    """Probability."""
    cropped: float
    """Probability that most of the chest is missing; as the distance, in the likeliest view."""
    distance: float
    """From the frontal chest X-rays known; 1 is usual."""


def apply_view(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Do to an image (H, W) what a view says."""
    seen = np.rot90(image[:, ::-1] if view.mirrored else image, view.quarter_turns)
    return np.ascontiguousarray(255 - seen if view.inverted else seen)


def compare(image: NDArray[np.uint8]) -> Likeness:
    """Compare an image (H, W) with the frontal chest X-rays known."""
    known, spread_out = _load()
    numbers = features(image)
    logits = numbers @ spread_out
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    turns = [_sum(probs, quarter_turns=number) for number in range(4)]
    place, sign = _places()[int(logits.argmax())]
    righted = numbers[place] * sign
    away = righted - known.mean
    left = max(0.0, float(np.square(away).sum()) - float(np.square(known.axes @ away).sum()))
    return Likeness(
        max(0.0, 1 - turns[0]),
        int(-90 * np.argmax(turns)) % 360,
        _sum(probs, inverted=True),
        _sum(probs, mirrored=True),
        1 / (1 + float(np.exp(-(righted @ known.cropped[:-1] + known.cropped[-1])))),
        float(np.sqrt(left)) / float(known.usual[0]),
    )


def forget() -> None:
    """Read `FILE` anew the next time."""
    _load.cache_clear()


def features(image: NDArray[np.uint8]) -> Array:
    """The numbers of an image (H, W): (F,) float32, free of brightness, contrast, gamma and aspect.

    Grey values become ranks. The square roots of the gradients' shares, by direction (8, 45 degrees each) and cell
    (8 x 8), come first; then the picture of 16 x 16 pixels, of length 1.
    """
    small = np.asarray(cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    counts = np.bincount(small.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - counts / 2) / small.size - 0.5).astype(np.float32)
    even = cv2.GaussianBlur(ranks[small], (0, 0), 1.0)
    coarse = np.asarray(cv2.resize(even, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA), np.float32).ravel()
    cells = _gradients(np.asarray(even, np.float32))
    strong = np.sqrt(cells / max(float(cells.sum()), 1e-6))
    return np.concatenate([strong, coarse / max(float(np.linalg.norm(coarse)), 1e-6)]).astype(np.float32)


def spread(upright: NDArray[Any]) -> Array:
    """Weights (F,) that rate an image as it is: (F, 16), that rate it as each of `VIEWS`."""
    spread_out = np.zeros((FEATURES, len(VIEWS)), np.float32)
    for column, (place, sign) in enumerate(_places()):
        spread_out[place, column] = upright * sign
    return spread_out


def gather(each: NDArray[Any]) -> NDArray[np.float64]:
    """The transpose of `spread`: (F, 16) to (F,), for the gradient of its weights."""
    turned_back = [each[place, column] * sign for column, (place, sign) in enumerate(_places())]
    return np.asarray(np.sum(turned_back, axis=0), np.float64)


def _gradients(even: Array) -> Array:
    """Length of the gradients (64, 64), by direction and cell, each shared by the two nearest directions: (512,)."""
    right = cv2.Sobel(even, cv2.CV_32F, 1, 0, ksize=3)
    up = -cv2.Sobel(even, cv2.CV_32F, 0, 1, ksize=3)
    length, angle = cv2.cartToPolar(right, up)
    away = np.abs(angle * np.float32(_BINS / (2 * np.pi)) - np.arange(_BINS, dtype=np.float32)[:, None, None])
    planes = length * np.maximum(0, 1 - np.minimum(away, _BINS - away))
    cell = _SIDE_PX // _CELLS
    return np.asarray(planes.reshape(_BINS, _CELLS, cell, _CELLS, cell).sum(axis=(2, 4)), np.float32).ravel()


@lru_cache(maxsize=1)
def _places() -> list[tuple[NDArray[np.intp], Array]]:
    """For each view: `features(view)[place] * sign` are those of the upright image; (F,) each."""
    found = []
    for view in VIEWS:
        bins = (4 - np.arange(_BINS) if view.mirrored else np.arange(_BINS)) + 2 * view.quarter_turns
        cells = _undo(np.arange(_GRADIENTS).reshape(_BINS, _CELLS, _CELLS), view)
        cells = cells[(bins + (_BINS // 2 if view.inverted else 0)) % _BINS]
        coarse = _undo(np.arange(_GRADIENTS, FEATURES).reshape(1, _COARSE, _COARSE), view)
        sign = np.ones(FEATURES, np.float32)
        sign[_GRADIENTS:] = -1 if view.inverted else 1
        found.append((np.concatenate([cells.ravel(), coarse.ravel()]), sign))
    return found


def _undo(planes: NDArray[np.intp], view: View) -> NDArray[np.intp]:
    """Bring planes (N, S, S) of a view back to those of the upright image."""
    back = np.rot90(planes, -view.quarter_turns, axes=(1, 2))
    return back[..., ::-1] if view.mirrored else back


@lru_cache(maxsize=1)
def _load() -> tuple[Known, Array]:
    """What was learned, and its weights spread over the views."""
    with np.load(FILE, allow_pickle=False) as stored:
        known = Known(*(stored[name].astype(np.float32) for name in Known._fields))
    return known, spread(known.upright)


def _sum(probs: Array, **wanted: object) -> float:
    """Probability of all views that are as wanted."""
    items = wanted.items()
    return sum(
        float(p)
        for p, view in zip(probs, VIEWS, strict=True)
        if all(getattr(view, name) == value for name, value in items)
    )
