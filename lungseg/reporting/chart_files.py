"""Charts as SVG inside a page, and as the files of a paper.

The same numbers give the same bytes: ids come from the chart's name, and no date is written.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from lungseg.reporting.charts import BAR, BOX, COLOURS, INK, PAPER, RULE, SOFT, TOOLTIP, Drawing
from lungseg.runs.whole_files import write_whole

if TYPE_CHECKING:
    from markupsafe import Markup

SUFFIXES = (".pdf", ".png")
FOLDER = "figures"
_NAMES = {INK: "ink", SOFT: "soft", RULE: "rule", BAR: "bar", BOX: "box", PAPER: "paper"}
_NAMES |= {colour: f"c{index}" for index, colour in enumerate(COLOURS)}
_VARIABLES = {colour: f"var(--{name})" for colour, name in _NAMES.items()}
"""Colours of the charts, and what the page's style calls them."""
_LOCK = threading.Lock()  # What decides how text is saved is global in matplotlib, set for the time of one file.


class Chart(NamedTuple):
    """A chart as it stands in a report."""

    name: str  # Of its files.
    title: str
    caption: str  # What to read from it.
    drawing: Drawing


def to_svg(chart: Chart) -> Markup:
    """The chart as HTML's SVG: its text is text in the page's font, its colours are the page's, light or dark."""
    from markupsafe import Markup

    root = ElementTree.fromstring(_save(chart, ".svg"))
    _simplify(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": chart.drawing.label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def write_figures(charts: Iterable[Chart], folder: Path) -> None:
    """Write `figures/NAME.pdf` and `.png` into the folder of a report, and remove those of an earlier one."""
    for suffix in SUFFIXES:
        for old in (folder / FOLDER).glob(f"*{suffix}"):
            old.unlink()
    for chart in charts:
        for suffix in SUFFIXES:
            write_whole(folder / FOLDER / f"{chart.name}{suffix}", _save(chart, suffix))


def _save(chart: Chart, suffix: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in chart.drawing.figure.findobj(Text):
        text.set_parse_math(False)  # a class may be called `$x$`
    written = io.BytesIO()
    date = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": chart.name, "pdf.fonttype": 42}
    with _LOCK, rc_context(settings), warnings.catch_warnings():
        # Of a script that no font here has: a page's browser finds one, and a figure shows boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        paper = "none" if suffix == ".svg" else "white"
        chart.drawing.figure.savefig(written, format=suffix[1:], dpi=300, facecolor=paper, metadata=date)
    # laid out once: every file looks the same, and the others are written in half the time
    chart.drawing.figure.set_layout_engine("none")
    return written.getvalue()


def _simplify(element: ElementTree.Element) -> None:
    """Take away what a page does not need (most of the bytes), and turn tooltips into titles."""
    element.tag = _local(element.tag)
    tooltip = element.get("id", "") if element.tag == "g" else ""
    element.attrib = {_local(name): _shorten(_local(name), value) for name, value in element.attrib.items()}
    if element.tag == "g":
        element.attrib.pop("id", None)
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    children = []
    for child in element:
        _simplify(child)
        child.tail = None
        if child.tag == "g" and not child.attrib and (len(child) < 2 or child[0].tag != "title"):
            children += list(child)
        elif not _is_needless(child):
            children.append(child)
    element[:] = children
    if element.tag != "text":
        element.text = None
    if tooltip.startswith(TOOLTIP):
        title = ElementTree.Element("title")
        title.text = tooltip.removeprefix(TOOLTIP)
        element.insert(0, title)


def _local(name: str) -> str:
    """A name without its namespace, which HTML does not want."""
    return name.rpartition("}")[2]


def _is_needless(element: ElementTree.Element) -> bool:
    """Metadata, a style for the whole page, and the unseen backgrounds of figure and axes."""
    if element.tag == "path" and "stroke" not in element.get("style", ""):
        return element.get("style") == "fill:none"
    return element.tag == "metadata" or (element.tag == "defs" and len(element) > 0 and element[0].tag == "style")


def _shorten(name: str, value: str) -> str:
    if name in ("d", "x", "y", "width", "height"):
        # a tenth of a point is less than a pixel of a screen
        value = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), value)
        return re.sub(r"\s*([MLzCQ])\s*", r"\1", value).strip()
    if name == "style":
        value = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), value)
        value = re.sub(r"font: (\d+) ([\d.]+px)[^;]*", r"font-weight: \1; font-size: \2", value)
        value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", value)
        return re.sub(r"font-family: [^;]*; ?", "", value).replace(": ", ":").replace("; ", ";")
    return value
