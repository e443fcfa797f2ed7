"""The gallery of the page: which images are in it, and what its template and its script need of them.

Images go by their numbers, which are those of their rows in per_image.csv and of their files in `images/`.
"""

from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lungseg.reporting.drawing import data_url, draw_colour_bar, png
from lungseg.reporting.evaluation_files import FOLDER, Content, to_float

MOST = 2000  # Cards of a page. Of more images those at the ends of every order are kept, each order in turn.
UNSURE, BAD_DICE = 0.6, 0.9  # Below these, the confidence and the lung dice of an image count as warning signs.
SIGNS = {
    "wrong": "wrong class",
    "outside": "evidence mostly outside the lungs",
    "peak": "strongest evidence outside the lungs",
    "unsure": f"confidence below {UNSURE:g}",
    "mask": f"lung dice below {BAD_DICE:g}",
    "none": "no evidence, or broken output",
}
_PRIVATE = ("id", "group")  # Names of files and patients, which stay out of the page.


class Card(NamedTuple):
    """An image of the gallery."""

    number: int
    true: str
    predicted: str
    verdict: str  # `right`, `wrong`, or empty where the class is not known.
    signs: list[str]
    words: str  # All of it, for those who do not see it.
    thumbnail: str  # As a data URL.


def gallery_values(content: Content, folder: Path) -> dict[str, Any]:
    """What the gallery's template speaks of; the folder is the evaluation's, which holds `images/`."""
    shown = [number for number in choose(content) if _thumbnail_path(folder, number).is_file()]
    columns = [name for name in content.rows[0] if name not in _PRIVATE] if shown else []
    bar = np.rot90(draw_colour_bar(160, 10), -1)
    return {
        "cards": [_card(content.rows[number], number, folder) for number in shown],
        "all": len(content.rows),
        "folder": FOLDER,
        "signs": SIGNS,
        "target": "the true class" if content.results.setup.map_class == "label" else "the class predicted",
        **{name: sorted({content.rows[number][name] for number in shown}) for name in ("label", "predicted")},
        "colour_bar": data_url("png", png(bar)),
        "data": {
            "folder": FOLDER,
            "columns": columns,
            "signs": SIGNS,
            "images": {str(number): _image_data(content, number, columns) for number in shown},
        },
    }


def warning_signs(row: Mapping[str, str]) -> list[str]:
    """Which of `SIGNS` an image shows; what is not known is none."""
    confidence, dice = to_float(row.get("confidence")), to_float(row.get("dice"))
    broken = row.get("predicted") == ""
    empty = "evidence_in_lungs" in row and to_float(row["evidence_in_lungs"]) is None
    signs = {
        "wrong": to_float(row.get("correct")) == 0,
        "outside": not empty and to_float(row.get("evidence_outside")) == 1,
        "peak": not empty and to_float(row.get("peak_in_lungs")) == 0,
        "unsure": confidence is not None and confidence < UNSURE,
        "mask": dice is not None and dice < BAD_DICE,
        "none": broken or empty,
    }
    return [name for name, shown in signs.items() if shown]


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
    in_turn = dict.fromkeys(number for rank in zip_longest(*orders) for number in rank if number is not None)
    kept = set(islice(in_turn, MOST))
    return [number for number in by_trust if number in kept]


def _trust(row: Mapping[str, str]) -> tuple[float, float]:
    """Smaller is less trustworthy: more warning signs, then less evidence in the lungs."""
    share = to_float(row.get("evidence_in_lungs"))
    return -len(warning_signs(row)), -1.0 if share is None else share


def _thumbnail_path(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:04d}-thumb.webp"


def _card(row: Mapping[str, str], number: int, folder: Path) -> Card:
    true, predicted = row["label"] or "unknown", row["predicted"] or "none"
    correct, dice, signs = to_float(row["correct"]), to_float(row.get("dice")), warning_signs(row)
    verdict = "" if correct is None else "right" if correct else "wrong"
    words = [f"image {number}: true {true}, predicted {predicted}", verdict]
    words += [f"dice {dice:.3f}"] if dice is not None else []
    words += [SIGNS[name] for name in signs]
    thumbnail = data_url("webp", _thumbnail_path(folder, number).read_bytes())
    return Card(number, true, predicted, verdict, signs, ", ".join(filter(None, words)), thumbnail)


def _image_data(content: Content, number: int, columns: Sequence[str]) -> dict[str, Any]:
    """What the script needs of an image."""
    row, picture = content.rows[number], content.pictures[number]
    return {
        "row": [_cell(row[name]) for name in columns],
        "signs": warning_signs(row),
        "size": [picture.width, picture.height],
        "outlines": picture.outlines,
    }


def _cell(text: str) -> float | str | None:
    """A number with four digits, words, or null."""
    value = to_float(text)
    return (float(f"{value:.4g}") if value is not None else text) or (0 if value == 0 else None)
