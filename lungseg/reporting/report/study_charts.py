"""Charts of what the network does on changed images: shortcuts and robustness. SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungseg.reporting.report.svg import Scale, axes, drawing, key, line, mark, text
from lungseg.reporting.report.words import told

_LEFT, _RIGHT, _TOP = 44.0, 366.0, 26.0
VIEWS = {
    "full": "full image",
    "lungs": "lungs alone",
    "blanked": "lungs blanked",
    "box": "outside the lungs' box",
    "border": "border alone",
}
"""Views of the shortcut report as they are named in the page."""
CURVES = {"balanced_accuracy": "balanced accuracy", "dice": "lung dice", "evidence_in_lungs": "evidence in lungs"}
"""Scores of a robustness chart."""


def interval_chart(
    rows: Mapping[str, Mapping[str, Any]], name: str, reference: float | None, words: str = "chance"
) -> str:
    """One value with its interval a row, in [0, 1].

    Args:
        rows: Numbers by what they are of.
        name: Of the number.
        reference: Drawn as a dashed line.
        words: What the line is.
    """
    bottom = _TOP + 34 * len(rows)
    x = Scale(0, 1, 14, _RIGHT)
    parts = []
    for value in x.ticks():
        parts += [line([(x(value), _TOP - 8), (x(value), bottom)], "grid")]
        parts += [text(x(value), bottom + 14, f"{value:g}", "tick middle")]
    parts.append(text(_RIGHT, bottom + 30, name, "name end"))
    if reference is not None:
        parts += [line([(x(reference), _TOP - 8), (x(reference), bottom)], "reference")]
        parts += [text(x(reference), 12, f"{words} {reference:.2f}", "tick middle")]
    for index, (title, number) in enumerate(rows.items()):
        y = _TOP + 34 * index + 22
        parts.append(text(x.start + 4, y - 10, f"{title}: {told(number)}"))
        if number.get("value") is None:
            continue
        if number.get("low") is not None and number.get("high") is not None:
            parts.append(line([(x(number["low"]), y), (x(number["high"]), y)], "whisker c0"))
        parts.append(mark(x(number["value"]), y, "c0", 0, f"{title}: {told(number)}"))
    label = f"{name}. {'; '.join(f'{title}: {told(number)}' for title, number in rows.items())}."
    return drawing(bottom + 38, label, parts)


def dilation_chart(lungs: Sequence[Mapping[str, Any]], blanked: Sequence[Mapping[str, Any]], chance: float) -> str:
    """Balanced accuracy of the lungs alone and of all but the lungs, as the lungs are dilated."""
    series = {"lungs alone, dilated": lungs, "dilated lungs blanked": blanked}
    margins = [view["margin"] for view in lungs if view.get("margin") is not None]
    x, y = Scale(0, max(margins, default=1) or 1, _LEFT, _RIGHT), Scale(0, 1, 200, _TOP)
    parts = axes(x, y, "dilation, share of the side", "balanced accuracy")
    parts += [line([(x(x.low), y(chance)), (x(x.high), y(chance))], "reference")]
    for index, views in enumerate(series.values()):
        points = [(view.get("margin"), view.get("scores", {}).get("balanced_accuracy", {})) for view in views]
        parts += _curve(points, x, y, index)
    label = f"Balanced accuracy by dilation of the lungs: {', '.join(series)}. Dashed: chance, {chance:.2f}."
    return drawing(278, label, [*parts, *key(list(series), 250, marks=True)])


def robustness_chart(name: str, curve: Mapping[str, Any], chance: float | None) -> str:
    """`CURVES` against the strength of a perturbation."""
    points = curve.get("points") or []
    x = Scale(0, max((point["strength"] for point in points), default=1) or 1, _LEFT, _RIGHT)
    y = Scale(0, 1, 170, _TOP)
    steps = [point["strength"] for point in points]
    parts = axes(x, y, f"{name}: {curve.get('unit', '')}", "", _apart(steps, x))
    if chance is not None:
        parts += [line([(x(0), y(chance)), (x(x.high), y(chance))], "reference")]
    ends = []
    for index, (score, words) in enumerate(CURVES.items()):
        numbers = [(point["strength"], point.get("scores", {}).get(score, {})) for point in points]
        parts += _curve(numbers, x, y, index)
        if numbers:
            ends.append(f"{words} from {told(numbers[0][1])} to {told(numbers[-1][1])}")
    return drawing(206, f"{name}, strengths 0 to {x.high:g}: {'; '.join(ends)}.", parts)


def _apart(steps: Sequence[float], x: Scale) -> list[float]:
    """The strengths whose numbers have room; the last one has."""
    kept: list[float] = []
    for step in reversed(steps):
        if not kept or x(kept[-1]) - x(step) > 20:
            kept.append(step)
    return kept


def robustness_key() -> str:
    """What the lines of `robustness_chart` are."""
    entries = list(CURVES.values())
    return drawing(16 * len(entries) + 4, f"Key: {', '.join(entries)}", key(entries, 12, left=4, marks=True))


def _curve(points: Sequence[tuple[Any, Mapping[str, Any]]], x: Scale, y: Scale, index: int) -> list[str]:
    """Marks with their intervals, joined by a line; points without a value are left out."""
    known = [(at, number) for at, number in points if at is not None and number.get("value") is not None]
    parts = [line([(x(at), y(number["value"])) for at, number in known], f"curve c{index}")]
    for at, number in known:
        if number.get("low") is not None and number.get("high") is not None:
            parts.append(line([(x(at), y(number["low"])), (x(at), y(number["high"]))], f"whisker c{index}"))
        parts.append(mark(x(at), y(number["value"]), f"c{index}", index, f"{at:g}: {told(number)}"))
    return parts
