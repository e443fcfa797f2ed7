"""Pictures as pure functions to uint8 (H, W, 3): outlines, class maps over an X-ray, words; and as files."""

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray[Any, Any]

TRUE_COLOUR = (86, 180, 233)
PREDICTED_COLOUR = (240, 228, 66)
"""Sky blue and yellow of the Okabe-Ito palette: told apart by every kind of colour vision, and on grey."""
INFECTION_COLOUR = (255, 154, 213)  # Of predicted infection, as in a report's gallery.
WARNING_COLOUR = (255, 120, 60)
INK, PAPER = (225, 225, 225), (18, 18, 18)
_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "DejaVuSans.ttf")
"""Those of Linux, macOS and Windows that know most scripts, then one that knows Latin, Greek, Cyrillic and Arabic."""


class Text(NamedTuple):
    """Words on a picture, their place and size in pixels."""

    left: float
    top: float
    words: str
    size_px: int
    colour: tuple[int, int, int] = INK


def grey_to_rgb(image: Array) -> Array:
    """(H, W) float in [0, 1] -> uint8 (H, W, 3)."""
    return np.repeat(np.clip(np.asarray(image, np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def shrink(array: Array, longest_px: int) -> Array:
    """Bring an array (H, W) to a longer side by area; one that is no larger stays as it is."""
    if longest_px >= max(array.shape):
        return array
    return np.asarray(cv2.resize(array, fit_size(array.shape, longest_px), interpolation=cv2.INTER_AREA))


def draw_outline(picture: Array, mask: Array, colour: tuple[int, int, int], width_px: int = 1) -> Array:
    """The picture with the outline of a mask (H, W) bool."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture.copy(), contours, -1, colour, width_px, cv2.LINE_8))


def in_lung_units(cam: Array, lung: Array) -> Array:
    """A raw map in units of its maximum inside the lungs: the one normalisation of every picture.

    `max(cam, 0) / max_lung(max(cam, 0))`; where the lungs hold no positive evidence, nothing is rescaled to look like
    some: the unit is then the maximum of the whole map.

    Args:
        cam: (H, W) float, any sign.
        lung: (H, W) bool.

    Returns:
        (H, W) float32, at least 0; above 1 where evidence outside the lungs is stronger than any inside.
    """
    positive = np.maximum(np.nan_to_num(np.asarray(cam, np.float32)), 0)
    unit = float(positive[lung].max(initial=0)) or float(positive.max(initial=0))
    return positive / unit if unit > 0 else positive


def draw_map(picture: Array, strength: Array, opacity: float = 0.75) -> Array:
    """The picture under a map: colour `inferno`, and transparent where there is no evidence.

    Colour is linear in the strength; opacity is `opacity * sqrt(strength)`, so that weak evidence can still be seen.
    The colour bar is drawn by this same function.

    Args:
        picture: uint8 (H, W, 3).
        strength: (H, W) float in `in_lung_units`; above 1 counts as 1.
        opacity: Of the strongest evidence, in [0, 1].
    """
    strength = np.clip(np.nan_to_num(np.asarray(strength, np.float32)), 0, 1)
    drawn, there = np.array(picture), strength > 0  # a quarter of most pictures
    alpha = (opacity * np.sqrt(strength[there]))[:, None]
    drawn[there] = drawn[there] * (1 - alpha) + _inferno()[(strength[there] * 255 + 0.5).astype(np.uint8)] * alpha + 0.5
    return drawn


def map_layer(strength: Array) -> Array:
    """The layer that `draw_map` puts over a picture at an opacity of 1: uint8 (H, W, 4), RGB and transparency."""
    clipped = np.clip(np.nan_to_num(np.asarray(strength, np.float32)), 0, 1)
    alpha = (np.sqrt(clipped) * 255 + 0.5).astype(np.uint8)
    return np.dstack([_inferno()[(clipped * 255 + 0.5).astype(np.uint8)], alpha])


def draw_colour_bar(height: int, width: int, opacity: float = 0.75) -> Array:
    """A vertical bar of `draw_map` over mid grey, 1 at the top, uint8 (height, width, 3)."""
    ramp = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(width, 1)
    return draw_map(np.full((height, width, 3), 90, np.uint8), ramp, opacity)


def png(picture: Array) -> bytes:
    """Encode a picture (H, W) grey or (H, W, 3) RGB uint8 as PNG, without any metadata."""
    # Level 1: files come by the thousand; level 3 takes 1.4 times as long for overlays smaller by 8 %.
    as_opencv = picture if picture.ndim == 2 else picture[..., ::-1]
    return bytes(cv2.imencode(".png", as_opencv, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def mask_png(mask: Array) -> bytes:
    """Encode a mask (H, W) bool as PNG: 255, and 0 elsewhere."""
    return png(mask.view(np.uint8) * np.uint8(255))


def webp(picture: Array, quality: int = 75) -> bytes:
    """Encode a picture (H, W, 3) or (H, W, 4) uint8 as WebP, which has the transparency that JPEG lacks."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="WEBP", quality=quality, method=1)
    return content.getvalue()


def jpeg(picture: Array, quality: int = 85) -> bytes:
    """Encode a grey picture (H, W) uint8 as JPEG."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def data_url(kind: str, content: bytes) -> str:
    """A picture's file as an address that holds all of it, for a page of one file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def outline_path(mask: Array) -> str:
    """The outlines of a mask (H, W) bool as an SVG path in pixels, to half a pixel; empty for an empty mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return "".join(_closed(cv2.approxPolyDP(contour, 0.5, True)[:, 0]) for contour in contours)


def fit_size(shape: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """Width and height in which a picture (H, W) has a longer side of `side_px`."""
    scale = side_px / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def resize(values: Array, size: tuple[int, int]) -> Array:
    """(H, W) to a width and height, bilinear up, by area down; float32."""
    up = size[0] >= values.shape[1]
    method = cv2.INTER_LINEAR if up else cv2.INTER_AREA
    return np.asarray(cv2.resize(values.astype(np.float32), size, interpolation=method))


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """(H, W) bool to a width and height; a pixel belongs to the mask if more than half of it does."""
    return np.asarray(resize(mask, size) > 0.5)


def centre(panel: Array, side_px: int, paper: tuple[int, int, int] = PAPER) -> Array:
    """A panel uint8 (H, W, 3) in the middle of a square of paper."""
    height, width = panel.shape[:2]
    square = np.full((side_px, side_px, 3), paper, np.uint8)
    top, left = (side_px - height) // 2, (side_px - width) // 2
    square[top : top + height, left : left + width] = panel
    return square


def write_texts(picture: Array, texts: Sequence[Text]) -> Array:
    """The picture with texts on it, uint8 (H, W, 3)."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for text in texts:
        # names of files may hold what no font can show
        words = text.words.encode("utf-8", "replace").decode()
        pen.multiline_text(
            (text.left, text.top), words, fill=text.colour, font=load_font(text.size_px, words.isascii()), spacing=1
        )
    return np.asarray(image)


def write_below(picture: Array, words: str, colour: tuple[int, int, int]) -> Array:
    """The picture uint8 (H, W, 3) with lines of words on a darkened strip at its lower edge.

    One too narrow for 60 letters in a line that can be read, below 240 pixels, stays as it is.
    """
    height, width = picture.shape[:2]
    size_px = min(width // 30, 12 + width // 128)
    if size_px < 8:
        return picture
    top = height - round(1.3 * size_px * len(words.split("\n"))) - 4
    picture = picture.copy()
    picture[max(0, top) :] //= 3
    return write_texts(picture, [Text(size_px // 2, top, words, size_px, colour)])


def _closed(points: Array) -> str:
    """Points (P, 2) as a closed path: the first one absolute, the others as steps."""
    steps = " ".join(map(str, (points[1:] - points[:-1]).ravel().tolist()))
    x, y = points[0].tolist()
    return f"M{x} {y}" + (f"l{steps}z" if steps else "h1v1h-1z")


@cache
def load_font(size_px: int, is_ascii: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font in a size; it knows little but ASCII, beyond which the first of the `_FONTS` is taken."""
    found = find_spec("matplotlib")  # whose own font is not in the system's folders
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" if found and found.origin else Path()
    for name in () if is_ascii else (*_FONTS, str(folder / _FONTS[-1])):
        with suppress(OSError):
            return ImageFont.truetype(name, size_px)
    return ImageFont.load_default(size_px)


@cache
def _inferno() -> Array:
    """The perceptually even colour map `inferno`, uint8 (256, 3) RGB."""
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)
    return np.asarray(ramp[:, 0, ::-1]).copy()
