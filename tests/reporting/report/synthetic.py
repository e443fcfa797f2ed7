"""A made-up evaluation, as `evaluate` would leave it: numbers drawn by seed, circles for lungs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lungseg.reporting.report.pictures import PictureWriter

CLASSES = ["COVID-19", "Non-COVID", "Normal"]


class Shown(NamedTuple):
    """One image."""

    number: int
    image: Any
    lung: Any
    predicted_lung: Any
    infection: Any
    predicted_infection: Any
    cam: Any


def make_evaluation(folder: Path, images: int = 12, size_px: int = 64) -> Path:
    """Write metrics.json, per_image.csv and images/; every third image is of each class, every fourth wrong."""
    rows = [_row(i) for i in range(images)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "metrics.json").write_text(json.dumps(make_metrics(rows)))
    pictures = PictureWriter(folder)
    for i in range(images):
        pictures.add(make_shown(i, size_px))
    pictures.close()
    return folder


def make_shown(number: int, size_px: int = 64) -> Shown:
    """Two circles for lungs, one for an infection, the evidence at a place of its own."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    lung = ((x - 0.3) ** 2 + (y - 0.5) ** 2 < 0.03) | ((x - 0.7) ** 2 + (y - 0.5) ** 2 < 0.03)
    predicted = np.roll(lung, number % 5, axis=0)
    infection = ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.005) if number % 3 == 0 else None
    at = 0.05 + 0.9 * ((number * 7) % 10) / 10
    cam = np.exp(-((x - at) ** 2 + (y - 0.5) ** 2) / 0.02) - 0.1
    image = np.clip(0.2 + 0.5 * x - 0.3 * lung + 0.05 * np.sin(40 * y + number), 0, 1)
    return Shown(number, image.astype(np.float32), lung, predicted, infection, None, cam.astype(np.float32))


def _row(i: int) -> dict[str, Any]:
    noise = np.random.default_rng(i)
    true, wrong = i % 3, i % 4 == 3
    predicted = (true + wrong) % 3
    confidence, inside = float(noise.uniform(0.4, 1.0)), float(noise.uniform(0.1, 0.9))
    probs = {f"prob_{name}": (confidence if c == predicted else (1 - confidence) / 2) for c, name in enumerate(CLASSES)}
    return {
        "id": f"SECRET-{i}.png",
        "group": f"PATIENT-{i % 5}",
        "label": CLASSES[true],
        "predicted": CLASSES[predicted],
        "correct": int(not wrong),
        "confidence": f"{confidence:.6g}",
        **probs,
        "dice": f"{1 - float(noise.exponential(0.04)):.6g}",
        "infection_dice": "",
        "evidence_in_lungs": f"{inside:.6g}",
        "evidence_outside": int(inside < 0.5),
        "lung_area": 0.24,
        "peak_in_lungs": int(inside > 0.4),
    }


def number(value: float | None, spread: float = 0.02, **more: Any) -> dict[str, Any]:
    """A number as metrics.json has it."""
    ends = (None, None) if value is None else (value - spread, value + spread)
    return {"value": value, "low": ends[0], "high": ends[1], "undefined": 0, **more}


