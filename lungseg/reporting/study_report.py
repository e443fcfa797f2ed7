"""A study of variants: lines for the terminal, Markdown, LaTeX, every number as CSV, charts, and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungseg.evaluation.comparison import TABLE
from lungseg.evaluation.intervals import Number
from lungseg.reporting.chart_files import Chart, write_figures
from lungseg.reporting.comparison_report import comparison_charts, comparison_title, format_p, signed
from lungseg.reporting.formatting import align, digits_of, format_interval, latex_cell, latex_table, markdown_table
from lungseg.reporting.pages import render, sentence
from lungseg.runs.whole_files import to_csv, write_json, write_text

HEAD = ("score", "variant", "mean [95 % interval]", "SD of seeds", "SD of folds", "difference [95 %]", "p", "p (Holm)")
COST = ("variant", "trainings", "minutes each", "SD", "of the first's")


def write_study(content: dict[str, Any], folder: Path) -> None:
    """Write `study.csv`, `.md`, `.tex`, `.html` and `.json`, and the page's charts into `figures/`."""
    charts = comparison_charts(content)
    write_text(folder / "study.csv", study_csv(content))
    write_text(folder / "study.md", study_markdown(content))
    write_text(folder / "study.tex", study_latex(content))
    write_text(folder / "study.html", study_page(content, charts))
    write_json(folder / "study.json", content)
    write_figures(charts, folder)


def study_lines(content: Mapping[str, Any]) -> list[str]:
    """For the terminal: the table aligned, what it cost, then the notes."""
    table, cost = align([HEAD, *_cells(content)], left=2), align([COST, *_cost(content)])
    return [*table, "", *cost, "", "notes", *(f"  - {note}" for note in content["notes"])]


def study_markdown(content: Mapping[str, Any]) -> str:
    """The tables for a README or an issue."""
    table, cost = markdown_table(HEAD, _cells(content), left=2), markdown_table(COST, _cost(content))
    notes = [f"- {sentence(note)}" for note in content["notes"]]
    return "\n".join([f"{comparison_title(content)}.", "", *table, "", *cost, "", *notes]) + "\n"


def study_latex(content: Mapping[str, Any]) -> str:
    r"""A table that needs no LaTeX package; `\input{study.tex}` takes it."""
    counts = ", ".join(f"{name} {cost['trainings']}" for name, cost in content["cost"].items())
    caption = f"{comparison_title(content)}. Means over trainings ({counts}) with 95 % intervals that count images and "
    caption += f"trainings; differences to {content['what']['baseline']}; p (Holm) is corrected for the number of rows."
    rows = [[latex_cell(cell) for cell in row] for row in _cells(content)]
    return latex_table("lungseg.study", caption, "llrrrrrr", [latex_cell(name) for name in HEAD], rows)


def study_csv(content: Mapping[str, Any]) -> str:
    """Every number: of each variant, then its difference to the first."""
    ends = ("value", "low", "high", "error_of_images", "error_of_trainings")
    spread, test = ("seed_sd", "fold_sd", "undefined"), tuple(f"difference_{end}" for end in (*ends, "p_value"))
    lines: list[list[Any]] = [["section", "name", "variant", *ends, *spread, *test]]
    for variant, numbers in content["runs"].items():
        differences = content["differences"].get(variant, {})
        for name, number in numbers.items():
            difference = differences.get(name, {})
            own = [number[end] for end in (*ends, *spread)]
            lines.append([*name.split("/"), variant, *own, *(difference.get(end) for end in (*ends, "p_value"))])
    return to_csv(lines)


def study_page(content: Mapping[str, Any], charts: list[Chart]) -> str:
    """The page as HTML."""
    return render(
        "study.html.jinja",
        title=f"Study: {comparison_title(content)}",
        head=HEAD,
        cells=_cells(content),
        cost_head=COST,
        cost=_cost(content),
        charts=charts,
        notes=content["notes"],
    )


def _cells(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table as text, in the columns of `HEAD`."""
    compared = {(row["name"], row["run"]): row for row in content["table"]}
    cells = []
    for name, title in TABLE:
        digits = digits_of(name) + 1
        for variant in (variant for variant, numbers in content["runs"].items() if name in numbers):
            number, row = content["runs"][variant][name], compared.get((name, variant))
            mean = format_interval(Number(number["value"], number["low"], number["high"], 0), digits)
            spread = [_spread(number[sd], digits) for sd in ("seed_sd", "fold_sd")]
            against = ("-", "-", "-")
            if row is not None:
                against = (signed(row), format_p(row["difference"]["p_value"]), format_p(row["p_holm"]))
            cells.append((title, variant, mean, *spread, *against))
    return cells


def _cost(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    first = next(iter(content["cost"].values()))["minutes"]
    rows: list[tuple[str, ...]] = []
    for name, cost in content["cost"].items():
        ratio = f"{cost['minutes'] / first:.2f} x" if first else "-"
        rows.append((name, str(cost["trainings"]), f"{cost['minutes']:.1f}", _spread(cost["minutes_sd"], 1), ratio))
    return rows


def _spread(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
