"""The page of a comparison: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from lungseg.reporting.comparison_text import HEAD, comparison_cells, title_of, told_p
from lungseg.reporting.report.markup import figure, figures, items, section, table
from lungseg.reporting.report.page import DISCLAIMER
from lungseg.reporting.report.svg import WIDTH, Scale, drawing, line, mark, text
from lungseg.reporting.report.words import digits_of, told

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_DISTANCES = ("hd95", "asd")


def comparison_page(content: Mapping[str, Any]) -> str:
    """The page as HTML."""
    title = f"Comparison: {title_of(content)}"
    rows = content["table"]
    distances = [row for row in rows if any(part in row["name"] for part in _DISTANCES)]
    shares = [row for row in rows if row not in distances]
    baseline, runs = content["what"]["baseline"], list(content["differences"])
    charts = [
        figure(
            differences_chart(part, runs, f"difference to {baseline}, {unit}"),
            f"Differences to {baseline}: {unit}",
            "Lines: 95 % intervals. An interval that crosses zero does not tell the runs apart.",
        )
        for part, unit in ((shares, "shares"), (distances, "distances"))
        if part
    ]
    said = items(f"{note[:1].upper()}{note[1:]}." for note in content["notes"])
    body = [
        f'<header><h1>{escape(title)}</h1><p class="disclaimer" role="note">{escape(DISCLAIMER)}</p></header><main>',
        section("table", "Differences", [table(HEAD, comparison_cells(content), "Headline numbers", "words")]),
        section("charts", "Charts", [figures(charts)]),
        section("notes", "How to read these numbers", [said]),
        section("setup", "What was compared", [_setup(content)]),
        "</main>",
    ]
    style = (resources.files("lungseg.reporting") / "templates" / "style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n'
        "<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def differences_chart(rows: Sequence[Mapping[str, Any]], runs: Sequence[str], label: str) -> str:
    """Every difference with its interval as a line, one row each, zero marked; `rows` of a comparison's table."""
    ends = [row["difference"][end] for row in rows for end in ("low", "high", "value")]
    known = [end for end in ends if end is not None]
    x = Scale(min(0.0, *known), max(0.0, *known), 14, WIDTH - 14)
    parts, y = [], 14.0
    for row in rows:
        found, index = row["difference"], runs.index(row["run"])
        words = f"{row['title']}: {row['run']}" if len(runs) > 1 else row["title"]
        parts.append(text(x.start, y, words))
        if found["low"] is not None:
            parts.append(line([(x(found["low"]), y + 10), (x(found["high"]), y + 10)], f"whisker c{index}"))
        told_all = f"{words}: {told(found, digits_of(row['name']) + 1)}, p {told_p(found['p_value'])}"
        parts.append(mark(x(found["value"]), y + 10, f"c{index}", index, told_all))
        y += 32
    axis = [line([(x.start, y), (x.end, y)], "axis")]
    axis += [text(x(tick), y + 15, f"{tick:g}", "tick middle") for tick in x.ticks()]
    return drawing(y + 22, label, [line([(x(0), 2), (x(0), y)], "reference"), *axis, *parts])


def _setup(content: Mapping[str, Any]) -> str:
    """Runs with what was evaluated of each."""
    names = ("checkpoint_digest", "split", "data_name", "images", "image_size", "class_maps", "date")
    rows = [(run, *(str(about.get(name)) for name in names)) for run, about in content["what"]["runs"].items()]
    return table(("run", *(name.replace("_", " ") for name in names)), rows, "Runs", "words")
