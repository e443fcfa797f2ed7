"""A prediction as HTML: the X-ray under its map and outlines as layers of one SVG, and what was found in words.

Opacity, crop and outline are styles in the browser (`STYLE`, `page.py`): moving the slider asks the server nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from PIL import Image

from lungseg.inference.prediction import LungAreas, Prediction
from lungseg.reporting.drawing import PREDICTED_COLOUR, Array, in_lung_units, map_layer, shrink

IMAGE_PX, MAP_PX = 1024, 512
"""Longer sides at most of what is sent to the browser."""
NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."


def draw_viewer(prediction: Prediction, name: str, of_class: str) -> str:
    """The picture, as wide as its place, as an SVG with a caption.

    Args:
        prediction: With the map to show.
        name: Of the image.
        of_class: Name of the map's class, for those who do not see it.
    """
    grey = shrink(prediction.image, IMAGE_PX)
    height, width = grey.shape
    mask = shrink(prediction.mask.astype(np.float32), IMAGE_PX) > 0.5
    lungs = _path(mask)
    small = shrink(prediction.mask.astype(np.float32), MAP_PX) > 0.5
    strength = in_lung_units(shrink(prediction.class_map, MAP_PX), small)
    words = escape(f"X-ray {name}: lungs outlined, class map of {of_class}")
    place = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    return (
        f"<figure><figcaption>{escape(name)}</figcaption>"
        f'<svg id="viewer" role="img" aria-label="{words}" viewBox="0 0 {width} {height}">'
        f'<clipPath id="lungs"><path clip-rule="evenodd" d="{lungs}"/></clipPath>'
        f'<image id="xray" {place} href="{_encode(grey, "jpeg")}"/>'
        f'<image id="map" {place} href="{_encode(map_layer(strength), "webp")}"/>'
        f'<path id="outline" d="{lungs}"/></svg></figure>'
    )


def describe(prediction: Prediction, of_class: str) -> str:
    """Flags, probabilities, evidence and areas as HTML.

    Args:
        prediction: With the map shown.
        of_class: Name of the map's class.
    """
    flags = "".join(f"<li>{escape(flag.reason)}</li>" for flag in prediction.flags)
    looked = f'<div id="flags" role="alert"><b>Look twice</b><ul>{flags}</ul></div>' if flags else ""
    rows = "".join(
        f'<tr class="{"predicted" if name == prediction.name else ""}"><th>{escape(name)}</th>'
        f"<td>{_bar(float(p))}</td><td>{float(p):.1%}</td></tr>"
        for name, p in zip(prediction.classes, prediction.probabilities, strict=True)
    )
    return f'{looked}<h3>Class</h3><table id="classes">{rows}</table>{_evidence(prediction, of_class)}' + _areas(
        prediction
    )


def list_notices(notices: Sequence[str]) -> str:
    """Lines that a person should read, such as files that were not read; nothing where there are none."""
    if not notices:
        return ""
    return f'<div id="notices" role="alert"><ul>{"".join(f"<li>{escape(each)}</li>" for each in notices)}</ul></div>'


def _evidence(prediction: Prediction, of_class: str) -> str:
    share = prediction.evidence_in_lungs
    head = f"<h3>Evidence for {escape(of_class)} in the lungs</h3>"
    if share is None:
        return f'{head}<p id="evidence">The map holds no evidence for this class.</p>'
    note = (
        ""
        if share >= 0.5
        else '<p class="warning">Most of it lies outside the lungs, and is not seen in the cropped map.</p>'
    )
    return (
        f'{head}<p id="evidence">{_bar(share)}<b>{share:.0%}</b></p>'
        f"<p>before the crop; the lungs are {float(prediction.mask.mean()):.0%} of the image</p>{note}"
    )


def _areas(prediction: Prediction) -> str:
    cm2, pixels = prediction.lung_area_cm2, prediction.lung_area_px
    text = _sides(pixels, ",.0f", "px") if cm2 is None else _sides(cm2, ".0f", "cm²")
    return f'<h3>Lung area</h3><p id="areas">{text}</p>'


def _sides(area: LungAreas, form: str, unit: str) -> str:
    return f"right {area.right:{form}} {unit}, left {area.left:{form}} {unit} (the patient's)"


def _bar(share: float) -> str:
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'


def _path(mask: Array) -> str:
    """Outline of a mask (H, W) bool as SVG, through the middle of its border pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = (" ".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()) for contour in contours)
    return "".join(f"M{line}z" for line in lines)


