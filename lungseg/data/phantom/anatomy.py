"""Outlines of a made-up thorax: what the phantom generator draws, as curves and before any pixel.

Curves are (N, 2) float64 arrays of (x, y) in shares of the image side: x to the right from the midline of the
body, y down from the upper edge. Image left is the patient's right, as on a film.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Side = int  # -1: image left (the patient's right), +1: image right.
SIDES: tuple[Side, Side] = (-1, 1)
OUTER_CONTOUR: Points = np.column_stack(
    [[0.42, 0.56, 0.68, 0.79, 0.88, 0.94, 0.98, 1.0], [-0.005, 0.045, 0.13, 0.25, 0.40, 0.56, 0.74, 0.94]]
)
"""(8, 2) from a lung's tip down the chest wall; x in half widths from the midline, y in lung heights from the tip."""
_RING = np.linspace(0.12, 0.80 * np.pi, 33)  # angles along a rib: 0 at the spine, pi / 2 at the chest wall


def _between(low: float, high: float) -> Any:
    """A field that is drawn from a range."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True, kw_only=True)
class Build:
    """The numbers a thorax is drawn from, in shares of the image side unless said otherwise."""

    half_width: float  # From the midline to the inner chest wall at its widest.
    apex: float  # y of the lung tips.
    dome: float  # y of the right half of the diaphragm; the left one stands `drop` lower.
    drop: float = _between(-0.005, 0.04)
    sulcus: float = _between(0.06, 0.125)  # How far the costophrenic angles reach below the domes.
    heart: float = _between(0.48, 0.70)  # Reach of the heart to the image right, share of `half_width`.
    atrium: float = _between(0.24, 0.33)  # Reach of the heart to the image left, share of `half_width`.
    wall: float = _between(0.025, 0.13)  # Thickness of the soft tissue beside the ribs.
    skew: float = _between(-0.07, 0.07)  # How much wider than the mean the image right half is: a turned patient.
    slope: float = _between(0.045, 0.085)  # How far a rib falls from the spine to the chest wall.
    rib_width: float = _between(0.022, 0.029)
    rib_phase: float = _between(-0.5, 0.5)  # Shift of all ribs, in rib spacings.
    shoulder: float = _between(-0.02, 0.06)  # Height of the shoulders relative to the lung tips; larger is lower.
    wobble: Points  # (2, 2, 8, 2) share of `half_width`: side, inner or outer contour, point, (x, y).

    @property
    def height(self) -> float:
        """From the lung tips to the right dome."""
        return self.dome - self.apex

    def reach(self, side: Side) -> float:
        """`half_width` of one half."""
        return self.half_width * (1 + side * self.skew)


def draw_build(rng: np.random.Generator) -> Build:
    """Choose a thorax: slim or broad, deep or shallow breath, small or large heart."""
    half_width, apex = rng.uniform(0.315, 0.395), rng.uniform(0.10, 0.17)
    height = float(np.clip(half_width * rng.uniform(1.42, 1.95), 0.46, 0.785 - apex))
    drawn = {each.name: rng.uniform(*each.metadata["range"]) for each in fields(Build) if each.metadata}
    wobble = rng.normal(0, 0.016, (2, 2, 8, 2))
    return Build(half_width=half_width, apex=apex, dome=apex + height, wobble=wobble, **drawn)


def lung_outline(build: Build, side: Side) -> Points:
    """The closed outline of a lung: heart and midline inside, ribs outside, diaphragm below; the left one notched."""
    wobble = build.wobble[SIDES.index(side)]
    inner = _inner_contour(build, side) + wobble[0] * [0.6, 0.6]
    outer = OUTER_CONTOUR + wobble[1]
    dome = build.dome + (build.drop if side > 0 else 0.0)
    level, low = (dome - build.apex) / build.height, build.sulcus / build.height
    sag = 0.06 if side < 0 else 0.02
    foot = inner[0] = np.array([inner[0, 0], level + sag])
    corner = np.array([outer[-1, 0] - 0.015, level + low])
    wall = curve(np.vstack([inner, outer, corner]))
    from_foot = np.array([1.0, 0.80, 0.60, 0.38, 0.18, 0.0])[:, None]
    below = np.array([low, 0.5 * low, 0.12 * low, 0.0, 0.3 * sag, sag])
    floor = curve(np.hstack([foot[0] + from_foot * (corner[0] - foot[0]), level + below[:, None]]))
    outline = np.vstack([wall, floor[1:-1]])
    return outline * [side * build.reach(side), build.height] + [0, build.apex]


def _inner_contour(build: Build, side: Side) -> Points:
    """(8, 2) from the diaphragm up to near the tip; x in half widths from the midline, y in lung heights."""
    if side < 0:
        bulge = build.atrium
        x = [bulge - 0.06, bulge - 0.005, bulge, 0.5 * bulge + 0.09, 0.175, 0.165, 0.20, 0.30]
        y = [1.0, 0.88, 0.75, 0.58, 0.42, 0.22, 0.09, 0.015]
    else:
        reach = build.heart
        x = [reach - 0.03, reach, 0.88 * reach, 0.62 * reach + 0.03, 0.25, 0.285, 0.20, 0.30]
        y = [1.0, 0.90, 0.74, 0.58, 0.41, 0.26, 0.10, 0.015]
    return np.column_stack([x, y])


def rib(build: Build, number: int, side: Side) -> tuple[Points, Points]:
    """Centre lines of the back and the front part of a rib: a tilted ring seen from the front."""
    start = build.apex - 0.015 + 0.105 * build.height * (number + build.rib_phase) + 0.012 * min(number, 1)
    fall = build.slope * (1 + 0.06 * number)
    outer = OUTER_CONTOUR * [build.reach(side), build.height] + [0, build.apex]
    reach = float(np.interp(start + fall, outer[:, 1], outer[:, 0])) + 0.012  # to the middle of the chest wall
    lean = np.maximum(0, -np.cos(_RING)) ** 1.4 * 0.13
    y = start + fall * (1 - np.cos(_RING)) + lean - 0.012 * np.sin(2 * np.minimum(_RING, np.pi / 2))
    ring = np.column_stack([side * reach * np.sin(_RING), y])
    return ring[:17], ring[14:]


def band(line: Points, widths: Points) -> Points:
    """The outline of a strip of the given full widths (N,) around a centre line (N, 2)."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    offset = along[:, ::-1] * [-1, 1] * widths[:, None] / 2
    return np.vstack([line + offset, (line - offset)[::-1]])


