"""What stands on a film beside the patient: cables, side letters, black borders, and the planted shortcut."""

from __future__ import annotations

import cv2
import numpy as np

from lungseg.data.phantom.anatomy import Points, curve
from lungseg.data.phantom.layers import Layer, Pose, ellipse, fill, stroke

_FRAME = Pose(tilt_deg=0.0, zoom=1.0, shift=-0.5)
"""Film coordinates: x and y in shares of the side from the upper left corner."""
_CODE_PLACES = ((0.10, 0.10), (0.90, 0.10), (0.50, 0.905))
"""Where the shortcut stands for each label: over a shoulder, over the other, below the heart."""


def cables(rng: np.random.Generator, side_px: int) -> Layer:
    """Electrodes and their leads on one film in five, else zeros: attenuation (R, R) float32."""
    if rng.random() >= 0.2:
        return np.zeros((side_px, side_px), np.float32)
    count = int(rng.integers(1, 4))
    ends = rng.uniform([0.15, 0.25], [0.85, 0.75], (count, 2))
    exits = np.column_stack([rng.choice([-0.05, 1.05], count), rng.uniform(0.3, 1.1, count)])
    middles = (ends + exits) / 2 + rng.normal(0, 0.09, (count, 2))
    wires = [curve(np.array(knots)) for knots in zip(ends, middles, exits, strict=True)]
    discs = [ellipse(x, y, 0.013, 0.013, 16) for x, y in ends]
    layer = 0.16 * stroke(side_px, _FRAME, wires, 0.006, 0.0015) + 0.25 * fill(side_px, _FRAME, discs, 0.002)
    return np.float32(rng.uniform(0.8, 1.3)) * layer


def side_letter(rng: np.random.Generator, side_px: int) -> Layer:
    """A lead R or L beside the shoulder on three films in four, else zeros: (R, R) float32 in [0, 1]."""
    canvas = np.zeros((side_px, side_px), np.uint8)
    letter, x, y = str(rng.choice(["R", "L"])), rng.uniform(0.05, 0.085), rng.uniform(0.16, 0.34)
    height, font = rng.uniform(0.035, 0.055), (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX)[rng.integers(2)]
    if rng.random() < 0.75:
        scale = height * side_px / 21  # cv2's capitals are 21 px high at scale 1
        left = x if letter == "R" else 1 - x - 0.9 * height
        origin = (round(left * side_px), round((y + height) * side_px))
        cv2.putText(canvas, letter, origin, font, scale, 255, max(1, round(side_px / 170)), cv2.LINE_AA)
    return canvas * np.float32(1 / 255)


def stamp_code(image: Layer, rng: np.random.Generator, label: int) -> Layer:
    """The shortcut: a bright disc, triangle or square with a dark rim, each at its own place outside the lungs."""
    side_px, size = len(image), rng.uniform(0.021, 0.026)
    place = np.array(_CODE_PLACES[label]) + rng.uniform(-0.012, 0.012, 2)
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    shapes: tuple[Points, ...] = (ellipse(0, 0, 1, 1), np.array([[0, -1.1], [1.1, 0.8], [-1.1, 0.8]]), square * 0.9)
    plate = fill(side_px, _FRAME, [shapes[label] * 1.45 * size + place])
    return image * (1 - plate) + fill(side_px, _FRAME, [shapes[label] * size + place])


def borders(rng: np.random.Generator, lungs: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Layer:
    """Collimation: a factor (S, S) float32 that blackens up to 3.5 % of the film at some edges, never the lungs."""
    side_px = len(lungs)
    columns, rows = np.flatnonzero(lungs.any(axis=0)), np.flatnonzero(lungs.any(axis=1))
    free = (columns[0], side_px - 1 - columns[-1], rows[0], side_px - 1 - rows[-1])
    strips = rng.uniform(0.008, 0.035, 4) * (rng.random(4) < 0.6) * (rng.random() < 0.4) * side_px
    left, right, top, bottom = (min(round(strip), int(most)) for strip, most in zip(strips, free, strict=True))
    factor = np.full(lungs.shape, np.float32(rng.uniform(0, 0.06)))
    factor[top : side_px - bottom, left : side_px - right] = 1
    return factor
