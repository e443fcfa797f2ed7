"""Every chart of the reports, one function a kind: the same matplotlib figure goes into a page and into a paper.

Figures are as wide as a column of a paper and are made without pyplot, so that nothing global changes. matplotlib is
imported where a figure is made: commands that draw none start without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lungseg.reporting.formatting import Measured, format_images, format_interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lungseg.evaluation.intervals import Numbers
    from lungseg.evaluation.results import CurvePoints, ReliabilityBin

    Bins = Sequence[ReliabilityBin]

WIDTH_IN = 3.3  # Width of a column of a paper, inches.
FONT_PT = 7.0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#882255", "#b07d00")
"""Of the series, told apart by every kind of colour vision; dashes and marks differ as well."""
INK, SOFT, RULE, BAR, BOX, PAPER = "#1b1f24", "#57606a", "#d1d9e0", "#7f95a8", "#cfe3f1", "#ffffff"
DASHES, MARKS = ("-", "--", ":", "-."), ("o", "s", "^", "D")
FEW = 10  # Images of a bin of the reliability diagram below which its mark is drawn open, and no line goes to it.
_REFERENCE: dict[str, Any] = {"color": INK, "linewidth": 0.6, "linestyle": (0, (4, 4))}
Point = tuple[float, Measured]  # Of a series: x, and a number along y.
TOOLTIP = "tooltip: "  # Begins the group id of an artist whose words a page shows under the pointer.


class Drawing(NamedTuple):
    """A chart as it is drawn."""

    figure: Figure
    label: str  # What it shows, in words, for those who do not see it.


class Row(NamedTuple):
    """A line of an interval chart."""

    words: str
    number: Measured
    series: int = 0
    tooltip: str = ""


def draw_roc(curves: Mapping[str, CurvePoints], scores: Numbers) -> Drawing:
    """One ROC curve a class; `scores` holds `auroc_CLASS`."""
    figure, (axes,) = _figure(3.0 + 0.12 * max(0, len(curves) - 4))
    _style(axes, "false positive rate", "true positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], **_REFERENCE)
    entries = [f"{_short(name)}: AUROC {format_interval(scores.get(f'auroc_{name}'))}" for name in curves]
    for index, (entry, curve) in enumerate(zip(entries, curves.values(), strict=True)):
        _line(axes, zip(curve.x, curve.y, strict=True), index, label=entry)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    _legend(figure)
    return Drawing(figure, f"ROC curves. {'; '.join(entries)}. The diagonal is chance.")


def draw_precision_recall(
    curves: Mapping[str, CurvePoints], scores: Numbers, prevalence: Mapping[str, float]
) -> Drawing:
    """One stepped curve a class, recall rising, and its share of the images, which is the precision of guessing.

    `scores` holds `average_precision_CLASS`.
    """
    figure, (axes,) = _figure(3.0 + 0.12 * max(0, len(curves) - 4))
    _style(axes, "recall (sensitivity)", "precision")
    entries = []
    for index, (name, curve) in enumerate(curves.items()):
        entries.append(f"{_short(name)}: AP {format_interval(scores.get(f'average_precision_{name}'))}")
        if name in prevalence:
            _line(axes, [(0, prevalence[name]), (1, prevalence[name])], index, linewidth=0.6, alpha=0.7)
            entries[-1] += f", guessing {prevalence[name]:.3f}"
        _line(axes, zip(curve.x, curve.y, strict=True), index, label=entries[-1], drawstyle="steps-pre")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    _legend(figure)
    return Drawing(figure, f"Precision-recall curves, AP: average precision. {'; '.join(entries)}.")


def draw_reliability(
    before: Bins, after: Bins, errors: Sequence[Measured | None], confidence: str, accuracy: str
) -> Drawing:
    """Accuracy against confidence in bins, before and after temperature scaling (`errors`: ECE of each); counts."""
    figure, (axes, counts) = _figure(3.6, 4.0, 1.0)
    low = min((each.low for each in (*before, *after) if each.images), default=0.0)
    axes.plot([low, 1], [low, 1], **_REFERENCE)
    entries = []
    for index, (name, bins) in enumerate((("as given", before), ("after temperature scaling", after))):
        points = ((b.confidence, b.accuracy, b.images) for b in bins)
        known = [(x, y, images) for x, y, images in points if x is not None and y is not None]
        if known:
            entries.append(f"{name}: ECE {format_interval(errors[index])}")
            solid = [(x, y) for x, y, images in known if images >= FEW]
            _line(axes, solid, index, marker=MARKS[index], markevery=[], label=entries[-1])
        for x, y, images in known:
            tooltip = f"{name}: confidence {x:.2f}, right {y:.2f}, {format_images(images)}"
            # where scaling changes little, the first mark shows around the second
            _mark(axes, x, y, index, tooltip, size=5.5 - 2 * index, filled=images >= FEW)
    _bars(counts, [b.images for b in before], [*(b.low for b in before), 1.0])
    most = max((b.images for b in before), default=0)
    _style(axes, "", accuracy)
    _style(counts, confidence, f"images of each bin (at most {most:,})")
    axes.set(xlim=(low, 1.01), ylim=(0, 1.02))
    counts.set(xlim=(low, 1.01), yticks=[])
    _legend(figure)
    return Drawing(figure, f"Reliability diagram. {'; '.join(entries)}. The diagonal is perfect.")


def draw_distribution(
    groups: Mapping[str, Sequence[float]], name: str, low: float, reference: float | None = None
) -> Drawing:
    """Histogram of a value in [low, 1], and below it a box a group: middle half, median, and 5 to 95 % of the images.

    Args:
        groups: A value an image, by group; the first group is that of the histogram.
        name: Of the value.
        low: Left end; what lies below counts there.
        reference: Drawn as a dashed line.
    """
    shown = {group: values for group, values in groups.items() if values}
    figure, (histogram, boxes) = _figure(1.9 + 0.3 * len(shown), 1.3, 0.3 * len(shown))
    values = next(iter(groups.values()))
    counts, edges = np.histogram(np.clip(values, low, 1), bins=30, range=(low, 1))
    _bars(histogram, counts.tolist(), edges.tolist())
    _style(histogram, name, "images")
    histogram.locator_params(axis="y", integer=True)
    if reference is not None:
        histogram.axvline(reference, **_REFERENCE)
    words = []
    for index, (group, of_group) in enumerate(shown.items()):
        words.append(
            f"{_short(group)}: median {np.median(of_group):.3f} ({len(of_group):,} images, lowest {min(of_group):.3f})"
        )
        _box(boxes, group, of_group, index)
        boxes.text(low, index - 0.12, words[-1], fontsize=FONT_PT, color=INK)
    boxes.set(ylim=(len(shown) - 0.5, -0.7))
    boxes.set_axis_off()
    for axes in (histogram, boxes):
        axes.set_xlim(low, 1 + 0.01 * (1 - low))
    return Drawing(figure, f"Distribution of {name} over {len(values)} images. {'; '.join(words)}.")


def draw_intervals(
    rows: Sequence[Row], name: str, reference: tuple[float, str] | None, limits: tuple[float, float] | None = (0, 1)
) -> Drawing:
    """One number with its interval a row, from the top down, on an axis that ends at the limits, or as the numbers do.

    `reference` is a value drawn as a dashed line, and what it is, which may be empty.
    """
    figure, (axes,) = _figure(0.65 + 0.29 * len(rows))
    _style(axes, name, "")
    for place, row in enumerate(rows):
        _interval(axes, place, row.number, row.series, row.tooltip or row.words, upright=False)
        axes.text(0.01, place - 0.22, row.words, fontsize=FONT_PT, color=INK, transform=axes.get_yaxis_transform())
    if reference is not None:
        at, words = reference
        axes.axvline(at, **_REFERENCE)
        axes.text(at, -0.8, words, ha="center", va="bottom", fontsize=FONT_PT, color=SOFT)
    axes.set(ylim=(len(rows) - 0.5, -0.75), xlim=limits, yticks=[])
    axes.locator_params(axis="x", nbins=6)  # long numbers would run into each other
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    return Drawing(figure, f"{name}. {'; '.join(row.tooltip or row.words for row in rows)}.")


def draw_series(
    series: Mapping[str, Sequence[Point]], x_name: str, y_name: str, chance: float | None, low: float = 0
) -> Drawing:
    """Numbers in [`low`, 1], with intervals if known, along x, which starts at 0: a line each; `chance` is dashed."""
    figure, (axes,) = _figure(2.1)
    _style(axes, x_name, y_name)
    if chance is not None:
        axes.axhline(chance, **_REFERENCE)
    ends = []
    for index, (name, points) in enumerate(series.items()):
        known = [(x, number.value) for x, number in points if number.value is not None]
        _line(axes, known, index, marker=MARKS[index], markersize=3.5, markevery=[], label=name)
        for x, number in [point for point in points if point[1].low is not None]:
            _interval(axes, x, number, index, f"{name} at {x:g}: {format_interval(number)}")
        if points:
            ends.append(f"{name} from {format_interval(points[0][1])} to {format_interval(points[-1][1])}")
    axes.set(ylim=(low, low + 1.02 * (1 - low)), xlim=(0, None))
    _legend(figure, columns=len(series))
    return Drawing(figure, f"{x_name}. {'; '.join(ends)}.")


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Drawing:
    """Images by true class (rows) and predicted one, with the share of the true class."""
    size = len(classes)
    font_pt = FONT_PT * min(1, 6 / size)
    figure, (axes,) = _figure(2.8)
    _style(axes, "predicted", "true")
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.72 else "black"  # of the two, what stands out more
            words = f"{count}\n{shares[i][j]:.1%}"
            axes.text(j, i, words, ha="center", va="center", color=colour, fontsize=font_pt)
    names = [_short(name) for name in classes]
    # The names of many classes have no room beside each other.
    axes.set_xticks(range(size), names, rotation=0 if size < 5 else 90, fontsize=font_pt)
    axes.set_yticks(range(size), names, rotation=90 if size < 5 else 0, va="center", fontsize=font_pt)
    axes.grid(visible=False)
    label = "; ".join(f"{name}: {', '.join(map(str, row))}" for name, row in zip(classes, matrix, strict=True))
    return Drawing(figure, f"Confusion matrix. {label}.")


def _short(name: str) -> str:
    """A class's name as there is room for it; matplotlib leaves out of a key what begins with an underscore."""
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= 24 else f"{name[:23]}…"