def clavicle(build: Build, side: Side, lift: float) -> Points:
    """Outline of a collar bone; `lift` raises its outer end."""
    x = np.array([0.034, 0.10, 0.18, 0.26, build.half_width + 0.01, build.half_width + 0.075])
    drop = np.array([0.0, -0.004, -0.026, -0.056 - 0.6 * lift, -0.070 - lift, -0.058 - 1.3 * lift])
    line = curve(np.column_stack([side * x, build.apex + 0.112 + drop]))
    along = np.linspace(-1, 1, len(line))
    return band(line, (0.020 + 0.012 * along**2) * np.sqrt(1.02 - np.abs(along) ** 9))


def shoulder_blade(build: Build, side: Side) -> Points:
    """Outline of a shoulder blade beside the upper lung."""
    y, wide = build.apex + build.shoulder, build.half_width
    x = np.array([0.82 * wide, wide + 0.09, wide + 0.06, wide + 0.02, 0.93 * wide])
    return curve(np.column_stack([side * x, y + np.array([0.07, 0.06, 0.17, 0.36, 0.34])]), closed=True)


def arm(build: Build, side: Side) -> tuple[Points, Points]:
    """Outlines of the upper arm's head and shaft."""
    centre = np.array([side * (build.half_width + 0.135), build.apex + build.shoulder + 0.06])
    head = ellipse(centre[0], centre[1], 0.042, 0.042, 32)
    line = centre + np.array([[side * 0.012, 0.0], [side * 0.05, 0.16], [side * 0.10, 0.42]])
    return head, band(line, np.array([0.05, 0.036, 0.036]))


