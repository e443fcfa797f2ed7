"""Files of an evaluation that its report is made from: metrics.json, per_image.csv, and the pictures of the gallery.

The pictures are written while the network passes over the images, into `images/` beside the report: of each image an
X-ray (JPEG), its class map with transparency (WebP), and a thumbnail (WebP); outlines of masks are paths, kept in
`images/index.json`. Files are named by the number of the image, never by its id.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.saved import read_results
from lungseg.reporting import drawing
from lungseg.runs.whole_files import plain_cell, write_json, write_whole

if TYPE_CHECKING:
    from lungseg.evaluation.outputs import Picture as ShownImage

FOLDER, INDEX = "images", "index.json"
MASKS = ("lung", "predicted_lung", "infection", "predicted_infection")
SIDE_PX, MAP_PX, THUMB_PX = 512, 128, 96  # Most pixels of the longer side of an X-ray, of a map, and of a thumbnail.


class Picture(NamedTuple):
    """What was written of one image."""

    width: int  # Of the X-ray, pixels.
    height: int
    outlines: dict[str, str]  # SVG paths in these pixels, by mask; what is not known has none.


@dataclass(frozen=True)
class Content:
    """The files of one evaluation."""

    results: EvaluationResults
    rows: list[dict[str, str]]  # Of per_image.csv, empty cells as empty text; none without the file.
    pictures: Mapping[int, Picture]  # By number of the image, which is that of its row; none without `images/`.

    def column(self, name: str, of_class: str | None = None) -> list[float]:
        """The known values of a column of per_image.csv, of all images or of those of a true class."""
        several = self.results.setup.multi_label
        rows = [
            row
            for row in self.rows
            if of_class is None or of_class in (row["label"].split("|") if several else [row["label"]])
        ]
        return [value for row in rows if (value := to_float(row.get(name))) is not None]

    def by_class(self, name: str) -> dict[str, list[float]]:
        """The same of `all` images and of each class."""
        classes = self.results.setup.classes
        return {"all": self.column(name)} | {of_class: self.column(name, of_class) for of_class in classes}


def read_content(folder: Path) -> Content:
    """Read the files of an evaluation.

    Raises:
        FileNotFoundError: No metrics.json.
        UserError: It is not what `evaluate` writes.
    """
    results, table, rows = read_results(folder), folder / "per_image.csv", []
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = [
                {name: plain_cell(cell or "") for name, cell in row.items() if name} for row in csv.DictReader(file)
            ]
    return Content(results, rows, read_pictures(folder))


def to_float(text: str | None) -> float | None:
    """A finite number; None for other text, and for a cell that is empty or not there."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class PictureWriter:
    """Writes `images/` into the folder of an evaluation; those of an earlier one are removed."""

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._written: dict[int, Picture] = {}
        (self._folder / INDEX).unlink(missing_ok=True)
        for pattern in ("[0-9]*.jpg", "[0-9]*.webp"):
            for old in self._folder.glob(pattern):
                old.unlink()

    def add(self, image: ShownImage) -> None:
        """Write the pictures of one image; several threads may."""
        inside = np.ones(image.image.shape, np.bool_) if image.predicted_lung is None else image.predicted_lung
        cam = np.zeros(image.image.shape, np.float32) if image.cam is None else image.cam
        strength = drawing.in_lung_units(cam, inside)
        grey = (drawing.shrink(image.image, SIDE_PX).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        size = (grey.shape[1], grey.shape[0])
        stem = f"{image.number:04d}"
        write_whole(self._folder / f"{stem}.jpg", drawing.jpeg(grey))
        layer = drawing.map_layer(drawing.shrink(strength, MAP_PX))
        write_whole(self._folder / f"{stem}-map.webp", drawing.webp(layer))
        write_whole(self._folder / f"{stem}-thumb.webp", drawing.webp(_thumbnail(image, strength)))
        masks = {name: getattr(image, name) for name in MASKS}
        outlines = {
            name: drawing.outline_path(drawing.resize_mask(mask, size))
            for name, mask in masks.items()
            if mask is not None
        }
        self._written[image.number] = Picture(*size, outlines)

    def close(self) -> None:
        """Write the index; without it there is no gallery."""
        write_json(self._folder / INDEX, {"images": {n: about._asdict() for n, about in self._written.items()}})


def read_pictures(folder: Path) -> dict[int, Picture]:
    """What `PictureWriter` left of each image, by number; empty where it left nothing."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return {}
    return {int(number): Picture(**about) for number, about in json.loads(index.read_text())["images"].items()}


def _thumbnail(image: ShownImage, strength: drawing.Array) -> drawing.Array:
    """Image, map and outline of the predicted lungs, uint8 (h, w, 3)."""
    grey = drawing.grey_to_rgb(drawing.shrink(image.image, THUMB_PX))
    picture = drawing.draw_map(grey, drawing.shrink(strength, THUMB_PX))
    if image.predicted_lung is None:
        return picture
    lung = drawing.resize_mask(image.predicted_lung, (picture.shape[1], picture.shape[0]))
    return drawing.draw_outline(picture, lung, drawing.PREDICTED_COLOUR)
