"""The gallery of the page: a card an image, sorted and filtered by the page's script, and a viewer of layers.

Images go by their numbers, which are those of their rows in per_image.csv and of their files in `images/`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lungseg.reporting.drawing import draw_colour_bar
from lungseg.reporting.report.content import Content, to_float
from lungseg.reporting.report.markup import paragraph, section
from lungseg.reporting.report.pictures import FOLDER

MOST = 2000
"""Cards of a page. Of more images those at the ends of every order are kept, each order in turn."""
UNSURE, BAD_DICE = 0.6, 0.9
"""Below these, the confidence and the lung dice of an image count as warning signs."""
SIGNS = {
    "wrong": "wrong class",
    "outside": "evidence mostly outside the lungs",
    "peak": "strongest evidence outside the lungs",
    "unsure": f"confidence below {UNSURE:g}",
    "mask": f"lung dice below {BAD_DICE:g}",
    "none": "no evidence, or broken output",
}
ORDERS = {
    "trust": "least trustworthy first",
    "worst": "worst lung mask first",
    "best": "best lung mask first",
    "confused": "most surely wrong first",
    "outside": "least evidence in the lungs first",
    "unsure": "least confident first",
    "number": "by number",
}
LAYERS = (
    ("image", "X-ray", 100),
    ("map", "Class map", 75),
    ("lung", "True lungs", 100),
    ("predicted_lung", "Predicted lungs", 100),
    ("infection", "True infection", 100),
    ("predicted_infection", "Predicted infection", 100),
)
"""Name, words, and opacity in per cent at the start."""
_PRIVATE = ("id", "group")


def gallery_section(content: Content, folder: Path, names: bool = False) -> str:
    """The gallery.

    Args:
        content: What is shown.
        folder: The evaluation's, which holds `images/`.
        names: Whether the ids of images (names of files) and groups (patients) are put into the page.
    """
    shown = [number for number in choose(content) if _thumb_path(folder, number).is_file()]
    if not shown:
        why = "There are no pictures: this evaluation wrote no folder images/ with an index, or per_image.csv is empty."
        return section("gallery", "Gallery", [paragraph(why)])
    cards = "\n".join(_card(content.rows[number], number, folder) for number in shown)
    told = (
        "" if len(shown) == len(content.rows) else f" {len(shown):,} of {len(content.rows):,} images are in the page."
    )
    signs = "; ".join(SIGNS.values())
    said = (
        f"Images go by number: the row of per_image.csv, counted from 0, and the name of the file in {FOLDER}/."
        + ("" if names else " No name of a file or patient is in this page.")
        + f" Text burnt into a film is shown as it is.{told} ▲: a warning sign, one of {signs}. Dashed frame: wrong "
        "class. Pictures: the class map of "
        f"{_target(content)} over the X-ray, 1 being its maximum inside the predicted lungs, and their outline in "
        "yellow. Open one with Enter; arrow keys move."
    )
    parts = [paragraph(said, "soft"), _controls(content, shown), f'<ul id="cards" class="cards">\n{cards}\n</ul>']
    return section("gallery", "Gallery", [*parts, _viewer(), _data(content, shown, names)])


def warning_signs(row: Mapping[str, str]) -> list[str]:
    """Which of `SIGNS` an image shows; what is not known is none."""
    confidence, dice = to_float(row.get("confidence")), to_float(row.get("dice"))
    broken = row.get("predicted") == ""
    empty = "evidence_in_lungs" in row and to_float(row["evidence_in_lungs"]) is None
    found = {
        "wrong": to_float(row.get("correct")) == 0,
        "outside": not empty and to_float(row.get("evidence_outside")) == 1,
        "peak": not empty and to_float(row.get("peak_in_lungs")) == 0,
        "unsure": confidence is not None and confidence < UNSURE,
        "mask": dice is not None and dice < BAD_DICE,
        "none": broken or empty,
    }
    return [name for name, flag in found.items() if flag]


def choose(content: Content) -> list[int]:
    """Numbers of the images with pictures, the least trustworthy first; at most `MOST`."""
    everything = [number for number in sorted(content.pictures) if number < len(content.rows)]
    by_trust = sorted(everything, key=lambda number: _trust(content.rows[number]))
    if len(everything) <= MOST:
        return by_trust
    orders = [by_trust]
    for name, sign in (("dice", 1), ("dice", -1), ("evidence_in_lungs", 1), ("confidence", 1)):
        known = [(to_float(content.rows[number].get(name)), number) for number in everything]
        orders.append([number for value, number in sorted((sign * v, n) for v, n in known if v is not None)])
    kept: dict[int, None] = {}
    for rank in range(len(everything)):
        for order in orders:
            if rank < len(order) and len(kept) < MOST:
                kept.setdefault(order[rank])
    return [number for number in by_trust if number in kept]


def _trust(row: Mapping[str, str]) -> tuple[float, float]:
    """Smaller is less trustworthy: more warning signs, then less evidence in the lungs."""
    share = to_float(row.get("evidence_in_lungs"))
    return -len(warning_signs(row)), -1.0 if share is None else share


def _thumb_path(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:04d}-thumb.webp"


def _card(row: Mapping[str, str], number: int, folder: Path) -> str:
    true, predicted = row.get("label") or "unknown", row.get("predicted") or "none"
    right = {1.0: "right", 0.0: "wrong"}.get(to_float(row.get("correct")) or 0.0 if row.get("correct") else -1.0, "")
    dice, signs = to_float(row.get("dice")), warning_signs(row)
    told = [f"image {number}: true {true}, predicted {predicted}", right]
    told += [f"dice {dice:.3f}"] if dice is not None else []
    told += [SIGNS[name] for name in signs]
    words = escape(", ".join(part for part in told if part))
    content = base64.b64encode(_thumb_path(folder, number).read_bytes()).decode()
    tick = {"right": "✓", "wrong": "✗"}.get(right, "")
    true_too = f"<span>true: {escape(true)}</span>" if right == "wrong" else ""
    marks = f'<span class="signs">{"▲" * len(signs)}</span>' if signs else ""
    return (
        f'<li data-i="{number}"><button type="button" class="card {right}" aria-label="{words}" title="{words}">'
        f'<img src="data:image/webp;base64,{content}" width="96" height="96" alt="" decoding="async">'
        f"<span><b>{number}</b> {tick}{marks}</span><span>{escape(predicted)}</span>{true_too}</button></li>"
    )


def _controls(content: Content, shown: Sequence[int]) -> str:
    true = sorted({content.rows[number].get("label") or "" for number in shown})
    predicted = sorted({content.rows[number].get("predicted") or "" for number in shown})
    has_label = any(true)
    selects = [_select("order", "Order", ORDERS, None)]
    if has_label:
        selects.append(_select("true", "True class", {name: name or "unknown" for name in true}, "all"))
    selects.append(_select("predicted", "Predicted", {name: name or "none" for name in predicted}, "all"))
    if has_label:
        selects.append(_select("correct", "Class is", {"1": "right", "0": "wrong"}, "all"))
    selects.append(_select("sign", "Warning sign", SIGNS, "any or none"))
    return (
        f'<form id="filters" class="filters" aria-label="Order and filters of the gallery">{"".join(selects)}'
        '<button type="reset">Reset</button><output id="count" aria-live="polite"></output></form>'
    )


def _target(content: Content) -> str:
    return "the true class" if content.what.get("target") == "label" else "the class predicted"


def _select(name: str, words: str, options: Mapping[str, str], first: str | None) -> str:
    choices = "" if first is None else f'<option value="*">{escape(first)}</option>'
    choices += "".join(f'<option value="{escape(key)}">{escape(shown)}</option>' for key, shown in options.items())
    return f'<label>{escape(words)}<select name="{name}">{choices}</select></label>'


def _viewer() -> str:
    sliders = "".join(
        f'<label class="layer-{name}" data-for="{name}"><i></i><span>{escape(words)}</span>'
        f'<input type="range" name="{name}" min="0" max="100" value="{start}"></label>'
        for name, words, start in LAYERS
    )
    return f"""<dialog id="viewer" aria-labelledby="viewer-title">
