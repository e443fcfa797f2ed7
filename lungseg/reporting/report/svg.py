"""Pieces of SVG charts as text, styled by the page's CSS. Drawn 380 units wide, to be read at 400 px.

Classes `c0`, `c1`, ... take colour and dashes from the CSS: series differ in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 380
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """From values to units of the drawing."""

    low: float
    high: float
    start: float
    """Where `low` lies."""
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value, kept on the axis."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values from low to high."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10.0 ** math.floor(math.log10(span / about))
        step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= about)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 10) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def drawing(height: float, label: str, parts: Iterable[str]) -> str:
    """A whole chart.

    Args:
        height: In units.
        label: What it shows, in words, for those who do not see it.
        parts: What is drawn, the first one lowest.
    """
    inside = "\n".join(part for part in parts if part)
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height:.0f}">\n{inside}\n</svg>'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words at a place; kind: CSS classes (`end`, `middle`, `tick`, `name`)."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def line(points: Sequence[Point], kind: str) -> str:
    """A line through points; those that fall together at a tenth of a unit are drawn once."""
    places = list(dict.fromkeys(f"{x:.1f} {y:.1f}" for x, y in points))
    return f'<path class="{kind}" d="M{"L".join(places)}"/>' if len(places) > 1 else ""


def bar(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """A rectangle."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect class="{kind}" {place}>{inside}</rect>'


def mark(x: float, y: float, kind: str, shape: int = 0, title: str = "", radius: float = 3.5) -> str:
    """A mark; shapes: 0 circle, 1 square, 2 triangle, 3 diamond."""
    r, d = radius, radius * 1.3
    outlines = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - r * 1.2:.1f}l{r * 1.2:.1f} {r * 2.1:.1f}h{-r * 2.4:.1f}z",
        f"M{x:.1f} {y - d:.1f}l{d:.1f} {d:.1f}l{-d:.1f} {d:.1f}l{-d:.1f} {-d:.1f}z",
    )
    return f'<path class="mark {kind}" d="{outlines[shape % 4]}"><title>{escape(title)}</title></path>'


def axes(
    x: Scale,
    y: Scale,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
) -> list[str]:
    """Grid, numbers and names of both axes; y grows upwards from `y.start`."""
    parts = [text(2, y.end - 10, y_name, "name"), text(x.end, y.start + 30, x_name, "name end")]
    for value in y.ticks() if y_ticks is None else y_ticks:
        parts += [line([(x.start, y(value)), (x.end, y(value))], "grid")]
        parts += [text(x.start - 5, y(value) + 3.5, _short(value), "tick end")]
    for value in x.ticks() if x_ticks is None else x_ticks:
        parts += [line([(x(value), y.start), (x(value), y.start + 3)], "axis")]
        parts += [text(x(value), y.start + 15, _short(value), "tick middle")]
    return [*parts, line([(x.start, y.start), (x.end, y.start)], "axis")]


def key(entries: Sequence[str], top: float, left: float = 44, kind: str = "curve", marks: bool = False) -> list[str]:
    """One line a series, in the colours and dashes of `c0`, `c1`, ...; 16 units high each."""
    parts = []
    for index, words in enumerate(entries):
        y = top + 16 * index
        parts.append(line([(left, y - 3.5), (left + 24, y - 3.5)], f"{kind} c{index}"))
        if marks:
            parts.append(mark(left + 12, y - 3.5, f"c{index}", index))
        parts.append(text(left + 30, y, words))
    return parts


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:g}"
