"""From outlines to a film: the attenuation that a made-up thorax casts, tissue by tissue, and what disease adds to it.

Throughout, `rng` is the source of all choices, `sides` are the two lungs, image left first, each (S, S) bool, and `air`
(S, S) float32 is how much of a ray's way through the lungs is air: 0 at and beyond their edge, 1 well inside.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.phantom import anatomy
from lungseg.data.phantom.anatomy import SIDES, Build, Points, Side, ellipse
from lungseg.data.phantom.soft_layers import Layer, Pose, blur, clouds, cover, fill, stroke

Mask = NDArray[np.bool_]
_LOBES = ((-100, -80), (30, 65), (100, 130))
"""Upper, lower and (image left only) middle lobe: the way into it from its fissure, degrees; 0 outward, 90 down."""
_VESSELS = ((0.011, 0.10), (0.008, 0.085), (0.004, 0.08), (0.004, 0.05), (0.003, 0.035))
"""Width (share of the side) and weight of each generation."""


def lung_air(build: Build, pose: Pose, side_px: int) -> Layer:
    """The lungs' share of air along each ray, (R, R) float32 in [0, 1]."""
    lungs = cover(side_px, pose, [anatomy.lung_outline(build, side) for side in SIDES])
    return np.asarray(np.clip(2 * blur(lungs, 0.004) - 1, 0, 1) * (lungs > 0.5))


def attenuation(build: Build, pose: Pose, air: Layer, rng: np.random.Generator) -> Layer:
    """A thorax with clear lungs: (R, R) float32, 0 outside, about 0.2 in lungs, 0.5 to 1.2 elsewhere."""
    side_px = len(air)
    body = fill(side_px, pose, [anatomy.body_outline(build)], 0.006)
    middle = _middle(build, pose, rng, side_px)
    belly = _belly(build, pose, rng, side_px) * (1 - air)
    tissue = body * (0.20 + 0.36 * blur(body, 0.05)) - air * (0.12 + 0.29 * blur(air, 0.05))
    # Where the heart lies over the liver a ray meets no more tissue than the body is deep.
    tissue += (middle + belly - 1.6 * middle * belly) * body
    tissue += _ribs(build, pose, rng, side_px) * (0.42 + 0.58 * air) * body
    tissue += _shoulders(build, pose, rng, side_px) * np.clip(1 - 2.2 * middle, 0.35, 1) * body
    tissue += _vessels(build, pose, rng, side_px) * (0.25 + 0.75 * air)
    if rng.random() < 0.35:
        tissue += _breasts(build, pose, rng, side_px) * body
    grain = clouds(rng, side_px, 12) * 0.012 + clouds(rng, side_px, 40) * 0.008
    return np.maximum(tissue + grain * body, 0)


def ground_glass(rng: np.random.Generator, sides: Sequence[Mask], air: Layer) -> Layer:
    """Four to nine soft patches in both lungs, towards the ribs and the bases: the picture of COVID-19.

    A field (S, S) float32 in [0, 1]. Like `air` it is 0 outside the lungs, so it meets their edge without a seam.
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


def consolidation(rng: np.random.Generator, sides: Sequence[Mask], air: Layer) -> Layer:
    """One dense lobe of one lung, cut off at a fissure: as in lobar pneumonia (Non-COVID). A field as above."""
    side = int(rng.integers(2))
    lung, outward = sides[side], (-1, 1)[side]
    low, high = _LOBES[int(rng.integers(3 if side == 0 else 2))]
    angle = math.radians(rng.uniform(low, high))
    axis = np.arange(len(lung), dtype=np.float32) / len(lung)
    x, y = outward * axis[None], axis[:, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
    across -= across[lung].mean()  # so that the bend of the fissure is about the middle of the lung
    reach: Layer = along + rng.uniform(-1.2, 1.2) * across**2 + 0.006 * clouds(rng, len(lung), 12)
    fissure = float(np.quantile(reach[lung], 1 - rng.uniform(0.26, 0.42)))
    density = np.clip(0.86 + 0.10 * clouds(rng, len(lung), 9), 0.65, 1)
    return np.asarray(_smoothstep((reach - fissure) / 0.03 + 0.5) * density * air * lung)


def bronchogram(rng: np.random.Generator, sides: Sequence[Mask], field: Layer) -> Layer:
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


def _middle(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Heart, great vessels, spine, and the dark column of the windpipe."""
    wide, tall, top = build.half_width, build.height, build.apex
    trunk = np.array([[-0.13, -0.3], [0.13, -0.3], [0.16, 1.3], [-0.16, 1.3]]) * [1.25 * wide, tall] + [0, top]
    layer = 0.19 * fill(side_px, pose, [trunk], 0.022)
    layer += 0.15 * fill(side_px, pose, [anatomy.heart_outline(build)], 0.016)
    knob = ellipse(0.16 * wide, top + 0.27 * tall, 0.12 * wide, 0.075 * tall)
    layer += 0.08 * fill(side_px, pose, [knob], 0.008)
    lean, carina = rng.uniform(-0.008, 0.004), top + 0.36 * tall
    pipe = np.array([[0.004, -0.1], [0.002, top], [lean, top + 0.22 * tall], [lean, carina]])
    forks = [
        np.array([[lean, carina - 0.01], [lean + s * 0.03, carina + 0.035], [lean + s * reach, carina + 0.06]])
        for s, reach in ((-1, 0.055), (1, 0.075))
    ]
    layer -= 0.13 * stroke(side_px, pose, [anatomy.curve(pipe)], 0.036, 0.006)
    layer -= 0.06 * stroke(side_px, pose, [anatomy.curve(fork) for fork in forks], 0.022, 0.006)
    return layer + _spine(build, pose, side_px)