<header><h3 id="viewer-title"></h3><button type="button" id="close" aria-label="close">✕</button></header>
<div class="viewer"><div>
<svg id="stage" role="img" aria-label="X-ray with its layers" viewBox="0 0 1 1">
<defs><clipPath id="crop"><path id="crop-path" clip-rule="evenodd"/></clipPath></defs>
<image class="thumb" data-layer="thumb" preserveAspectRatio="none"/>
<image data-layer="image" preserveAspectRatio="none"/>
<g id="cropped"><image data-layer="map" preserveAspectRatio="none"/></g>
<path data-layer="lung"/><path data-layer="predicted_lung"/><path data-layer="infection"/>
<path data-layer="predicted_infection"/></svg>
<p id="missing" class="box warn" hidden>The picture is not there: keep the folder {FOLDER}/ beside this file.</p>
<p class="bar"><span>0</span><img src="{_colour_bar()}" alt="colours of the class map from 0 to 1" width="160"
height="10"><span>1 = maximum in the lungs, or above</span></p></div>
<form id="layers" aria-label="Opacity of the layers">{sliders}
<label><input type="checkbox" name="crop"> Crop the map to the predicted lungs</label>
<div class="steps"><button type="button" id="previous">← previous</button>
<button type="button" id="next">next →</button></div>
<p class="soft">← → image before, after · Home End first, last · m map on, off · o outlines on, off ·
c crop · Esc close. On a slider, arrows move it.</p>
<p id="facts"></p><details><summary>All that is known of it</summary><div class="wide" tabindex="0"
role="region" aria-label="columns of per_image.csv"><table id="row"></table></div></details></form></div></dialog>"""


def _colour_bar() -> str:
    picture = np.ascontiguousarray(np.rot90(draw_colour_bar(160, 10), -1))
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _data(content: Content, shown: Sequence[int], names: bool) -> str:
    """What the script needs of each image, as JSON in the page."""
    columns = [name for name in content.rows[0] if names or name not in _PRIVATE]
    cards: dict[str, Any] = {}
    for number in shown:
        row, about = content.rows[number], content.pictures[number]
        cards[str(number)] = {
            "row": [_cell(row[name]) for name in columns],
            "signs": warning_signs(row),
            "size": [about["width"], about["height"]],
            "outlines": about["outlines"],
        }
    whole = {"folder": FOLDER, "columns": columns, "signs": SIGNS, "images": cards}
    # within a script element only `<` could end it
    text = json.dumps(whole, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="gallery-data">{text}</script>'


def _cell(text: str) -> float | str | None:
    """A number with four digits, words, or null."""
    value = to_float(text)
    return (float(f"{value:.4g}") if value is not None else text) or (0 if value == 0 else None)
