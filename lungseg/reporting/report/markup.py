"""Pieces of HTML as text. Whatever is not called HTML here is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def section(anchor: str, title: str, html: Iterable[str]) -> str:
    """A part of the page."""
    inside = "\n".join(part for part in html if part)
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{inside}\n</section>'


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; kind: a CSS class."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, kind: str = "") -> str:
    """A table that scrolls by itself where it is too wide; the first cell of a row heads it."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    ]
    body = "\n".join(lines)
    return (
        f'<p class="caption">{escape(caption)}</p>'
        f'<div class="wide {kind}" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(words: str) -> str:
    """The words of a cell; an interval `[..., ...]` at their end may stand on a line of its own."""
    value, bracket, ends = words.partition(" [")
    if bracket and ends.endswith("]"):
        return f'{escape(value)} <span class="ends">[{escape(ends)}</span>'
    return escape(words)


def figure(html: str, title: str, caption: str = "") -> str:
    """A chart with a title and what to read from it."""
    said = f"<span>{escape(caption)}</span>" if caption else ""
    return f"<figure><figcaption><b>{escape(title)}</b>{said}</figcaption>\n{html}\n</figure>"


def figures(html: Iterable[str]) -> str:
    """Charts side by side where there is room."""
    return f'<div class="figures">{"".join(html)}</div>'


def folded(summary: str, html: str) -> str:
    """What is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}\n</details>"


def items(lines: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
