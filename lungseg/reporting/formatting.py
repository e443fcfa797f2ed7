"""Numbers as text: with their intervals, as headlines, and as LaTeX tables that need no package."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lungseg.evaluation.intervals import Number, Numbers
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.scoreboard import HEADLINES, ScoreboardRow

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
LOCALISATION_COLUMNS = (
    ("in lungs", "evidence_in_lungs"),
    ("hit", "infection_hit"),
    ("hit, cropped", "infection_in_lungs_hit"),
    ("IoU Otsu, cropped", "infection_in_lungs_iou_otsu"),
    ("IoU tuned", "infection_iou_tuned"),
    ("IoU tuned, cropped", "infection_in_lungs_iou_tuned"),
    ("energy", "infection_energy"),
    ("AP", "infection_average_precision"),
)
"""Of the table of class maps: heading and name of the number."""
SIZE_COLUMNS = tuple(LOCALISATION_COLUMNS[at] for at in (1, 4, 6, 7))  # Of the same table by size of lesion.
MOST_CLASSES = 20  # Of a report; of more, it shows those with the most images.
LESIONS = {f"lesion_{size}": f"{size} lesions" for size in ("small", "medium", "large")}
"""Titles of groups of images."""
Measured = Number | ScoreboardRow  # What has a value with an interval, each None where it is undefined.


def localisation_rows(results: EvaluationResults) -> dict[str, Numbers]:
    """Numbers of the rows of the table of class maps: each CAM method, then what needs no class map."""
    baselines = {f"{name.replace('_', ' ')} as the map": numbers for name, numbers in results.map_baselines.items()}
    return {method: maps.intervals for method, maps in results.class_maps.items()} | baselines


class Headline(NamedTuple):
    """A number of the summary and of the LaTeX table."""

    name: str
    title: str
    number: Number
    images: int  # Images behind it.


def format_interval(number: Measured | None, digits: int = 3, missing: str = "not measured") -> str:
    """`0.951 [0.948, 0.954]`; `missing` where there is no value."""
    if number is None or number.value is None:
        return missing
    value = f"{number.value:.{digits}f}"
    if number.low is None or number.high is None:
        return value
    return f"{value} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def digits_of(name: str) -> int:
    """Decimals of a number by its name: distances and counts have two, shares three."""
    coarse = ("hd95", "asd", "components", "holes")
    return 2 if any(part in name for part in coarse) else 3


def format_images(count: int) -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def of_main_classes(results: EvaluationResults) -> EvaluationResults:
    """The results as a report shows them: of more than `MOST_CLASSES` classes, those with the most images.

    The others are one row and one column of the confusion matrix, the last, and `class_images` still has them.
    """
    names = results.setup.classes
    by_images = sorted(range(len(names)), key=lambda index: (-results.setup.class_images.get(names[index], 0), index))
    if len(names) <= MOST_CLASSES:
        return results
    kept, rest = sorted(by_images[:MOST_CLASSES]), by_images[MOST_CLASSES:]
    shown, hidden = (tuple(f"_{names[index]}" for index in indices) for indices in (kept, rest))

    def of_shown(numbers: Mapping[str, Number]) -> Numbers:
        return {n: number for n, number in numbers.items() if n.endswith(shown) or not n.endswith(hidden)}

    curves, points, sets = results.curves, results.operating_points, results.abstention
    matrix = np.array(results.confusion)
    for axis in range(matrix.size and 2):
        others = matrix.take(rest, axis).sum(axis, keepdims=True)
        matrix = np.concatenate([matrix.take(kept, axis), others], axis)
    return replace(
        results,
        setup=replace(results.setup, classes=[names[index] for index in kept]),
        segmentation=of_shown(results.segmentation),
        classification=of_shown(results.classification),
        confusion=matrix.tolist(),
        curves=replace(
            curves,
            roc={name: curve for name, curve in curves.roc.items() if f"_{name}" in shown},
            precision_recall={name: curve for name, curve in curves.precision_recall.items() if f"_{name}" in shown},
        ),
        operating_points=replace(points, scores=of_shown(points.scores)) if points else None,
        abstention=replace(sets, sets=of_shown(sets.sets)) if sets else None,
        class_maps={name: replace(m, intervals=of_shown(m.intervals)) for name, m in results.class_maps.items()},
        caveats=[
            f"of {len(names)} classes those {len(kept)} with the most images are shown; metrics.json and "
            "scores.csv have all",
            *results.caveats,
        ],
    )


def class_counts(results: EvaluationResults) -> dict[str, int]:
    """Images by true class, of the classes that have one."""
    return {name: count for name, count in results.setup.class_images.items() if count}


def count_words(results: EvaluationResults) -> str:
    """`COVID-19 3, Normal 1,200`, with no more classes than are shown; empty where no image has a class."""
    counts = class_counts(results)
    shown = [name for name in counts if name in results.setup.classes]
    more = [f"{len(counts) - len(shown)} more classes"] if len(shown) < len(counts) else []
    return ", ".join([*(f"{name} {counts[name]:,}" for name in shown), *more])


def confusion_names(results: EvaluationResults) -> list[str]:
    """Names of the rows and columns of the confusion matrix; the last may be that of all classes not shown."""
    return [*results.setup.classes, "other classes"][: len(results.confusion)]


def title_of(results: EvaluationResults) -> str:
    """What was evaluated, in a line."""
    return f"{results.setup.split} of {results.setup.data_name or 'unnamed data'}"


def headlines(results: EvaluationResults) -> list[Headline]:
    """The `HEADLINES` that were measured and are defined."""
    labelled = sum(map(sum, results.confusion))
    lung = results.mask_counts.get("lung")
    scored = lung.images if lung else results.setup.images
    found = []
    for section, name, title in HEADLINES:
        number = results.headline(section, name)
        if number is not None:
            images = number.images or (labelled if section == "classification" else scored)
            found.append(Headline(name, title, number, images))
    return found


def results_latex(results: EvaluationResults) -> str:
    r"""The headline numbers of an evaluation with their intervals; `\input{table.tex}` takes it."""
    counts = count_words(results)
    caption = f"{title_of(results)}, {format_images(results.setup.images)}" + (f" ({counts})" if counts else "")
    caption += f"; 95 % bootstrap intervals of {results.setup.bootstraps} resamples."
    rows = []
    for name, title, number, images in headlines(results):
        value, bracket, ends = format_interval(number, digits_of(name)).partition(" [")
        rows.append((escape_latex(title), value, f"[{ends}" if bracket else "--", str(images)))
    head = ("Score", "Value", r"95\,\% interval", "Images")
    return latex_table("metrics.json", caption, "lrrr", head, rows or [("nothing was measured", "", "", "")])


def align(table: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The rows of a table as lines for the terminal, its first columns flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sides = ["<"] * left + [">"] * (len(widths) - left)
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in table
    ]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table in Markdown, its first columns flush left and the others flush right."""
    sides = "|---" * left + "|---:" * (len(head) - left) + "|"
    lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows))
    first, *others = lines
    return [first, sides, *others]


def latex_table(source: str, caption: str, columns: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a paper, made from `source`: the caption is text, headings and cells are LaTeX; columns as `lrr`."""
    lines = [
        f"% written by lungseg from {source}; do not edit",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        " & ".join(head) + r" \\",
        r"\hline",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(words: str) -> str:
    """Words with what LaTeX takes for commands escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in words)


def latex_cell(words: str) -> str:
    """Escaped, with a true minus and a true less-than sign."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escape_latex(words)).replace("< ", "$<$ ")
