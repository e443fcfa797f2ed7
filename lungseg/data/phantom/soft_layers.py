"""Drawing with attenuation: outlines in body coordinates become soft layers of pixels.

Layers are (R, R) float32, mostly in [0, 1], and are added up with weights as X-ray attenuation adds up along a ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.phantom.anatomy import Points

Layer = NDArray[np.float32]
_SHIFT = 6  # cv2 takes coordinates in 1/2**_SHIFT pixels
_WIDE_PX = 5.0  # wider blurs are done on a smaller copy
_SMALL_PX = 64
_FINE_PX = 1024


@dataclass(frozen=True)
class Pose:
    """How the body stands on the film."""

    tilt_deg: float
    zoom: float
    shift: float  # Midline from the image's middle, share of the image side, to the right.

    def place(self, points: Points) -> Points:
        """Body coordinates to shares of the image side from its upper left corner; (N, 2) both."""
        angle = math.radians(self.tilt_deg)
        turn = self.zoom * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        return np.asarray((points - [0, 0.5]) @ turn + [0.5 + self.shift, 0.5])


def draw_pose(rng: np.random.Generator) -> Pose:
    """Choose how the patient stands: a few degrees of tilt, nearer or farther, nearly centred."""
    tilt_deg = float(np.clip(rng.normal(0, 2), -5, 5))
    return Pose(tilt_deg, zoom=rng.uniform(0.90, 1.05), shift=rng.uniform(-0.02, 0.02))


def fill(side_px: int, pose: Pose, outlines: Sequence[Points], soft: float = 0.0) -> Layer:
    """Filled outlines, blurred by `soft` (standard deviation, share of the side)."""
    return blur(_polygons(side_px, pose, outlines, cv2.LINE_AA) * np.float32(1 / 255), soft)


def cover(side_px: int, pose: Pose, outlines: Sequence[Points]) -> Layer:
    """The share of each pixel that lies inside the outlines; `fill` is faster and half a pixel too wide."""
    canvas = _polygons(side_px * max(2, _FINE_PX // side_px), pose, outlines, cv2.LINE_8)
    small = cv2.resize(canvas, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return small * np.float32(1 / 255)


def stroke(
    side_px: int, pose: Pose, lines: Sequence[Points], width: float, soft: float = 0.0, closed: bool = False
) -> Layer:
    """Lines of a `width` in shares of the side (one pixel at least), blurred by `soft`."""
    canvas = np.zeros((side_px, side_px), np.uint8)
    paths = to_px(pose, lines, side_px)
    cv2.polylines(canvas, paths, closed, 255, max(1, round(width * side_px)), cv2.LINE_AA, _SHIFT)
    return blur(canvas * np.float32(1 / 255), soft)


def to_px(pose: Pose, lines: Sequence[Points], side_px: int) -> list[NDArray[np.int32]]:
    """Body coordinates to cv2's fixed-point pixel coordinates, each (N, 1, 2)."""
    # cv2 counts from the centre of the first pixel, shares from the edge of the image.
    px = (pose.place(np.concatenate(lines)) * side_px - 0.5) * 2**_SHIFT
    fixed = np.round(px).astype(np.int32)[:, None]
    return np.split(fixed, np.cumsum([len(line) for line in lines])[:-1])


def blur(layer: Layer, soft: float) -> Layer:
    """Gaussian blur with a standard deviation in shares of the side."""
    side_px = layer.shape[0]
    if soft * side_px < 0.2:
        return layer
    if soft * side_px < _WIDE_PX:
        return _smooth(layer, soft * side_px)
    # So wide a blur keeps nothing that a small copy does not hold, and takes a fraction of the time there.
    return _grow(_smooth(shrink(layer, _SMALL_PX), soft * _SMALL_PX), side_px)


def clouds(rng: np.random.Generator, side_px: int, cells: int) -> Layer:
    """Smooth random field of about unit deviation, with `cells` bumps along a side."""
    return _grow(rng.standard_normal((cells, cells)).astype(np.float32), side_px)


def shrink(layer: Layer, side_px: int) -> Layer:
    """Average down to the side asked for."""
    if layer.shape[0] == side_px:
        return layer
    return np.asarray(cv2.resize(layer, (side_px, side_px), interpolation=cv2.INTER_AREA), np.float32)


def _polygons(side_px: int, pose: Pose, outlines: Sequence[Points], line: int) -> NDArray[np.uint8]:
    canvas = np.zeros((side_px, side_px), np.uint8)
    for path in to_px(pose, outlines, side_px):
        cv2.fillPoly(canvas, [path], 255, line, _SHIFT)
    return canvas


def _smooth(layer: Layer, sigma_px: float) -> Layer:
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32)


def _grow(layer: Layer, side_px: int) -> Layer:
    return np.asarray(cv2.resize(layer, (side_px, side_px), interpolation=cv2.INTER_CUBIC), np.float32)
