"""The pictures of the gallery, written while the network passes over the images: `images/` beside the report.

Of each image an X-ray (JPEG), its class map with transparency (WebP), and a thumbnail (WebP); outlines of masks are
paths, kept in `images/index.json`. Files are named by the number of the image, never by its id.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image

from lungseg.reporting.drawing import (
    PREDICTED_COLOUR,
    Array,
    draw_map,
    draw_outline,
    grey_to_rgb,
    in_lung_units,
    map_layer,
)
from lungseg.runs.whole_files import write_json, write_whole

FOLDER, INDEX = "images", "index.json"
MASKS = ("lung", "predicted_lung", "infection", "predicted_infection")
SIDE_PX, MAP_PX, THUMB_PX = 512, 128, 96
"""Most pixels of the longer side of an X-ray, of a map, and of a thumbnail."""


class Shown(Protocol):
    """One image with all that is shown of it. All arrays share H and W."""

    @property
    def number(self) -> int:
        """Place in the split, from 0: the row of per_image.csv."""

    @property
    def image(self) -> Array:
        """(H, W) float in [0, 1]."""

    @property
    def lung(self) -> Array | None:
        """(H, W) bool, true lungs; None where they are not known."""

    @property
    def predicted_lung(self) -> Array:
        """(H, W) bool."""

    @property
    def infection(self) -> Array | None:
        """(H, W) bool; None where it is not known."""

    @property
    def predicted_infection(self) -> Array | None:
        """(H, W) bool; None if the network predicts none."""

    @property
    def cam(self) -> Array:
        """(H, W) float, raw class map, any sign; what is not finite counts as no evidence."""


class PictureWriter:
    """Writes `images/` of an evaluation; those of an earlier one are removed.

    Args:
        folder: The evaluation's.
    """

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._found: dict[str, Any] = {}
        (self._folder / INDEX).unlink(missing_ok=True)
        for pattern in ("[0-9]*.jpg", "[0-9]*.webp"):
            for old in self._folder.glob(pattern):
                old.unlink()

    def add(self, shown: Shown) -> None:
        """Write the pictures of one image; several threads may."""
        size = _fit(shown.image.shape, SIDE_PX)
        masks = {name: getattr(shown, name) for name in MASKS}
        resized = {name: _resize_mask(mask, size) for name, mask in masks.items() if mask is not None}
        strength = in_lung_units(shown.cam, shown.predicted_lung)
        grey = (_resize(shown.image, size).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        stem = f"{shown.number:04d}"
        stored, content = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 85])
        assert stored
        write_whole(self._folder / f"{stem}.jpg", content.tobytes())
        small = _resize(strength, _fit(strength.shape, MAP_PX))
        write_whole(self._folder / f"{stem}-map.webp", _webp(map_layer(small)))
        write_whole(self._folder / f"{stem}-thumb.webp", _webp(_thumb(shown.image, strength, shown.predicted_lung)))
        outlines = {name: outline_path(mask) for name, mask in resized.items()}
        self._found[str(shown.number)] = {"width": size[0], "height": size[1], "outlines": outlines}

    def close(self) -> None:
        """Write the index; without it there is no gallery."""
        write_json(self._folder / INDEX, {"images": self._found})


def read_pictures(folder: Path) -> Mapping[int, Mapping[str, Any]]:
    """What `PictureWriter` left of each image: `width`, `height`, `outlines`; empty where it left nothing."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return {}
    found = json.loads(index.read_text())["images"]
    return {int(number): about for number, about in found.items()}


def outline_path(mask: Array) -> str:
    """The outlines of a mask (H, W) bool as an SVG path in pixels, to half a pixel; empty for an empty mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return "".join(_closed(cv2.approxPolyDP(contour, 0.5, True)[:, 0]) for contour in contours)


def _closed(points: Array) -> str:
    """Points (P, 2) as a closed path: the first one absolute, the others as steps."""
    steps = " ".join(map(str, (points[1:] - points[:-1]).ravel().tolist()))
    x, y = points[0].tolist()
    return f"M{x} {y}" + (f"l{steps}z" if steps else "h1v1h-1z")


def _thumb(image: Array, strength: Array, lung: Array) -> Array:
    """Image, map and outline of the predicted lungs, uint8 (h, w, 3)."""
    size = _fit(image.shape, THUMB_PX)
    picture = draw_map(grey_to_rgb(_resize(image, size)), _resize(strength, size))
    return draw_outline(picture, _resize_mask(lung, size), PREDICTED_COLOUR)


def _webp(picture: Array) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="WEBP", quality=75, method=1)
    return content.getvalue()


def _fit(shape: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """Width and height of a picture (H, W) shrunk, if it must be, to a longer side."""
    scale = min(1.0, side_px / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _resize(values: Array, size: tuple[int, int]) -> Array:
    if (values.shape[1], values.shape[0]) == size:
        return np.asarray(values, np.float32)
    return np.asarray(cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    return np.asarray(_resize(mask, size) > 0.5)