def _spine(build: Build, pose: Pose, side_px: int) -> Layer:
    """Vertebral bodies with their discs, pedicles and spinous processes."""
    step = 0.105 * build.height
    blocks, dots = [], []
    for y in np.arange(build.apex - 3.2 * step, 1.1, step):
        wide = 0.034 + 0.012 * max(0.0, y)
        corners = np.array([[-1, -0.42], [-0.9, 0], [-1, 0.42], [1, 0.42], [0.9, 0], [1, -0.42]])
        blocks.append(corners * [wide, step] + [0, y])
        dots += [ellipse(s * 0.62 * wide, y - 0.1 * step, 0.0075, 0.011, 12) for s in SIDES]
        dots.append(ellipse(0.0, y + 0.35 * step, 0.006, 0.014, 12))
    return 0.065 * fill(side_px, pose, blocks, 0.004) + 0.04 * fill(side_px, pose, dots, 0.003)


def _ribs(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Back parts, thin and nearly level, and front parts, broad, faint and steep."""
    pairs = [anatomy.rib(build, number, side) for number in range(10) for side in SIDES]
    backs = [anatomy.band(back, build.rib_width * np.linspace(0.85, 1.05, len(back))) for back, _ in pairs]
    fronts = [anatomy.band(front, build.rib_width * np.linspace(0.9, 1.35, len(front))) for _, front in pairs[:16]]
    layer: Layer = 0.08 * fill(side_px, pose, backs, 0.0025) + 0.05 * _rims(side_px, pose, backs)
    layer += 0.055 * fill(side_px, pose, fronts, 0.004) + 0.025 * _rims(side_px, pose, fronts)
    return layer * np.float32(rng.uniform(0.6, 1.2))


def _shoulders(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Collar bones, shoulder blades and upper arms."""
    lifts = rng.uniform(-0.02, 0.035) + rng.normal(0, 0.008, 2)
    collars = [anatomy.clavicle(build, side, lift) for side, lift in zip(SIDES, lifts, strict=True)]
    layer: Layer = 0.11 * fill(side_px, pose, collars, 0.002) + 0.055 * _rims(side_px, pose, collars)
    blades = [anatomy.shoulder_blade(build, side) for side in SIDES]
    layer += 0.04 * fill(side_px, pose, blades, 0.005) + 0.035 * _rims(side_px, pose, blades)
    arms = [anatomy.arm(build, side) for side in SIDES]
    shafts = [shaft for _, shaft in arms]
    layer += 0.11 * fill(side_px, pose, [*shafts, *(head for head, _ in arms)], 0.003)
    layer += 0.05 * _rims(side_px, pose, shafts)
    return layer


def _rims(side_px: int, pose: Pose, outlines: list[Points]) -> Layer:
    """The bright rim (cortex) of bones."""
    return stroke(side_px, pose, outlines, 0.0045, 0.002, closed=True)


def _vessels(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Hila and the vessels that fork out of them."""
    trees = [anatomy.vessels(build, side, rng) for side in SIDES]
    layer = np.zeros((side_px, side_px), np.float32)
    for level, (width, weight) in enumerate(_VESSELS):
        paths = [path for tree in trees for path in tree[level]]
        layer = np.maximum(layer, np.float32(weight) * stroke(side_px, pose, paths, width, 0.0025))
    y = build.apex + 0.50 * build.height
    hila = [ellipse(s * 0.21 * build.half_width, y - 0.012 * (s > 0), 0.032, 0.062) for s in SIDES]
    return layer * np.float32(rng.uniform(0.8, 1.2)) + 0.08 * fill(side_px, pose, hila, 0.016)


def _belly(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Liver and spleen below the diaphragm; sometimes a gas bubble in the stomach."""
    top, wide = build.dome - 0.02, build.half_width + 0.02
    box = np.array([[-wide, top], [wide, top + 0.01], [wide + 0.02, 1.2], [-wide - 0.02, 1.2]])
    liver = np.array([[-wide, top], [0.1, top], [-0.05, 1.0], [-wide, 1.1]])
    layer = 0.22 * fill(side_px, pose, [box], 0.02) + 0.05 * fill(side_px, pose, [liver], 0.03)
    if rng.random() < 0.6:
        x, y = rng.uniform(0.4, 0.65) * build.half_width, build.dome + build.drop + rng.uniform(0.045, 0.07)
        bubble = ellipse(x, y, rng.uniform(0.03, 0.06), rng.uniform(0.018, 0.032))
        layer -= np.float32(rng.uniform(0.10, 0.2)) * fill(side_px, pose, [bubble], 0.006)
    return layer


def _breasts(build: Build, pose: Pose, rng: np.random.Generator, side_px: int) -> Layer:
    """Faint rounded shadows over the lower zones."""
    y, size = build.dome - rng.uniform(0.06, 0.1), rng.uniform(0.75, 1.0)
    shadows = [ellipse(s * 0.62 * build.half_width, y, 0.16 * size, 0.15 * size) for s in SIDES]
    return np.float32(rng.uniform(0.04, 0.07)) * fill(side_px, pose, shadows, 0.008)


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


def _centre(weight: Layer) -> Points:
    """(x, y) of the centre of mass, pixels."""
    axis = np.arange(len(weight))
    return np.array([weight.sum(axis=0) @ axis, weight.sum(axis=1) @ axis]) / float(weight.sum())


def _smoothstep(value: Layer) -> Layer:
    """0 below 0, 1 above 1, smooth between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)