def body_outline(build: Build) -> Points:
    """Skin: neck, shoulders, arms leaving the film, armpits, flanks."""
    y, edge = build.apex + build.shoulder, build.half_width + build.wall
    half = [
        (0.105, -0.15), (0.11, y - 0.17), (0.145, y - 0.105), (0.22, y - 0.065), (build.half_width + 0.08, y - 0.035),
        (build.half_width + 0.19, y + 0.04), (build.half_width + 0.27, y + 0.30), (build.half_width + 0.36, y + 0.60),
        (build.half_width + 0.26, y + 0.62), (build.half_width + 0.15, y + 0.38), (edge + 0.03, y + 0.27),
        (edge, y + 0.38), (edge + 0.004, 0.75), (edge + 0.01, 0.95), (edge + 0.02, 1.15),
    ]  # fmt: skip
    right = curve(np.array(half))
    return np.vstack([right, right[::-1] * [-1, 1]])


def heart_outline(build: Build) -> Points:
    """The heart's own shadow, a little inside the edges that the lungs give it."""
    wide, tall = build.half_width, build.height
    x = np.array([-0.10, -build.atrium, -build.atrium + 0.02, 0.1, build.heart - 0.05, build.heart - 0.09, 0.26, 0.05])
    y = np.array([0.50, 0.68, 0.95, 1.06, 1.02, 0.82, 0.52, 0.42])
    return curve(np.column_stack([x * wide, build.apex + y * tall]), closed=True)


def vessels(build: Build, side: Side, rng: np.random.Generator) -> list[list[Points]]:
    """Lung vessels: generations, thickest first, each a list of curves that fork from the one before."""
    count = 9
    angle = np.linspace(-1.45, 1.45, count) + rng.normal(0, 0.12, count)
    start = np.tile([side * 0.20 * build.half_width, build.apex + 0.50 * build.height], (count, 1))
    start += np.column_stack([side * 0.02 * np.cos(angle), 0.055 * np.sin(angle)])
    length = build.height * (0.13 + 0.07 * np.abs(np.sin(angle))) * rng.uniform(0.8, 1.2, count)
    generations = []
    for _ in range(5):
        bend = rng.normal(0.12, 0.30, len(angle))
        turn = angle + bend * np.linspace(-0.5, 0.5, 5)[:, None]
        steps = length / 5 * np.stack([side * np.cos(turn), np.sin(turn)])
        path = start + np.concatenate([np.zeros((1, len(start), 2)), steps.transpose(1, 2, 0).cumsum(axis=0)])
        generations.append(list(path.transpose(1, 0, 2)))
        start = np.repeat(path[-1], 2, axis=0)
        spread = rng.uniform(0.1, 0.65, len(start)) * np.tile([-1, 1], len(angle))
        angle = np.repeat(angle + bend / 2, 2) + spread
        length = np.repeat(length, 2) * rng.uniform(0.5, 0.9, len(start))
    return generations


def curve(knots: Points, closed: bool = False, steps: int = 8) -> Points:
    """A smooth curve (Catmull-Rom) through the knots (N, 2), `steps` points from one knot to the next."""
    ends = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    p = np.vstack([ends[0], knots, ends[1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return pieces.reshape(-1, 2) if closed else np.vstack([pieces.reshape(-1, 2), knots[-1:]])


def ellipse(x: float, y: float, wide: float, tall: float, count: int = 40) -> Points:
    """Outline of an upright ellipse with the given half axes."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack([x + wide * np.cos(angle), y + tall * np.sin(angle)])
