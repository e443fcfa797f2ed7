"""What the page makes of predictions: a picture as HTML, and all results as one zip, made in memory.

The picture is the X-ray under its map and outlines, as layers of one SVG. Opacity, crop and outline are styles in the
browser (`page.css`): moving the slider asks the server nothing.
"""

import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lungseg import __version__
from lungseg.inference.journal import csv_of
from lungseg.inference.prediction import OVERLAY_PX, Prediction
from lungseg.reporting import drawing
from lungseg.reporting.pages import render
from lungseg.runs.model_info import ModelInfo
from lungseg.serving.cases import METHODS

IMAGE_PX, MAP_PX = 1024, 512
"""Longer sides at most of what is sent to the browser."""
NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."
_COLOURS = (*drawing.PREDICTED_COLOUR, *drawing.INFECTION_COLOUR)
STYLE = ":root {{ --lungs: #{:02x}{:02x}{:02x}; --infection: #{:02x}{:02x}{:02x}; }}\n".format(*_COLOURS) + (
    Path(__file__).with_name("page.css").read_text(encoding="utf-8")
)
"""CSS of the page."""


def draw_viewer(prediction: Prediction, name: str, of_class: str) -> str:
    """The picture of an image by name as an SVG with a caption, as wide as the column that it stands in.

    `of_class` names the class of the prediction's map, for those who do not see it.
    """
    grey = drawing.shrink(prediction.image, IMAGE_PX)
    infection = np.zeros_like(prediction.mask) if prediction.infection is None else prediction.infection
    # The map is smooth: half the side is enough, and a quarter of what is sent.
    small = drawing.shrink(prediction.mask.astype(np.float32), MAP_PX) > 0.5
    inside = small if prediction.has_lung else np.ones_like(small)
    strength = drawing.in_lung_units(drawing.shrink(prediction.class_map, MAP_PX), inside)
    return render(
        "app_picture.html.jinja",
        name=name,
        of_class=of_class,
        size=grey.shape[::-1],
        xray=drawing.data_url("jpeg", drawing.jpeg(grey, 92)),
        map=drawing.data_url("webp", drawing.webp(drawing.map_layer(strength), 80)),
        words=prediction.severity_words,
        lungs=drawing.outline_path(drawing.shrink(prediction.mask.astype(np.float32), IMAGE_PX) > 0.5),
        infection=drawing.outline_path(drawing.shrink(infection.astype(np.float32), IMAGE_PX) > 0.5),
    )


def pack(
    results: Sequence[tuple[str, Prediction]],
    info: ModelInfo,
    method: str,
    label: int | None,
    opacity: float,
    crop: bool,
) -> bytes:
    """A zip file: `results.csv`, `results.json`, and `NN_NAME_mask.png` and `NN_NAME_overlay.png` of each image.

    Where infection is predicted there is `NN_NAME_infection_mask.png` too.
    The results are the images' names and what is predicted of them; their maps are of a method of `METHODS` and of the
    class `label`, None being the predicted one of each. Opacity and crop are those of `Prediction.overlay`.
    """
    rows, content = [], io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, prediction) in enumerate(results, 1):
            # Numbered, for two files from two folders may bear one name.
            stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('_')[:80]}"
            of_class = prediction.name if label is None else prediction.classes[label]
            row = {"id": name, "map_method": method, "map_class": of_class, "map_cropped": crop}
            pngs = {"mask": drawing.mask_png(prediction.mask)} if prediction.has_lung else {}
            if prediction.infection is not None:
                pngs["infection_mask"] = drawing.mask_png(prediction.infection)
            # With a class chosen its map is drawn, not those of the findings called.
            shown = prediction if label is None else replace(prediction, called=None)
            pngs["overlay"] = drawing.png(shown.overlay(OVERLAY_PX, opacity, crop))
            files = {kind: f"{stem}_{kind}.png" for kind in pngs}
            for kind, content_of_png in pngs.items():
                archive.writestr(files[kind], content_of_png)
            rows.append({**row, **prediction.row(), **files})
        model = {name: getattr(info, name) for name in ("version", "classes", "image_size", "temperature")}
        model |= {name: info.description[name] for name in ("licence", "calibration") if name in info.description}
        about = {"notice": NOTICE, "lungseg": __version__, "model": model, "methods": METHODS}
        archive.writestr("results.csv", csv_of(rows, list(rows[0]) if rows else ["id"]))
        archive.writestr("results.json", json.dumps({**about, "images": rows}, indent=2) + "\n")
    return content.getvalue()
