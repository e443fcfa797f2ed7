"""Figures of a paper as PDF and PNG, from the files of the page; by matplotlib, where it is installed."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lungseg.reporting.report.content import Content, load_content
from lungseg.reporting.report.study_charts import CURVES, VIEWS
from lungseg.reporting.report.words import chance_of, told
from lungseg.runs.whole_files import write_whole

_log = logging.getLogger(__name__)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#882255", "#b07d00", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")
SUFFIXES = (".pdf", ".png")
FOLDER = "figures"
_SIDE_IN = 3.3
"""Width of a column of a paper, inches."""


def write_figures(folder: Path) -> list[Path]:
    """Write `figures/NAME.pdf` and `.png` for what was measured; a warning where matplotlib is not installed.

    Figures of an earlier evaluation are removed.

    Args:
        folder: Of an evaluation, as for `write_report`.

    Returns:
        The files.

    Raises:
        FileNotFoundError: No metrics.json.
    """
    content = load_content(folder)
    for suffix in SUFFIXES:
        for old in (folder / FOLDER).glob(f"*{suffix}"):
            old.unlink()
    if find_spec("matplotlib") is None:
        _log.warning("no %s/: matplotlib is not installed; `pip install matplotlib` brings them", FOLDER)
        return []
    from matplotlib import rc_context

    paths = []
    with rc_context({"font.size": 8, "pdf.fonttype": 42}):
        for name, figure in draw_figures(content).items():
            for suffix in SUFFIXES:
                written = io.BytesIO()
                # without a date the same numbers give the same file
                dateless = {"CreationDate": None} if suffix == ".pdf" else {}
                figure.savefig(written, format=suffix[1:], dpi=300, metadata=dateless)
                paths.append(folder / FOLDER / f"{name}{suffix}")
                write_whole(paths[-1], written.getvalue())
    return paths


def draw_figures(content: Content) -> dict[str, Any]:
    """A `matplotlib.figure.Figure` by file name for what was measured."""
    from matplotlib.figure import Figure

    drawn = _DRAWN | {f"robustness_{name}": _robustness_of(name) for name in content.section("robustness", "curves")}
    figures = {}
    for name, draw in drawn.items():
        figure = Figure(figsize=(_SIDE_IN, _SIDE_IN * 0.85), layout="constrained")
        axes = figure.add_subplot()
        if not draw(content, axes):
            continue
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=6)
        figures[name] = figure
    return figures


def _roc(content: Content, axes: Any) -> bool:
    return _curves(content, axes, "roc", "auroc", ("false positive rate", "true positive rate"))


def _precision_recall(content: Content, axes: Any) -> bool:
    return _curves(content, axes, "precision_recall", "average_precision", ("recall", "precision"))


def _curves(content: Content, axes: Any, kind: str, score: str, names: tuple[str, str]) -> bool:
    curves, scores = content.section("curves", kind), content.section("classification")
    for index, (name, curve) in enumerate(curves.items()):
        label = f"{name} {told(scores.get(f'{score}_{name}'))}"
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "label": label}
        if kind == "roc":
            axes.plot(curve["x"], curve["y"], **style)
        else:
            axes.step(curve["x"], curve["y"], where="pre", **style)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1), ylim=(0, 1.02))
    return bool(curves)


def _confusion(content: Content, axes: Any) -> bool:
    matrix, classes = content.metrics.get("confusion") or [], content.classes
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    if not any(map(sum, matrix)):
        return False
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.72 else "black"  # of the two, what stands out more
            axes.text(j, i, f"{count}\n{shares[i][j]:.1%}", ha="center", va="center", color=colour)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes, rotation=90, va="center")
    return True


def _reliability(content: Content, axes: Any) -> bool:
    found = content.section("calibration")
    for index, (when, name) in enumerate((("reliability", "as given"), ("reliability_after", "scaled"))):
        bins = [b for b in found.get(when) or [] if b.get("images") and b.get("accuracy") is not None]
        points = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        sizes = [6 + 40 * b["images"] / max(b["images"] for b in bins) for b in bins]
        ece = told(content.section("calibration", ("before", "after")[index]).get("ece"))
        if bins:
            colours = {"edgecolors": COLOURS[index], "facecolors": ("none", COLOURS[index])[index == 0]}
            axes.scatter(*points, s=sizes, marker=MARKS[index], label=f"{name}, ECE {ece}", **colours)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    return bool(found.get("reliability"))


def _dice(content: Content, axes: Any) -> bool:
    values = content.column("dice")
    axes.hist(values, bins=30, color=COLOURS[0])
    axes.set(xlabel="lung dice", ylabel="images")
    return bool(values)


def _shortcuts(content: Content, axes: Any) -> bool:
    views = content.section("shortcuts", "views")
    numbers = [view.get("scores", {}).get("balanced_accuracy", {}) for view in views.values()]
    _intervals(axes, list(range(len(views))), numbers, 0, "", upright=False)
    axes.set(xlabel="balanced accuracy", xlim=(0, 1.02), yticks=range(len(views)))
    axes.set_yticklabels([VIEWS.get(name, name) for name in views])
    axes.invert_yaxis()
    if (chance := chance_of(content)) is not None:
        axes.axvline(chance, color="grey", linewidth=0.8, linestyle="--")
    return any(number.get("value") is not None for number in numbers)


def _robustness_of(name: str) -> Callable[[Content, Any], bool]:
    def draw(content: Content, axes: Any) -> bool:
        curve = content.section("robustness", "curves", name)
        points = curve.get("points") or []
        for index, (score, words) in enumerate(CURVES.items()):
            numbers = [point.get("scores", {}).get(score, {}) for point in points]
            _intervals(axes, [point["strength"] for point in points], numbers, index, words)
        axes.set(xlabel=f"{name}: {curve.get('unit', '')}", ylim=(0, 1.02))
        return bool(points)

    return draw


def _intervals(
    axes: Any, places: list[float], numbers: list[Mapping[str, Any]], index: int, words: str, upright: bool = True
) -> None:
    """Values with their intervals, joined by a line where they stand upright."""
    known = [(at, n) for at, n in zip(places, numbers, strict=True) if n.get("value") is not None]
    known = [(at, n) for at, n in known if n.get("low") is not None and n.get("high") is not None]
    if not known:
        return
    places, values = [at for at, _ in known], [n["value"] for _, n in known]
    # the interval of what noise can only raise may begin above the value
    below = [max(n["value"] - n["low"], 0) for _, n in known]
    above = [max(n["high"] - n["value"], 0) for _, n in known]
    style = {"color": COLOURS[index], "marker": MARKS[index], "markersize": 4, "capsize": 2, "label": words}
    if upright:
        axes.errorbar(places, values, yerr=[below, above], linestyle=DASHES[index], **style)
    else:
        axes.errorbar(values, places, xerr=[below, above], linestyle="none", **style)


_DRAWN: dict[str, Callable[[Content, Any], bool]] = {
    "roc": _roc,
    "precision_recall": _precision_recall,
    "confusion": _confusion,
    "reliability": _reliability,
    "dice": _dice,
    "shortcuts": _shortcuts,
}
"""By file name; each returns whether there was something to draw."""
