"""Charts of scores of masks and classes: ROC, precision-recall, reliability, distributions. SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungseg.reporting.report.svg import Point, Scale, axes, bar, drawing, key, line, mark, text
from lungseg.reporting.report.words import told

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 366.0, 26.0, 250.0
Scores = Mapping[str, Mapping[str, Any]]
FEW = 10
"""Images of a bin of the reliability diagram below which its mark is drawn open, and no line goes to it."""


def roc_chart(curves: Mapping[str, Any], scores: Scores) -> str:
    """One curve a class, and the diagonal of chance.

    Args:
        curves: By class `x` and `y`.
        scores: Holds `auroc_CLASS`.
    """
    x, y = _unit_square()
    drawn = [
        line([(x(a), y(b)) for a, b in _points(curve)], f"curve c{index}")
        for index, curve in enumerate(curves.values())
    ]
    chance = line([(x(0), y(0)), (x(1), y(1))], "reference")
    entries = [f"{name}: AUROC {told(scores.get(f'auroc_{name}'))}" for name in curves]
    parts = [*axes(x, y, "false positive rate", "true positive rate (sensitivity)"), chance, *drawn]
    label = f"ROC curves. {'; '.join(entries)}. The diagonal is chance."
    return drawing(_BOTTOM + 44 + 16 * len(entries), label, [*parts, *key(entries, _BOTTOM + 50)])


def precision_recall_chart(curves: Mapping[str, Any], scores: Scores, prevalence: Mapping[str, float]) -> str:
    """One stepped curve a class, and its prevalence, which is the precision of guessing.

    Args:
        curves: By class `x` (recall) and `y`, recall rising.
        scores: Holds `average_precision_CLASS`.
        prevalence: Share of each class among the labelled images.
    """
    x, y = _unit_square()
    parts, entries = axes(x, y, "recall (sensitivity)", "precision"), []
    for index, (name, curve) in enumerate(curves.items()):
        stepped: list[Point] = []
        for recall, precision in _points(curve):
            before = stepped[-1][0] if stepped else x(recall)
            stepped += [(before, y(precision)), (x(recall), y(precision))]
        entry = f"{name}: AP {told(scores.get(f'average_precision_{name}'))}"
        if name in prevalence:
            parts.append(line([(x(0), y(prevalence[name])), (x(1), y(prevalence[name]))], f"guess c{index}"))
            entry += f", guessing {prevalence[name]:.3f}"
        parts.append(line(stepped, f"curve c{index}"))
        entries.append(entry)
    label = f"Precision-recall curves, AP: average precision. {'; '.join(entries)}."
    height = _BOTTOM + 44 + 16 * len(entries)
    return drawing(height, label, [*parts, *key(entries, _BOTTOM + 50)])


def reliability_chart(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], ece: Scores) -> str:
    """Accuracy against confidence in bins, as the network gives it and after temperature scaling; counts below.

    Args:
        before: Bins of `low`, `images`, `confidence`, `accuracy`.
        after: The same; empty where no temperature is known.
        ece: Calibration errors by `before` and `after`.
    """
    low = _lowest_confidence([*before, *after])
    x, y = Scale(low, 1, _LEFT, _RIGHT), Scale(0, 1, _BOTTOM, _TOP)
    parts = [*axes(x, y, "confidence (probability of the class predicted)", "accuracy")]
    parts.append(line([(x(low), y(low)), (x(1), y(1))], "reference"))
    entries = []
    for index, (name, bins) in enumerate((("as given", before), ("after temperature scaling", after))):
        shown = [b for b in bins if b.get("images") and b.get("accuracy") is not None]
        if not shown:
            continue
        entries.append(f"{name}: ECE {told(ece.get('before' if index == 0 else 'after'))}")
        solid = [(x(b["confidence"]), y(b["accuracy"])) for b in shown if b["images"] >= FEW]
        parts.append(line(solid, f"curve c{index}"))
        for b in shown:
            kind = f"c{index}" + (" open" if b["images"] < FEW else "")
            title = f"{name}: confidence {b['confidence']:.2f}, right {b['accuracy']:.2f}, {b['images']} images"
            # where scaling changes little, the first mark shows around the second
            parts.append(mark(x(b["confidence"]), y(b["accuracy"]), kind, index, title, 4.5 - 2 * index))
    parts += key(entries, _BOTTOM + 50, marks=True)
    top = _BOTTOM + 44 + 16 * len(entries)
    parts += _counts(before, x, top + 18, 44)
    return drawing(top + 80, f"Reliability diagram. {'; '.join(entries)}. The diagonal is perfect.", parts)


def distribution_chart(
    values: Sequence[float],
    groups: Mapping[str, Sequence[float]],
    name: str,
    low: float,
    reference: float | None = None,
) -> str:
    """Histogram of a value in [low, 1], and below it a box a group: middle half, median, and 5 to 95 % of the images.

    Args:
        values: One an image.
        groups: The same, by name.
        name: Of the value.
        low: Left end; what lies below counts there.
        reference: Drawn as a dashed line.
    """
    x = Scale(low, 1, _LEFT, _RIGHT)
    counts, edges = np.histogram(np.clip(values, low, 1), bins=30, range=(low, 1))
    y = Scale(0, max(int(counts.max()), 1), 160, _TOP)
    parts = axes(x, y, name, "images", y_ticks=[tick for tick in y.ticks() if tick == int(tick)])
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            title = f"{start:.3f} to {end:.3f}: {count} images"
            parts.append(bar(x(start) + 0.5, y(count), x(end) - x(start) - 1, y.start - y(count), "bar", title))
    if reference is not None:
        parts.append(line([(x(reference), y.start), (x(reference), y.end)], "reference"))
    told_groups = []
    for index, (group, of_group) in enumerate(groups.items()):
        if of_group:
            told_groups.append(f"{group}: median {np.median(of_group):.3f}, {len(of_group)} images")
            parts += _box(group, of_group, x, 212 + 34 * index)
    label = f"Distribution of {name} over {len(values)} images. {'; '.join(told_groups)}."
    return drawing(202 + 34 * len(groups), label, parts)


def _unit_square() -> tuple[Scale, Scale]:
    return Scale(0, 1, _LEFT, _RIGHT), Scale(0, 1, _BOTTOM, _TOP)


def _points(curve: Mapping[str, Sequence[float | None]]) -> list[Point]:
    """The points of a curve that have both values."""
    pairs = zip(curve.get("x", ()), curve.get("y", ()), strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _lowest_confidence(bins: Sequence[Mapping[str, Any]]) -> float:
    """Where the axis of confidences starts: below the lowest bin that holds an image."""
    used = [float(b["low"]) for b in bins if b.get("images")]
    return min(used, default=0.0)


def _counts(bins: Sequence[Mapping[str, Any]], x: Scale, top: float, height: float) -> list[str]:
    """A small histogram of the images of each bin, as the network gives its confidences."""
    most = max((int(b.get("images") or 0) for b in bins), default=0)
    parts = [text(2, top - 4, f"images of each bin, as given (at most {most:,})", "name")]
    lows = [float(b["low"]) for b in bins] + [1.0]
    for b, start, end in zip(bins, lows, lows[1:], strict=False):
        if b.get("images"):
            tall = height * int(b["images"]) / most
            title = f"{start:.2f} to {end:.2f}: {b['images']} images"
            parts.append(bar(x(start) + 0.5, top + height - tall, x(end) - x(start) - 1, tall, "bar", title))
    return [*parts, line([(x.start, top + height), (x.end, top + height)], "axis")]


def _box(name: str, values: Sequence[float], x: Scale, y: float) -> list[str]:
    """A box with its name above it."""
    q05, q25, q50, q75, q95 = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    title = f"{name}: median {q50:.3f}, middle half {q25:.3f} to {q75:.3f}, 5 to 95 % {q05:.3f} to {q95:.3f}"
    words = f"{name}: median {q50:.3f} ({len(values):,} images, lowest {min(values):.3f})"
    return [
        text(x.start, y - 6, words),
        line([(x(q05), y + 5), (x(q95), y + 5)], "axis"),
        bar(x(q25), y, max(x(q75) - x(q25), 1), 10, "box", title),
        line([(x(q50), y - 1), (x(q50), y + 11)], "median"),
    ]
