"""Plots of a sweep as SVG text: history, parallel coordinates, importance. Pure functions, styled by the page's CSS.

Drawn 380 units wide, so that letters stay readable on a page 400 px wide. The axes of the parallel coordinates lie one
below the other, which leaves room for names such as `optim.encoder_lr_factor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lungseg.sweeping.outcome import short
from lungseg.sweeping.parameter import Parameter
from lungseg.sweeping.table import Row, best_of

WIDTH = 380
SHADES = 5
"""Lines take the CSS classes q0 (worst) to q4, the best run the class `best`."""
_LEFT, _RIGHT = 14, 366
_TOP, _BOTTOM, _ROW = 30, 190, 52
_LETTER = 5.6  # width of a letter of 10 units, on average


@dataclass(frozen=True)
class Axis:
    """One scale from left to right."""

    name: str
    place: Callable[[Any], float]
    """Position of a value in [0, 1]."""
    ticks: list[tuple[float, str]]


def history(rows: Sequence[Row], metric: str, sign: int) -> str:
    """Value of each run by its number, and the best so far; a failed run is a cross at the bottom."""
    shown = [row for row in rows if row.value is not None or row.state == "failed"]
    axis = _numbers(metric, [row.value for row in rows if row.value is not None])
    last = max((row.number for row in rows), default=0)
    left = 46

    def x(number: int) -> float:
        return left + (number + 0.5) / (last + 1) * (_RIGHT - left)

    def y(value: float) -> float:
        return _BOTTOM - axis.place(value) * (_BOTTOM - _TOP)

    parts = [_text(2, 14, metric, "name"), _text(_RIGHT, _BOTTOM + 26, "run", "tick end")]
    for place, label in axis.ticks:
        height = _BOTTOM - place * (_BOTTOM - _TOP)
        parts += [_line("grid", left, height, _RIGHT, height), _text(left - 5, height + 3, label, "tick end")]
    for number in sorted({0, last // 2, last}):
        parts.append(_text(x(number), _BOTTOM + 14, str(number), "tick middle"))
    parts.append(_best_so_far(rows, sign, x, y))
    best = best_of(rows, sign)
    for row in shown:
        title = f"run {row.number}, {row.state}" + ("" if row.value is None else f", {metric} {row.value:.4f}")
        at = x(row.number)
        if row.value is None or row.state == "failed":
            parts.append(_mark(f"M{at - 3:.1f} {_BOTTOM - 3}l6 6m0 -6l-6 6", "failed", title))
        else:
            kind = "best" if row is best else row.state
            parts.append(_mark(_circle(at, y(row.value), 4 if row is best else 3), f"dot {kind}", title))
    return _svg(_BOTTOM + 32, f"{metric} of each run", parts)


def parallel_coordinates(rows: Sequence[Row], parameters: Mapping[str, Parameter], metric: str, sign: int) -> str:
    """One line a run through its values, from parameter to parameter down to the metric; darker is better."""
    told = [row for row in rows if row.value is not None and row.values]
    axes = [_axis(parameter, told) for parameter in parameters.values() if parameter.kind != "value"]
    scale = _numbers(metric, [row.value for row in told if row.value is not None])
    heights = [_TOP + _ROW * index for index in range(len(axes) + 1)]
    parts: list[str] = []
    best = best_of(told, sign)
    for row in sorted(told, key=lambda row: (row is best, sign * (row.value or 0.0))):
        places = [axis.place(row.values[axis.name]) for axis in axes] + [scale.place(row.value)]
        points = " L".join(f"{_x(place):.1f} {height}" for place, height in zip(places, heights, strict=True))
        rank = scale.place(row.value) if sign > 0 else 1 - scale.place(row.value)
        shade = "best" if row is best else f"q{min(int(rank * SHADES), SHADES - 1)}"
        words = ", ".join(f"{axis.name}={short(row.values[axis.name])}" for axis in axes)
        title = f"run {row.number}, {row.state}, {metric} {row.value:.4f}: {words}"
        parts.append(_mark(f"M{points}", f"run {row.state} {shade}", title))
    for axis, height in zip([*axes, scale], heights, strict=True):
        parts += [_line("axis", _LEFT, height, _RIGHT, height), _text(2, height - 10, axis.name, "name")]
        parts += _ticks(axis, height)
    return _svg(heights[-1] + 30, f"values and {metric} of each run", parts)


def importance_bars(shares: Mapping[str, float]) -> str:
    """One bar a parameter."""
    parts = []
    for index, (name, share) in enumerate(shares.items()):
        top = 30 * index
        parts.append(_text(2, top + 12, name, "name"))
        parts.append(f'<rect class="bar" x="2" y="{top + 16}" width="{max(share * 320, 1):.1f}" height="8"/>')
        parts.append(_text(8 + share * 320, top + 24, f"{share:.0%}", "tick"))
    return _svg(30 * len(shares) + 2, "importance of each parameter", parts)


def _axis(parameter: Parameter, rows: Sequence[Row]) -> Axis:
    """Listed values stand evenly spaced, numbers on a line or, where they are drawn so, on a logarithmic one."""
    if parameter.kind == "values":
        spots = {repr(value): (index + 0.5) / len(parameter.values) for index, value in enumerate(parameter.values)}
        ticks = [(spots[repr(value)], short(value)) for value in parameter.values]
        return Axis(parameter.name, lambda value: spots[repr(value)], ticks)
    ends = [parameter.numbers[key] for key in ("min", "max") if key in parameter.numbers]
    found = [row.values[parameter.name] for row in rows]
    return _numbers(parameter.name, [*ends, *found], log="log" in parameter.kind)


def _numbers(name: str, values: Sequence[float], log: bool = False) -> Axis:
    """A scale over the values, its ends and middle marked."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    bend: Callable[[float], float] = math.log if log else float
    middle = math.sqrt(low * high) if log else (low + high) / 2
    ticks = [(0.0, f"{low:.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.3g}")]
    return Axis(name, lambda value: (bend(value) - bend(low)) / (bend(high) - bend(low)), ticks)