def _figure(height_in: float, *heights: float) -> tuple[Figure, list[Axes]]:
    """A figure with axes one below the other, in these proportions; one if there are none."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="none")
    return figure, list(figure.subplots(len(heights) or 1, squeeze=False, height_ratios=heights or (1.0,)).flat)


def _style(axes: Axes, x_name: str, y_name: str) -> None:
    """The look of every chart; the name of the y axis stands above it, where it takes no width."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, linewidth=0.6)
    axes.tick_params(labelsize=FONT_PT, labelcolor=SOFT, color=INK, width=0.6, length=2)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x_name, fontsize=FONT_PT, color=INK, fontweight="bold")
    axes.set_title(y_name, fontsize=FONT_PT, color=INK, fontweight="bold", loc="left")


def _line(axes: Axes, points: Iterable[tuple[float, float]], index: int, **style: Any) -> None:
    """The line of a series, in its colour and dashes."""
    style = {"linestyle": DASHES[index % len(DASHES)], "linewidth": 1.2, **style}
    (line,) = axes.plot(*np.reshape([*points], (-1, 2)).T, color=COLOURS[index % len(COLOURS)], clip_on=False, **style)
    # for the layout a line without points would lie in the corner of the figure
    line.set_in_layout(False)


def _legend(figure: Figure, columns: int = 1) -> None:
    """A key below the axes, if a line has a label."""
    if figure.axes[0].get_legend_handles_labels()[1]:
        style: dict[str, Any] = {"frameon": False, "labelcolor": INK, "handlelength": 2.6, "columnspacing": 0.9}
        figure.legend(loc="outside lower left", ncols=columns, fontsize=FONT_PT if columns == 1 else 6.0, **style)


