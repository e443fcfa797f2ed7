"""The results of a visit as one zip: masks, overlays, results.csv and results.json; made in memory."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lungseg import __version__
from lungseg.inference.prediction import OVERLAY_PX, Prediction, png
from lungseg.runs.model_info import ModelInfo
from lungseg.serving.cases import METHODS
from lungseg.serving.viewer import NOTICE


class View(NamedTuple):
    """What is chosen on the page."""

    method: str
    """A key of `METHODS`."""
    label: int | None
    """Class of the map; None is the predicted one of each image."""
    opacity: float
    """Of the strongest evidence, in [0, 1]."""
    crop: bool
    """Show the map inside the lungs only."""


class Result(NamedTuple):
    """One image of the page."""

    name: str
    prediction: Prediction


def pack(results: Sequence[Result], view: View, info: ModelInfo) -> bytes:
    """A zip file: `results.csv`, `results.json`, and `NN_NAME_mask.png` and `NN_NAME_overlay.png` of each image.

    Args:
        results: In the order of the page.
        view: How overlays are drawn.
        info: Of the model, for results.json.
    """
    rows = [_row(number, result, view) for number, result in enumerate(results, 1)]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, (_, prediction) in zip(rows, results, strict=True):
            archive.writestr(row["mask"], prediction.mask_png())
            archive.writestr(row["overlay"], png(prediction.overlay(OVERLAY_PX, view.opacity, view.crop)))
        archive.writestr("results.csv", _csv(rows))
        archive.writestr("results.json", json.dumps({**_about(info), "images": rows}, indent=2) + "\n")
    return content.getvalue()


def _row(number: int, result: Result, view: View) -> dict[str, Any]:
    prediction = result.prediction
    stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', result.name).strip('_')[:80]}"
    label = prediction.label if view.label is None else view.label
    return {
        "id": result.name,
        "map_method": view.method,
        "map_class": prediction.classes[label],
        "map_cropped": view.crop,
        **prediction.row(),
        "mask": f"{stem}_mask.png",
        "overlay": f"{stem}_overlay.png",
    }


def _about(info: ModelInfo) -> dict[str, Any]:
    return {
        "notice": NOTICE,
        "lungseg": __version__,
        "model": {
            "version": info.version,
            "classes": list(info.classes),
            "image_size": info.image_size,
            "temperature": info.temperature,
            **{name: info.description[name] for name in ("licence", "calibration") if name in info.description},
        },
        "methods": METHODS,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(_cells(row)) for row in rows)
    return text.getvalue()


def _cells(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        yield name, "; ".join(value) if isinstance(value, list) else value