def _encode(picture: Array, form: str) -> str:
    content = io.BytesIO()
    options = {"quality": 80, "method": 1} if form == "webp" else {"quality": 92}
    Image.fromarray(picture).save(content, format=form, **options)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"


_YELLOW = "#{:02x}{:02x}{:02x}".format(*PREDICTED_COLOUR)
STYLE = f"""
:root {{ --map: 0.75; }}
footer {{ display: none !important; }}
#head h1 {{ font-size: 1.35rem; margin: 0 0 .35rem; }}
#head p {{ margin: .25rem 0; }}
#head p, .key, .hint, #picture figcaption {{ color: var(--body-text-color); font-size: .875rem; }}
#head [role=note] {{ display: inline-block; margin: 0; padding: .3rem .65rem; border-radius: 4px; font-weight: 600;
  background: #fff3c4; color: #4a3800; }}
#picture figure {{ margin: 0; }}
#picture figcaption {{ margin: 0 0 .35rem; overflow-wrap: anywhere; }}
#viewer {{ display: block; width: 100%; max-height: 78vh; background: #000; border-radius: 4px; }}
#viewer #map {{ opacity: var(--map); clip-path: url(#lungs); }}
#viewer #outline {{ fill: none; stroke: {_YELLOW}; stroke-width: 1.5px; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; }}
:root.uncropped #viewer #map {{ clip-path: none !important; }}
:root.plain #viewer #outline {{ display: none; }}
#facts h3 {{ font-size: 1rem; margin: 1rem 0 .35rem; }}
#facts p {{ margin: .15rem 0; }}
#facts table {{ width: 100%; border-collapse: collapse; border: 0; margin: 0; }}
#facts tr {{ border: 0; }}
#facts th, #facts td {{ padding: .2rem .4rem .2rem 0; border: 0; text-align: left; font-weight: 400; }}
#facts th, #facts td {{ white-space: nowrap; }}
#facts td:nth-child(2) {{ width: 99%; }}
#facts td:last-child {{ text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }}
#facts .predicted th, #facts .predicted td {{ font-weight: 700; }}
.bar {{ display: inline-block; width: 100%; height: .7rem; border-radius: 2px; vertical-align: middle;
  background: var(--border-color-primary); overflow: hidden; }}
.bar i {{ display: block; height: 100%; background: #3b7dd8; }}
#evidence {{ display: flex; gap: .5rem; align-items: center; }}
#flags, #notices, .warning {{ padding: .5rem .75rem; border-left: 4px solid #d9480f; background: #fff0e6;
  color: #5c1f00; border-radius: 2px; }}
#flags *, #notices * {{ color: inherit; }}
#flags ul, #notices ul {{ margin: .2rem 0 0; padding-left: 1.1rem; list-style: disc; }}
#notices li {{ overflow-wrap: anywhere; }}
.key {{ display: flex; gap: .5rem; align-items: center; }}
.key i {{ flex: 1; height: .6rem; border-radius: 2px;
  background: linear-gradient(90deg, #000004, #56106e, #bb3754, #f98c0a, #fcffa4); }}
#images .wrap {{ flex-direction: column; max-height: 15rem; overflow-y: auto; flex-wrap: nowrap; }}
#images label {{ overflow-wrap: anywhere; }}
"""
"""CSS of the page."""
