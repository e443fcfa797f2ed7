"""Disease of the phantoms: opacity fields that live inside the lungs and nowhere else.

A field is (S, S) float32 in [0, 1] and exactly 0 outside the lung mask.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.phantom.anatomy import SIDES, Points, Side
from lungseg.data.phantom.layers import Layer, blur, clouds

Mask = NDArray[np.bool_]
_LOBES = ((-100, -80), (30, 65), (100, 130))
"""Upper, lower and (image left only) middle lobe: the way into it from its fissure, degrees; 0 outward, 90 down."""


def ground_glass(rng: np.random.Generator, sides: tuple[Mask, Mask], air: Layer) -> Layer:
    """Four to nine soft patches in both lungs, towards the ribs and the bases: the picture of COVID-19.

    Args:
        rng: Source of every choice.
        sides: The two lungs, image left first, each (S, S) bool.
        air: (S, S) float32, the share of air: 0 outside the lungs, so the field meets their edge without a seam.
    """
    count = int(rng.integers(4, 10))
    first = int(rng.integers(2, count - 1))
    side_px = len(sides[0])
    ragged = 1.15 + 0.24 * clouds(rng, side_px, 14) + 0.07 * clouds(rng, side_px, 32)
    clear = np.ones_like(ragged)
    for side, lung, patches in zip(SIDES, sides, rng.permutation([first, count - first]), strict=True):
        for _ in range(patches):
            clear *= 1 - _smoothstep((ragged - _distance(rng, lung, side)) / 0.95) * np.float32(rng.uniform(0.75, 1))
    return (1 - clear) * air


def _distance(rng: np.random.Generator, lung: Mask, side: Side) -> Layer:
    """Distance in patch radii from a point of the outer or lower lung; a radius is 9 to 19 % of the lung's height."""
    rows = np.flatnonzero(lung.any(axis=1))
    row = rows[int(len(rows) * (0.15 + 0.75 * rng.beta(2.2, 1.3)))]
    columns = np.flatnonzero(lung[row])
    inward = columns[::-side]
    column = inward[int(rng.beta(1.6, 2.4) * (len(columns) - 1))]
    radius, stretch = len(rows) * rng.uniform(0.09, 0.19), rng.uniform(0.75, 1.35)
    angle = rng.uniform(0, math.pi)
    axis = np.arange(len(lung), dtype=np.float32)
    x, y = (axis - column)[None] / radius, (axis - row)[:, None] / radius
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return np.asarray(cv2.magnitude(along / stretch, across * stretch), np.float32)


def consolidation(rng: np.random.Generator, sides: tuple[Mask, Mask], air: Layer) -> Layer:
    """One dense lobe of one lung, cut off at a fissure: the picture of a lobar pneumonia (Non-COVID).

    Args:
        rng: Source of every choice.
        sides: The two lungs, image left first, each (S, S) bool.
        air: (S, S) float32, the share of air, as for `ground_glass`.
    """
    side = int(rng.integers(2))
    lung, outward = sides[side], (-1, 1)[side]
    low, high = _LOBES[int(rng.integers(3 if side == 0 else 2))]
    angle = math.radians(rng.uniform(low, high))
    axis = np.arange(len(lung), dtype=np.float32) / len(lung)
    x, y = outward * axis[None], axis[:, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
    across -= across[lung].mean()
    reach: Layer = along + rng.uniform(-1.2, 1.2) * across**2 + 0.006 * clouds(rng, len(lung), 12)
    fissure = float(np.quantile(reach[lung], 1 - rng.uniform(0.26, 0.42)))
    density = np.clip(0.86 + 0.10 * clouds(rng, len(lung), 9), 0.65, 1)
    dense: Layer = _smoothstep((reach - fissure) / 0.03 + 0.5) * density * air * lung
    return dense


def bronchogram(rng: np.random.Generator, sides: tuple[Mask, Mask], field: Layer) -> Layer:
    """Thin air-filled branches seen through a dense field: (S, S) float32 in [0, 1] to take from it."""
    side_px, shift = len(field), 6
    centre, hilum = _centre(field), _centre(sides[0].astype(np.float32) + sides[1])
    tips = centre + rng.normal(0, 0.06 * side_px, (5, 2))
    roots = centre + 0.55 * (hilum - centre) + rng.normal(0, 0.02 * side_px, (5, 2))
    middles = (roots + tips) / 2 + rng.normal(0, 0.012 * side_px, (5, 2))
    paths = np.round(np.stack([roots, middles, tips], axis=1) * 2**shift).astype(np.int32)
    canvas = np.zeros((side_px, side_px), np.uint8)
    cv2.polylines(canvas, list(paths), False, 255, max(1, round(0.006 * side_px)), cv2.LINE_AA, shift)
    return blur(canvas * np.float32(1 / 255), 0.003) * field


def _centre(weight: Layer) -> Points:
    """(x, y) of the centre of mass, pixels."""
    axis = np.arange(len(weight))
    return np.array([weight.sum(axis=0) @ axis, weight.sum(axis=1) @ axis]) / float(weight.sum())


def _smoothstep(value: Layer) -> Layer:
    """0 below 0, 1 above 1, smooth between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)