def make_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Every section, as `evaluate` names them."""
    counts = {name: sum(row["label"] == name for row in rows) for name in CLASSES}
    matrix = [[sum(r["label"] == a and r["predicted"] == b for r in rows) for b in CLASSES] for a in CLASSES]
    by_class = {f"{s}_{name}": number(0.8) for s in _SCORES for name in CLASSES}
    whole = {name: number(0.75) for name in ("accuracy", "balanced_accuracy", "f1", "auroc", "average_precision")}
    bins = [{"low": b / 15, "images": 3 * b, "confidence": (b + 0.5) / 15, "accuracy": b / 15} for b in range(5, 15)]
    bins += [{"low": 0.0, "images": 0, "confidence": None, "accuracy": None}]
    return {
        "what": _what(len(rows), counts),
        "segmentation": {
            "dice": number(0.951, images=len(rows)),
            "iou": number(0.91),
            "hd95_px": number(3.2),
            "hd95_mm": number(None),
        },
        "mask_counts": {"lung": {"images": len(rows), "empty_truth": 0, "empty_prediction": 1}},
        "classification": whole | by_class,
        "calibration": {
            "temperature": 1.4,
            "used": [1.4],
            "fitted_on": "val",
            "before": {"ece": number(0.08)},
            "after": {"ece": number(0.03)},
            "reliability": bins,
            "reliability_after": bins,
        },
        "confusion": matrix,
        "curves": {"roc": _curves(0.0), "precision_recall": _curves(1.0)},
        "operating_points": {
            "sensitivity_wanted": 0.95,
            "chosen_on": "val",
            "thresholds": {name: [0.2] for name in CLASSES},
            "scores": {f"{s}_at_threshold_{n}": number(0.9) for s in ("sensitivity", "specificity") for n in CLASSES},
        },
        "class_maps": {"cam": _maps(len(rows))},
        **_studies(),
        "scoreboard": [
            {"what": "lung dice", "value": 0.951, "low": 0.949, "high": 0.953, "data": "here", "source": "this run"},
            {"what": "infection dice", "value": None, "low": None, "high": None, "data": "-", "source": "this run"},
        ],
        "notes": ["patients are not known"],
    }


_SCORES = ("sensitivity", "specificity", "precision", "f1", "auroc", "average_precision")


def _what(images: int, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "checkpoint": "/home/someone/SECRET/runs/demo/checkpoints/best.ckpt",
        "split": "test",
        "data_name": "made up",
        "images": images,
        "classes": CLASSES,
        "class_images": counts,
        "data": {"root": "/home/someone/SECRET", "image_size": 64, "phantom": {"dir": "/SECRET", "train": 3}},
        "network": {"arch": "unet", "parameters": 123456},
        "versions": {"python": "3.11"},
        "lungseg": "0.1.0",
        "date": "2026-11-23T10:00:00+00:00",
        "bootstraps": 2000,
    }


def _curves(start: float) -> dict[str, Any]:
    x = [0.0, 0.1, 0.5, 1.0]
    y = [0.0, 0.6, 0.9, 1.0] if start == 0 else [1.0, 0.9, 0.8, 0.4]
    return {name: {"x": x, "y": y, "threshold": [None, 0.9, 0.5, 0.1]} for name in CLASSES}


def _maps(images: int) -> dict[str, Any]:
    return {
        "evidence": {"all": {"evidence_in_lungs": 0.5, "lung_area": 0.24, "outside": 5, "n": images, "no_evidence": 0}},
        "localisation": {"infection": {"all": {"hit": 0.5, "energy": None}}},
        "intervals": {
            "evidence_in_lungs": number(0.5),
            "infection_hit": number(0.33),
            "infection_energy": number(None),
            **{f"evidence_in_lungs_{name}": number(0.4) for name in CLASSES},
        },
        "faithfulness": {
            "images": 7,
            "intervals": {
                f"{kind}{test}_area": number(0.4) for test in ("deletion", "insertion") for kind in ("", "random_")
            },
            "randomisation": {"head": 0.1, "encoder": None},
        },
    }


def _studies() -> dict[str, Any]:
    def view(value: float, margin: float | None = None) -> dict[str, Any]:
        return {"margin": margin, "kept": 0.5, "scores": {"balanced_accuracy": number(value)}}

    points = [
        {
            "strength": strength,
            "scores": {
                "balanced_accuracy": number(0.8 - strength),
                "dice": number(None),
                "flipped": number(strength),
                "evidence_in_lungs": number(0.5),
            },
            "flipped_to": dict.fromkeys(CLASSES, 1),
        }
        for strength in (0.0, 0.1, 0.2)
    ]
    return {
        "shortcuts": {
            "images": 12,
            "left_out": {"label": 0, "lungs": 1},
            "views": {name: view(0.6) for name in ("full", "lungs", "blanked", "box", "border")},
            "lungs_curve": [view(0.6, margin) for margin in (0.0, 0.1, 0.2)],
            "blanked_curve": [view(0.5, margin) for margin in (0.0, 0.1, 0.2)],
        },
        "verdict": {"flag": "shortcut", "reasons": ["without lungs 0.6"], "rule": "a rule", "limits": "a limit"},
        "robustness": {"images": 12, "curves": {"noise": {"unit": "grey range", "points": points}}},
    }
