"""Phantoms: synthetic chest radiographs with exact masks, so that everything can be tried without a data set.

The class changes pixels inside the lungs only, unless a shortcut is asked for. Stands in for `data.root`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.covidqu import CLASSES
from lungseg.data.phantom.anatomy import SIDES, Points, curve, draw_build, ellipse, lung_outline
from lungseg.data.phantom.radiograph import Mask, attenuation, bronchogram, consolidation, ground_glass, lung_air
from lungseg.data.phantom.soft_layers import Layer, Pose, blur, clouds, cover, draw_pose, fill, shrink, stroke
from lungseg.errors import UserError

VERSION = 1  # Raised whenever a seed gives another picture; part of a set's folder name.
INFECTION_SHARE = 0.25  # The infection mask is where the opacity exceeds this share of its peak.
_BODY, _EXPOSURE, _NOISE, _MARKS, _DISEASE = range(5)
_FRAME = Pose(tilt_deg=0.0, zoom=1.0, shift=-0.5)  # Film coordinates: shares of the side from the upper left corner.
_CODE_PLACES = ((0.10, 0.10), (0.90, 0.10), (0.50, 0.905))
"""Where the shortcut stands for each label: over a shoulder, over the other, below the heart."""
_DRAWN_PX = 256  # smaller images are drawn at this side and averaged down


@dataclass(frozen=True)
class Phantom:
    """One synthetic radiograph and its exact targets."""

    image: NDArray[np.uint8]  # (S, S) uint8, bright is dense.
    lung: NDArray[np.bool_]  # (S, S) bool: the lung fields without heart, midline and what lies below the diaphragm.
    infection: NDArray[np.bool_]  # (S, S) bool in `lung`: opacity above `INFECTION_SHARE` of its peak; none for Normal.
    label: int  # Index into `CLASSES`.

    @property
    def class_name(self) -> str:
        """Its class, one of `CLASSES`."""
        return CLASSES[self.label]


def draw_phantom(seed: int, label: int | None = None, size_px: int = 256, shortcut: bool = False) -> Phantom:
    """Draw a radiograph of patient `seed` (0 or more) with a label (index into `CLASSES`), always with the same bytes.

    Without a label the classes take turns, seed after seed.
    Anatomy, exposure, noise and marks come from random streams that do not know the label: with equal `seed`
    and `size_px`, phantoms of different labels differ inside the lungs only. A `shortcut` adds a bright mark outside
    the lungs whose shape and place tell the label.
    """
    label = seed % len(CLASSES) if label is None else label
    if not 0 <= label < len(CLASSES):
        raise UserError(f"label must be an index into {CLASSES}, got {label!r}")
    drawn_px = max(size_px, _DRAWN_PX)
    # One stream a purpose: what one of them draws more or less leaves the others as they are.
    body, exposure, mark = (np.random.default_rng([part, seed]) for part in (_BODY, _EXPOSURE, _MARKS))
    build, pose = draw_build(body), draw_pose(body)
    sides = tuple(cover(size_px, pose, [lung_outline(build, side)]) > 0.5 for side in SIDES)
    lung = sides[0] | sides[1]
    air = lung_air(build, pose, drawn_px)
    film = attenuation(build, pose, air, body) + _cables(mark, drawn_px)
    film = film + np.float32(exposure.uniform(-0.1, 0.35)) * (film - blur(film, 0.07))  # scatter to edge enhancement
    soft = exposure.uniform(0, 0.0028)  # the detector's blur
    film, air = shrink(blur(film, soft), size_px), shrink(blur(air, soft), size_px) * lung
    disease, infection = _disease(np.random.default_rng([_DISEASE, seed, label]), label, sides, air)
    image = _expose(film + disease, exposure)
    letter = shrink(_side_letter(mark, drawn_px), size_px)
    if not (lung & (letter > 0)).any():  # a letter on a lung would be a finding to the network
        image = np.maximum(image, 0.95 * letter)
    image *= _borders(mark, lung)
    if shortcut:
        image = _stamp_code(image, mark, label)
    image += _noise(np.random.default_rng([_NOISE, seed]), size_px)
    return Phantom(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), lung, infection, label)


def _disease(rng: np.random.Generator, label: int, sides: Sequence[Mask], air: Layer) -> tuple[Layer, Mask]:
    """What the disease adds to the attenuation, (S, S) float32 and 0 outside the lungs, and its mask."""
    if CLASSES[label] == "Normal":
        return np.zeros(sides[0].shape, np.float32), np.zeros_like(sides[0])
    if CLASSES[label] == "COVID-19":
        field = ground_glass(rng, sides, air)
        added = field * (1 + 0.14 * clouds(rng, len(field), 64)) * np.float32(rng.uniform(0.24, 0.31))
    else:
        field = consolidation(rng, sides, air)
        added = (field - 0.3 * bronchogram(rng, sides, field)) * np.float32(rng.uniform(0.30, 0.40))
    return added, field > INFECTION_SHARE * field.max()


def _expose(film: Layer, rng: np.random.Generator) -> Layer:
    """Attenuation to brightness in [0, 1] or little above: window, shoulder of the film, gamma."""
    low, high = rng.uniform(0.02, 0.10), rng.uniform(1.02, 1.22)
    shoulder, gamma = rng.uniform(0.4, 1.2), rng.uniform(1.0, 1.5)
    value = np.maximum((film - np.float32(low)) / np.float32(high - low), 0)
    return np.asarray(((1 - np.exp(-shoulder * value)) / (1 - math.exp(-shoulder))) ** gamma)


def _noise(rng: np.random.Generator, size_px: int) -> Layer:
    """Grain of the film, (S, S) float32; weaker where smaller images average it."""
    deviation = np.float32(rng.uniform(0.004, 0.014) * min(1, size_px / _DRAWN_PX) ** 0.5)
    white = rng.standard_normal((size_px, size_px), dtype=np.float32) * deviation
    return white + 2 * blur(white, 0.004)


def _cables(rng: np.random.Generator, side_px: int) -> Layer:
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


def _side_letter(rng: np.random.Generator, side_px: int) -> Layer:
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


def _stamp_code(image: Layer, rng: np.random.Generator, label: int) -> Layer:
    """The shortcut: a bright disc, triangle or square with a dark rim, each at its own place outside the lungs."""
    side_px, size = len(image), rng.uniform(0.021, 0.026)
    place = np.array(_CODE_PLACES[label]) + rng.uniform(-0.012, 0.012, 2)
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    shapes: tuple[Points, ...] = (ellipse(0, 0, 1, 1), np.array([[0, -1.1], [1.1, 0.8], [-1.1, 0.8]]), square * 0.9)
    plate = fill(side_px, _FRAME, [shapes[label] * 1.45 * size + place])
    return image * (1 - plate) + fill(side_px, _FRAME, [shapes[label] * size + place])


def _borders(rng: np.random.Generator, lungs: Mask) -> Layer:
    """Collimation: a factor (S, S) float32 that blackens up to 3.5 % of the film at some edges, never the lungs."""
    side_px = len(lungs)
    columns, rows = np.flatnonzero(lungs.any(axis=0)), np.flatnonzero(lungs.any(axis=1))
    free = (columns[0], side_px - 1 - columns[-1], rows[0], side_px - 1 - rows[-1])
    # All numbers are drawn whether they are used or not, so that films with and without borders stay comparable.
    strips = rng.uniform(0.008, 0.035, 4) * (rng.random(4) < 0.6) * (rng.random() < 0.4) * side_px
    left, right, top, bottom = (min(round(strip), int(most)) for strip, most in zip(strips, free, strict=True))
    factor = np.full(lungs.shape, np.float32(rng.uniform(0, 0.06)))
    factor[top : side_px - bottom, left : side_px - right] = 1
    return factor