def _ticks(axis: Axis, height: float) -> list[str]:
    """Labels below an axis, in two rows where one would be too crowded, and shortened where two are."""
    room = (_RIGHT - _LEFT) / max(len(axis.ticks), 1)
    rows = 2 if any(len(label) * _LETTER > room for _, label in axis.ticks) else 1
    fits = max(int(room * rows / _LETTER), 3)
    parts = []
    for index, (place, label) in enumerate(axis.ticks):
        kind = "tick" if place == 0 else "tick end" if place == 1 else "tick middle"
        cut = label if len(label) <= fits else label[: fits - 1] + "…"
        parts.append(_line("axis", _x(place), height - 3, _x(place), height + 3))
        parts.append(_text(_x(place), height + 13 + 10 * (index % rows), cut, kind))
    return parts


def _best_so_far(rows: Sequence[Row], sign: int, x: Callable[[int], float], y: Callable[[float], float]) -> str:
    best: float | None = None
    path = ""
    for row in rows:
        if row.state == "finished" and row.value is not None and (best is None or sign * (row.value - best) > 0):
            path += (
                f"M{x(row.number):.1f} {y(row.value):.1f}"
                if best is None
                else f"H{x(row.number):.1f}V{y(row.value):.1f}"
            )
            best = row.value
    return f'<path class="step" d="{path}H{_RIGHT}"/>' if path else ""


def _x(place: float) -> float:
    return _LEFT + place * (_RIGHT - _LEFT)


def _circle(x: float, y: float, radius: float) -> str:
    return f"M{x - radius:.1f} {y:.1f}a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0 {-2 * radius} 0"


def _mark(path: str, kind: str, title: str) -> str:
    return f'<path class="{kind}" d="{path}"><title>{escape(title)}</title></path>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height:.0f}">\n{inside}\n</svg>'
