"""A comparison of runs as text: lines for the terminal, Markdown, LaTeX, and every number as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lungseg.reporting.report.latex import escape_latex
from lungseg.reporting.report.words import digits_of, told

HEAD = ("score", "run", "baseline", "run's value", "difference [95 % interval]", "p", "p (Holm)")


def comparison_cells(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table as text, in the columns of `HEAD`."""
    cells: list[tuple[str, ...]] = []
    for row in content["table"]:
        digits = digits_of(row["name"]) + 1
        found = row["difference"]
        cells.append(
            (
                row["title"],
                row["run"],
                f"{row['baseline']['value']:.{digits}f}",
                f"{row['own']['value']:.{digits}f}",
                _signed(found, digits),
                told_p(found["p_value"]),
                told_p(row["p_holm"]),
            )
        )
    return cells


def comparison_lines(content: Mapping[str, Any]) -> list[str]:
    """For the terminal: the table aligned, then the notes."""
    rows = [HEAD, *comparison_cells(content)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    aligned = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*aligned, "", "notes", *(f"  - {note}" for note in content["notes"])]


def comparison_markdown(content: Mapping[str, Any]) -> str:
    """A table for a README or an issue."""
    head = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 2)]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in comparison_cells(content)]
    notes = [f"- {note[:1].upper()}{note[1:]}." for note in content["notes"]]
    return "\n".join([f"{title_of(content)}.", "", *head, *rows, "", *notes]) + "\n"


def comparison_latex(content: Mapping[str, Any]) -> str:
    r"""A table that needs no LaTeX package; `\input{comparison.tex}` takes it."""
    draws = content["what"]["bootstraps"]
    caption = f"{title_of(content)}. Differences to {content['what']['baseline']} with 95 % intervals and p-values "
    caption += f"of a paired bootstrap ({draws} resamples); p (Holm) is corrected for the number of rows."
    rows = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in comparison_cells(content)]
    lines = [
        "% written by lungseg.compare; do not edit",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        r"\begin{tabular}{llrrrrr}",
        r"\hline",
        " & ".join(_latex_cell(name) for name in HEAD) + r" \\",
        r"\hline",
        *rows,
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def comparison_csv(content: Mapping[str, Any]) -> str:
    """Every number: `section,name,run,baseline_value,run_value,difference,low,high,p_value,undefined,images`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    ends = ("value", "low", "high", "p_value", "undefined", "images")
    writer.writerow(["section", "name", "run", "baseline_value", "run_value", "difference", *ends[1:]])
    baseline = content["runs"][content["what"]["baseline"]]
    for run, numbers in content["differences"].items():
        for name, found in numbers.items():
            values = [part[name]["value"] if name in part else None for part in (baseline, content["runs"][run])]
            writer.writerow(
                [*name.split("/"), run, *(_plain(value) for value in (*values, *(found.get(end) for end in ends)))]
            )
    return text.getvalue()


def title_of(content: Mapping[str, Any]) -> str:
    """What was compared, in a line."""
    what = content["what"]
    return f"{' and '.join(what['runs'])} on {what['images']} images ({', '.join(what['data'])})"


def told_p(value: float | None) -> str:
    """`0.013`; `< 0.001`; `-` where there is none."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(number: Mapping[str, Any], digits: int) -> str:
    """`+0.012 [0.004, 0.020]`."""
    return ("+" if number["value"] >= 0 else "") + told(number, digits)


def _latex_cell(words: str) -> str:
    """Escaped, with a true minus and a true less-than sign."""
    parts: Sequence[str] = escape_latex(words).split(" ")
    signed = [
        f"${part.rstrip(',]')}${part[len(part.rstrip(',]')) :]}" if _is_negative(part) else part for part in parts
    ]
    return " ".join("$<$" if part == "<" else part for part in signed).replace("[-", "[$-$")


def _is_negative(part: str) -> bool:
    return part.startswith("-") and part != "-"


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
