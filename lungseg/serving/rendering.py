"""What the page makes of predictions: a picture and its facts as HTML, and all results as one zip, made in memory.

The picture is the X-ray under its map and outlines, as layers of one SVG. Opacity, crop and outline are styles in the
browser (`page.css`): moving the slider asks the server nothing.
"""

import base64
import io
import json
import re
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lungseg import __version__
from lungseg.inference.journal import csv_of
from lungseg.inference.prediction import OVERLAY_PX, Prediction, png
from lungseg.reporting.drawing import PREDICTED_COLOUR, Array, in_lung_units, map_layer, shrink
from lungseg.runs.model_info import ModelInfo
from lungseg.serving.cases import METHODS

IMAGE_PX, MAP_PX = 1024, 512
"""Longer sides at most of what is sent to the browser."""
NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."
STYLE = ":root {{ --lungs: #{:02x}{:02x}{:02x}; }}\n".format(*PREDICTED_COLOUR) + (
    Path(__file__).with_name("page.css").read_text(encoding="utf-8")
)
"""CSS of the page."""


def draw_viewer(prediction: Prediction, name: str, of_class: str) -> str:
    """The picture of an image by name as an SVG with a caption, as wide as the column that it stands in.

    `of_class` names the class of the prediction's map, for those who do not see it.
    """
    grey = shrink(prediction.image, IMAGE_PX)
    height, width = grey.shape
    mask = shrink(prediction.mask.astype(np.float32), IMAGE_PX) > 0.5
    lungs = _path(mask)
    # The map is smooth: half the side is enough, and a quarter of what is sent.
    small = shrink(prediction.mask.astype(np.float32), MAP_PX) > 0.5
    strength = in_lung_units(shrink(prediction.class_map, MAP_PX), small)
    label = escape(f"X-ray {name}: lungs outlined, class map of {of_class}")
    frame = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    return (
        f"<figure><figcaption>{escape(name)}</figcaption>"
        f'<svg id="viewer" role="img" aria-label="{label}" viewBox="0 0 {width} {height}">'
        f'<clipPath id="lungs"><path clip-rule="evenodd" d="{lungs}"/></clipPath>'
        f'<image id="xray" {frame} href="{_encode(grey, "jpeg")}"/>'
        f'<image id="map" {frame} href="{_encode(map_layer(strength), "webp")}"/>'
        f'<path id="outline" d="{lungs}"/></svg></figure>'
    )


def describe(prediction: Prediction, of_class: str) -> str:
    """Flags, probabilities, evidence for the class of the map, by name, and areas as HTML."""
    flags = "".join(f"<li>{escape(flag.reason)}</li>" for flag in prediction.flags)
    warnings = f'<div id="flags" role="alert"><b>Look twice</b><ul>{flags}</ul></div>' if flags else ""
    rows = "".join(
        f'<tr class="{"predicted" if name == prediction.name else ""}"><th>{escape(name)}</th>'
        f"<td>{_bar(float(p))}</td><td>{float(p):.1%}</td></tr>"
        for name, p in zip(prediction.classes, prediction.probabilities, strict=True)
    )
    cm2 = prediction.lung_area_cm2
    area, form, unit = (prediction.lung_area_px, ",.0f", "px") if cm2 is None else (cm2, ".0f", "cm²")
    sides = f"right {area.right:{form}} {unit}, left {area.left:{form}} {unit} (the patient's)"
    return (
        f'{warnings}<h3>Class</h3><table id="classes">{rows}</table>{_evidence(prediction, of_class)}'
        f'<h3>Lung area</h3><p id="areas">{sides}</p>'
    )


def list_notices(notices: Sequence[str]) -> str:
    """Lines that a person should read, such as files that were not read; nothing where there are none."""
    if not notices:
        return ""
    return f'<div id="notices" role="alert"><ul>{"".join(f"<li>{escape(each)}</li>" for each in notices)}</ul></div>'


def pack(
    results: Sequence[tuple[str, Prediction]],
    info: ModelInfo,
    method: str,
    label: int | None,
    opacity: float,
    crop: bool,
) -> bytes:
    """A zip file: `results.csv`, `results.json`, and `NN_NAME_mask.png` and `NN_NAME_overlay.png` of each image.

    Args:
        results: Names of the images and what is predicted of them, in the order of the page.
        info: Of the model, for results.json.
        method: That the maps are of, a key of `METHODS`.
        label: Class of the maps; None is the predicted one of each image.
        opacity: Of the strongest evidence, in [0, 1].
        crop: Show the maps inside the lungs only.
    """
    rows, content = [], io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, prediction) in enumerate(results, 1):
            # Numbered, for two files from two folders may bear one name.
            stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('_')[:80]}"
            of_class = prediction.classes[prediction.label if label is None else label]
            row = {"id": name, "map_method": method, "map_class": of_class, "map_cropped": crop}
            files = {"mask": f"{stem}_mask.png", "overlay": f"{stem}_overlay.png"}
            archive.writestr(files["mask"], prediction.mask_png())
            archive.writestr(files["overlay"], png(prediction.overlay(OVERLAY_PX, opacity, crop)))
            rows.append({**row, **prediction.row(), **files})
        model = {name: getattr(info, name) for name in ("version", "classes", "image_size", "temperature")}
        model |= {name: info.description[name] for name in ("licence", "calibration") if name in info.description}
        about = {"notice": NOTICE, "lungseg": __version__, "model": model, "methods": METHODS}
        archive.writestr("results.csv", csv_of(rows, list(rows[0]) if rows else ["id"]))
        archive.writestr("results.json", json.dumps({**about, "images": rows}, indent=2) + "\n")
    return content.getvalue()


def _evidence(prediction: Prediction, of_class: str) -> str:
    share = prediction.evidence_in_lungs
    head = f"<h3>Evidence for {escape(of_class)} in the lungs</h3>"
    if share is None:
        return f'{head}<p id="evidence">The map holds no evidence for this class.</p>'
    hidden = '<p class="warning">Most of it lies outside the lungs, and is not seen in the cropped map.</p>'
    lungs = f"<p>before the crop; the lungs are {float(prediction.mask.mean()):.0%} of the image</p>"
    return f'{head}<p id="evidence">{_bar(share)}<b>{share:.0%}</b></p>{lungs}{hidden if share < 0.5 else ""}'


def _bar(share: float) -> str:
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'


def _path(mask: Array) -> str:
    """Outline of a mask (H, W) bool as SVG, through the middle of its border pixels."""
    # With holes: the clip path's even-odd rule leaves them out.
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = (" ".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()) for contour in contours)
    return "".join(f"M{line}z" for line in lines)


def _encode(picture: Array, form: str) -> str:
    content = io.BytesIO()
    # WebP for the map, which needs transparency that JPEG has not.
    options = {"quality": 80, "method": 1} if form == "webp" else {"quality": 92}
    Image.fromarray(picture).save(content, format=form, **options)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
