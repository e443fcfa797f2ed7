"""The page of an evaluation: one HTML file that needs no network, made from metrics.json, per_image.csv and images/."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path

from lungseg.reporting.report.content import Content, load_content
from lungseg.reporting.report.gallery import gallery_section
from lungseg.reporting.report.latex import latex_table
from lungseg.reporting.report.score_sections import class_section, mask_section, summary_section
from lungseg.reporting.report.setup_sections import notes_section, scoreboard_section, setup_section
from lungseg.reporting.report.study_sections import map_section, robustness_section, shortcut_section
from lungseg.reporting.report.words import counted_images, title_of
from lungseg.runs.whole_files import write_text

ANCHORS = ("summary", "notes", "masks", "classes", "maps", "shortcuts", "robustness", "gallery", "scoreboard", "setup")
DISCLAIMER = (
    "Research software, not a medical device. Nothing here may be used to diagnose, treat or triage a patient; no "
    "number here says how the network does on other data."
)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(folder: Path, names: bool = False) -> Path:
    """Write `report.html` and `table.tex` beside metrics.json; parts that were not measured are left out with a word.

    Args:
        folder: Of an evaluation: metrics.json, per_image.csv, `images/` by `PictureWriter`.
        names: Put ids of images (names of files) and groups (patients) into the page; without, images have numbers.

    Returns:
        The page.

    Raises:
        FileNotFoundError: No metrics.json.
        ValueError: It is no JSON.
    """
    content = load_content(folder)
    page = folder / "report.html"
    write_text(folder / "table.tex", latex_table(content))
    write_text(page, _draw(content, folder, names))
    return page


def _draw(content: Content, folder: Path, names: bool) -> str:
    title = f"Evaluation: {title_of(content)}"
    sections = [
        summary_section(content),
        notes_section(content),
        mask_section(content),
        class_section(content),
        map_section(content),
        shortcut_section(content),
        robustness_section(content),
        gallery_section(content, folder, names),
        scoreboard_section(content),
        setup_section(content),
    ]
    links = "".join(f'<a href="#{anchor}">{anchor}</a>' for anchor in ANCHORS)
    date = str(content.what.get("date") or "")[:10]
    body = "\n".join(
        [
            f'<header><h1>{escape(title)}</h1><p class="soft">lungseg {escape(str(content.what.get("lungseg", "")))}, '
            f"{counted_images(content.images)}, {escape(date)}</p>",
            f'<p class="disclaimer" role="note">{escape(DISCLAIMER)}</p><nav aria-label="Parts">{links}</nav></header>',
            "<main>",
            *sections,
            "</main>",
            f'<footer><p class="soft">{escape(DISCLAIMER)}</p></footer>',
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{_file('style.css')}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{_file('script.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return (resources.files("lungseg.reporting") / "templates" / name).read_text(encoding="utf-8")