def _mark(axes: Axes, x: float, y: float, index: int, tooltip: str, size: float = 3.5, filled: bool = True) -> None:
    colour = COLOURS[index % len(COLOURS)]
    style: dict[str, Any] = {"marker": MARKS[index % len(MARKS)], "markersize": size, "markeredgewidth": 0.8}
    style |= {"color": colour, "markerfacecolor": colour if filled else PAPER}
    _tell(axes.plot([x], [y], linestyle="none", clip_on=False, zorder=3, **style), tooltip)


def _tell(artists: Iterable[Artist], words: str) -> None:
    """Say what artists are; a page shows it under the pointer."""
    for artist in artists:
        artist.set_gid(f"{TOOLTIP}{words}")


def _interval(axes: Axes, place: float, number: Measured, index: int, tooltip: str, upright: bool = True) -> None:
    """A mark with its interval; `upright` where the interval is one of y. Nothing without a value."""
    if number.value is None:
        return
    if number.low is not None and number.high is not None:
        ends = [(place, end) if upright else (end, place) for end in (number.low, number.high)]
        _line(axes, ends, index, linestyle="-", linewidth=0.9)
    _mark(axes, *((place, number.value) if upright else (number.value, place)), index, tooltip)


def _bars(axes: Axes, counts: Sequence[int], edges: Sequence[float]) -> None:
    """A histogram that is counted already; empty bins have no bar."""
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        if count:
            bar = axes.bar((start + end) / 2, count, width=0.94 * (end - start), color=BAR)
            _tell(bar, f"{start:.3f} to {end:.3f}: {format_images(count)}")


def _box(axes: Axes, name: str, values: Sequence[float], place: int) -> None:
    low, first, median, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    box = {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high}
    ink = {"color": INK, "linewidth": 0.8}
    style: dict[str, Any] = {"medianprops": ink, "whiskerprops": ink, "patch_artist": True, "widths": 0.28}
    style["boxprops"] = {"facecolor": BOX, "edgecolor": COLOURS[0], "linewidth": 0.8}
    style |= {"showfliers": False, "showcaps": False, "manage_ticks": False, "orientation": "horizontal"}
    drawn = axes.bxp([box], positions=[place + 0.15], **style)
    spread = f"middle half {first:.3f} to {third:.3f}, 5 to 95 % {low:.3f} to {high:.3f}"
    _tell(drawn["boxes"], f"{name}: median {median:.3f}, {spread}")
