"""A contact sheet of overlays: one sample a row, in panels, with its caption; and mask layers that lie on it.

`draw_sheet` is a pure function to uint8 (H, W, 3); a layer labels pixels, for viewers that switch layers on and off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from lungseg.reporting.drawing import (
    PAPER,
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    WARNING_COLOUR,
    Array,
    Text,
    centre,
    draw_colour_bar,
    draw_map,
    draw_outline,
    fit_size,
    grey_to_rgb,
    in_lung_units,
    load_font,
    resize,
    resize_mask,
    write_texts,
)

_HEAD_PX, _CAPTION_PX, _ROW_GAP_PX = 54, 22, 6


@dataclass(frozen=True)
class Tile:
    """What is known of one sample; infection is not drawn on a sheet, and a layer over it. All arrays share H and W."""

    image: Array  # (H, W) float in [0, 1].
    true_lung: Array | None  # (H, W) bool.
    predicted_lung: Array | None  # (H, W) bool; None if the network predicts none.
    cam: Array | None  # (H, W) float, raw class map of the predicted class, any sign; None if it knows no classes.
    caption: str
    warning: str = ""  # Shown in the warning colour when not empty.
    true_infection: Array | None = None  # (H, W) bool; None where it is not known.
    predicted_infection: Array | None = None  # (H, W) bool; None if the network predicts none.
    facts: Mapping[str, Any] = field(default_factory=dict)  # What the caption says, by name.


def draw_tile(tile: Tile, side_px: int = 256) -> Array:
    """One sample as panels: image; lung outlines; class map; the map inside the predicted lungs; one bar.

    Panels of what the network does not give are left out.
    """
    size = fit_size(tile.image.shape, side_px)
    plain = grey_to_rgb(resize(tile.image, size))
    drawn, lung = [plain], None
    if tile.predicted_lung is not None:
        lung, outlined = resize_mask(tile.predicted_lung, size), plain
        if tile.true_lung is not None:
            outlined = draw_outline(outlined, resize_mask(tile.true_lung, size), TRUE_COLOUR)
        drawn.append(draw_outline(outlined, lung, PREDICTED_COLOUR))
    if tile.cam is not None:
        inside = np.ones(plain.shape[:2], np.bool_) if lung is None else lung
        strength = in_lung_units(resize(tile.cam, size), inside)
        whole = draw_map(plain, strength)
        drawn += (
            [whole] if lung is None else [draw_outline(whole, lung, PREDICTED_COLOUR), draw_map(plain, strength * lung)]
        )
    panels = [centre(panel, side_px) for panel in drawn]
    bar = np.concatenate([np.full((side_px, 4, 3), PAPER, np.uint8), draw_colour_bar(side_px, 10)], axis=1)
    bar_parts = (
        [] if tile.cam is None else [bar, _bar_labels(side_px, "lung\nmaximum" if lung is not None else "maximum")]
    )
    row = np.concatenate([*_with_gaps(panels, axis=1), *bar_parts], axis=1)
    return np.concatenate([row, _text_strip(tile.caption, tile.warning, row.shape[1])], axis=0)


def draw_sheet(tiles: Sequence[Tile], title: str, side_px: int = 256) -> Array:
    """A contact sheet of one sample or more, one a row, with a title and a key. uint8 (H, W, 3)."""
    rows = [draw_tile(tile, side_px) for tile in tiles]
    width = rows[0].shape[1]
    with_lung, with_map = tiles[0].predicted_lung is not None, tiles[0].cam is not None
    names = ["X-ray", *[""] * with_lung, *["class map of the predicted class"] * with_map]
    names += ["the same, inside the predicted lungs"] * (with_lung and with_map)
    start = side_px + 12
    texts = [Text(8, 5, title, 17)]
    if with_lung:
        texts += [
            Text(start, 33, "lung: true", 12, TRUE_COLOUR),
            Text(start + 64, 33, "predicted", 12, PREDICTED_COLOUR),
        ]
    texts += [Text(column * (side_px + 4) + 8, 33, name, 12) for column, name in enumerate(names)]
    head = write_texts(np.full((_HEAD_PX, width, 3), PAPER, np.uint8), texts)
    return np.concatenate([head, *_with_gaps(rows, axis=0, gap_px=_ROW_GAP_PX)], axis=0)


def layer_on_sheet(labels: Sequence[Array], sheet: Array, side_px: int = 256) -> Array:
    """Labels of pixels, one array (H, W) uint8 a sample, where `draw_sheet` has put the X-rays; 0 everywhere else.

    Args:
        labels: In the order of the sheet's rows.
        sheet: What `draw_sheet` gave for the same samples.
        side_px: As it was drawn.

    Returns:
        uint8 of the height and width of the sheet.
    """
    layer = np.zeros(sheet.shape[:2], np.uint8)
    for row, array in enumerate(labels):
        width, height = fit_size(array.shape, side_px)
        top = _HEAD_PX + row * (side_px + _CAPTION_PX + _ROW_GAP_PX) + (side_px - height) // 2
        left = (side_px - width) // 2
        resized = cv2.resize(array, (width, height), interpolation=cv2.INTER_NEAREST)
        layer[top : top + height, left : left + width] = resized
    return layer


def _with_gaps(parts: Sequence[Array], axis: int, gap_px: int = 4) -> list[Array]:
    """The parts with strips of paper between them."""
    shape = list(parts[0].shape)
    shape[axis] = gap_px
    gap = np.full(shape, PAPER, np.uint8)
    return [piece for part in parts for piece in (part, gap)][:-1]


def _bar_labels(side_px: int, unit: str) -> Array:
    """Labels of the colour bar: the maximum (inside the lungs) is 1, and what exceeds it outside looks like 1."""
    texts = [Text(4, 0, f"1 = {unit}\nor above", 11), Text(4, side_px // 2 - 7, "0.5", 11)]
    texts += [Text(4, side_px - 28, "0 = no\nevidence", 11)]
    return write_texts(np.full((side_px, 56, 3), PAPER, np.uint8), texts)


def _text_strip(caption: str, warning: str, width: int) -> Array:
    """The caption, and the warning after it in its own colour."""
    end = ImageDraw.Draw(Image.new("L", (1, 1))).textlength(caption, font=load_font(13, caption.isascii()))
    texts = [Text(8, 3, caption, 13), Text(16 + end, 3, warning, 13, WARNING_COLOUR)]
    return write_texts(np.full((_CAPTION_PX, width, 3), PAPER, np.uint8), texts)
