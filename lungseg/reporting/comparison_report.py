"""A comparison of runs: lines for the terminal, Markdown, LaTeX, every number as CSV, charts, and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungseg.evaluation.intervals import Number
from lungseg.reporting.chart_files import Chart, write_figures
from lungseg.reporting.charts import Row, draw_intervals
from lungseg.reporting.formatting import align, digits_of, format_interval, latex_cell, latex_table, markdown_table
from lungseg.reporting.pages import render, sentence
from lungseg.runs.whole_files import to_csv, write_json, write_text

HEAD = ("score", "run", "baseline", "run's value", "difference [95 % interval]", "p", "p (Holm)")


def write_comparison(content: dict[str, Any], folder: Path) -> None:
    """Write `comparison.csv`, `.md`, `.tex`, `.html` and `.json`, and the page's charts into `figures/`."""
    charts = comparison_charts(content)
    write_text(folder / "comparison.csv", comparison_csv(content))
    write_text(folder / "comparison.md", comparison_markdown(content))
    write_text(folder / "comparison.tex", comparison_latex(content))
    write_text(folder / "comparison.html", comparison_page(content, charts))
    write_json(folder / "comparison.json", content)
    write_figures(charts, folder)


def comparison_lines(content: Mapping[str, Any]) -> list[str]:
    """For the terminal: the table aligned, then the notes."""
    aligned = align([HEAD, *_cells(content)], left=2)
    return [*aligned, "", "notes", *(f"  - {note}" for note in content["notes"])]


def comparison_markdown(content: Mapping[str, Any]) -> str:
    """A table for a README or an issue."""
    notes = [f"- {sentence(note)}" for note in content["notes"]]
    table = markdown_table(HEAD, _cells(content), left=2)
    return "\n".join([f"{comparison_title(content)}.", "", *table, "", *notes]) + "\n"


def comparison_latex(content: Mapping[str, Any]) -> str:
    r"""A table that needs no LaTeX package; `\input{comparison.tex}` takes it."""
    draws = content["what"]["bootstraps"]
    caption = (
        f"{comparison_title(content)}. Differences to {content['what']['baseline']} with 95 % intervals and p-values "
    )
    caption += f"of a paired bootstrap ({draws} resamples); p (Holm) is corrected for the number of rows."
    rows = [[latex_cell(cell) for cell in row] for row in _cells(content)]
    return latex_table("lungseg.compare", caption, "llrrrrr", [latex_cell(name) for name in HEAD], rows)


def comparison_csv(content: Mapping[str, Any]) -> str:
    """Every number: `section,name,run,baseline_value,run_value,difference,low,high,p_value,undefined,images`."""
    ends = ("value", "low", "high", "p_value", "undefined", "images")
    lines: list[list[Any]] = [["section", "name", "run", "baseline_value", "run_value", "difference", *ends[1:]]]
    baseline = content["runs"][content["what"]["baseline"]]
    for run, numbers in content["differences"].items():
        for name, difference in numbers.items():
            values = [of[name]["value"] if name in of else None for of in (baseline, content["runs"][run])]
            lines.append([*name.split("/"), run, *values, *(difference.get(end) for end in ends)])
    return to_csv(lines)


def comparison_page(content: Mapping[str, Any], charts: list[Chart]) -> str:
    """The page as HTML."""
    return render(
        "comparison.html.jinja",
        title=f"Comparison: {comparison_title(content)}",
        head=HEAD,
        cells=_cells(content),
        charts=charts,
        notes=content["notes"],
        runs=content["what"]["runs"],
    )


def comparison_charts(content: Mapping[str, Any]) -> list[Chart]:
    """The differences with their intervals: shares in one chart, distances in another."""
    baseline, runs = content["what"]["baseline"], list(content["differences"])
    charts = []
    for unit, digits in (("shares", 3), ("distances", 2)):
        rows = [_row(row, runs) for row in content["table"] if digits_of(row["name"]) == digits]
        if rows:
            caption = "Lines: 95 % intervals. An interval that crosses zero does not tell the runs apart."
            drawing = draw_intervals(rows, f"difference to {baseline}, {unit}", (0.0, ""), limits=None)
            charts.append(Chart(f"differences_{unit}", f"Differences to {baseline}: {unit}", caption, drawing))
    return charts


def comparison_title(content: Mapping[str, Any]) -> str:
    """What was compared, in a line."""
    what = content["what"]
    *names, last = what["runs"]
    return f"{', '.join(names)}{' and ' * bool(names)}{last} on {what['images']} images ({', '.join(what['data'])})"


def format_p(value: float | None) -> str:
    """`0.013`; `< 0.001`; `-` where there is none."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def signed(row: Mapping[str, Any]) -> str:
    """The difference of a row of the table: `+0.012 [0.004, 0.020]`."""
    return ("+" if row["difference"]["value"] >= 0 else "") + format_interval(_number(row), digits_of(row["name"]) + 1)


def _cells(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table as text, in the columns of `HEAD`."""
    cells = []
    for row in content["table"]:
        digits = digits_of(row["name"]) + 1
        values = [f"{row[of]['value']:.{digits}f}" for of in ("baseline", "own")]
        p_values = format_p(row["difference"]["p_value"]), format_p(row["p_holm"])
        cells.append((row["title"], row["run"], *values, signed(row), *p_values))
    return cells


def _row(row: Mapping[str, Any], runs: list[str]) -> Row:
    words = f"{row['title']}: {row['run']}" if len(runs) > 1 else row["title"]
    tooltip = f"{words}: {signed(row)}, p {format_p(row['difference']['p_value'])}"
    return Row(words, _number(row), runs.index(row["run"]), tooltip)


def _number(row: Mapping[str, Any]) -> Number:
    return Number(*(row["difference"][end] for end in ("value", "low", "high", "undefined")))
