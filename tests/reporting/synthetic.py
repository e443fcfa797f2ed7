"""A made-up evaluation, as `evaluate` would leave it: numbers drawn by seed, circles for lungs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.evaluation.intervals import Number
from lungseg.evaluation.outputs import Picture
from lungseg.evaluation.results import (
    CalibrationResults,
    ClassMapResults,
    CurvePoints,
    Curves,
    EvaluationResults,
    EvaluationSetup,
    EvidenceSummary,
    FaithfulnessResults,
    MaskCounts,
    OperatingPoints,
    ReliabilityBin,
    RobustnessCurve,
    RobustnessPoint,
    RobustnessResults,
    ShortcutResults,
    Verdict,
    ViewResults,
)
from lungseg.evaluation.saved import to_plain
from lungseg.evaluation.scoreboard import ScoreboardRow
from lungseg.reporting.evaluation_files import PictureWriter

CLASSES = ["COVID-19", "Non-COVID", "Normal"]


def make_evaluation(folder: Path, images: int = 12, size_px: int = 64) -> Path:
    """Write metrics.json, per_image.csv and images/; every third image is of each class, every fourth wrong."""
    rows = [_row(i) for i in range(images)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "metrics.json").write_text(json.dumps(to_plain(make_results(rows))))
    pictures = PictureWriter(folder)
    for i in range(images):
        pictures.add(make_shown(i, size_px))
    pictures.close()
    return folder


def make_shown(number: int, size_px: int = 64) -> Picture:
    """Two circles for lungs, one for an infection, the evidence at a place of its own."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    lung = ((x - 0.3) ** 2 + (y - 0.5) ** 2 < 0.03) | ((x - 0.7) ** 2 + (y - 0.5) ** 2 < 0.03)
    predicted = np.roll(lung, number % 5, axis=0)
    infection = ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.005) if number % 3 == 0 else None
    at = 0.05 + 0.9 * ((number * 7) % 10) / 10
    cam = np.exp(-((x - at) ** 2 + (y - 0.5) ** 2) / 0.02) - 0.1
    image = np.clip(0.2 + 0.5 * x - 0.3 * lung + 0.05 * np.sin(40 * y + number), 0, 1)
    return Picture(number, image.astype(np.float32), lung, predicted, infection, None, cam.astype(np.float32))


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


def number(value: float | None, spread: float = 0.02, images: int | None = None) -> Number:
    """A number with an interval of twice the spread."""
    ends = (None, None) if value is None else (value - spread, value + spread)
    return Number(value, *ends, undefined=0, images=images)


def make_results(rows: list[dict[str, Any]]) -> EvaluationResults:
    """Every section, as `evaluate` gives them."""
    counts = {name: sum(row["label"] == name for row in rows) for name in CLASSES}
    matrix = [[sum(r["label"] == a and r["predicted"] == b for r in rows) for b in CLASSES] for a in CLASSES]
    by_class = {f"{s}_{name}": number(0.8) for s in _SCORES for name in CLASSES}
    of_all = {name: number(0.75) for name in ("accuracy", "balanced_accuracy", "f1", "auroc", "average_precision")}
    masks = {"dice": number(0.951, images=len(rows)), "iou": number(0.91)}
    masks |= {"hd95_px": number(3.2), "hd95_mm": number(None)}
    at_threshold = {f"{s}_at_threshold_{n}": number(0.9) for s in ("sensitivity", "specificity") for n in CLASSES}
    return EvaluationResults(
        setup=_setup(len(rows), counts),
        segmentation=masks,
        mask_counts={"lung": MaskCounts(len(rows), 0, 1, 0, 0, 0)},
        classification=of_all | by_class,
        calibration=_calibration(),
        confusion=matrix,
        curves=Curves(_curves([0.0, 0.6, 0.9, 1.0]), _curves([1.0, 0.9, 0.8, 0.4])),
        operating_points=OperatingPoints(0.95, "val", {name: [0.2] for name in CLASSES}, at_threshold),
        class_maps={"cam": _maps(len(rows))},
        shortcuts=_shortcuts(),
        robustness=_robustness(),
        verdict=Verdict("shortcut", ["without lungs 0.6"], "a rule", "a limit", {}),
        scoreboard=[
            ScoreboardRow("lung dice", 0.951, 0.949, 0.953, "here", "this run", published=False),
            ScoreboardRow("infection dice", None, None, None, "-", "this run", published=False),
        ],
        caveats=["patients are not known"],
    )


_SCORES = ("sensitivity", "specificity", "precision", "f1", "auroc", "average_precision")


def _setup(images: int, counts: dict[str, int]) -> EvaluationSetup:
    return EvaluationSetup(
        checkpoint="/home/someone/SECRET/runs/demo/checkpoints/best.ckpt",
        checkpoint_digest="abc",
        split="test",
        images=images,
        data_name="made up",
        data_origin="own",
        data={"root": "/home/someone/SECRET", "image_size": 64, "phantom": {"dir": "/SECRET", "train": 3}},
        data_fingerprint=None,
        classes=CLASSES,
        class_images=counts,
        network={"arch": "unet", "parameters": 123456},
        map_class="predicted",
        bootstraps=2000,
        versions={"python": "3.11"},
        devices=[],
        git_revision=None,
        lungseg="0.1.0",
        date="2026-11-23T10:00:00+00:00",
    )


def _calibration() -> CalibrationResults:
    bins = [ReliabilityBin(b / 15, 3 * b, (b + 0.5) / 15, b / 15) for b in range(5, 15)]
    bins += [ReliabilityBin(0.0, 0, None, None)]
    before, after = {"ece": number(0.08)}, {"ece": number(0.03)}
    return CalibrationResults(1.4, [1.4], "val", before, bins, after, bins)


def _curves(y: list[float]) -> dict[str, CurvePoints]:
    return {name: CurvePoints([0.0, 0.1, 0.5, 1.0], y, [None, 0.9, 0.5, 0.1]) for name in CLASSES}


def _maps(images: int) -> ClassMapResults:
    intervals = {"evidence_in_lungs": number(0.5), "infection_hit": number(0.33), "infection_energy": number(None)}
    intervals |= {f"evidence_in_lungs_{name}": number(0.4) for name in CLASSES}
    areas = {f"{kind}{test}_area": number(0.4) for test in ("deletion", "insertion") for kind in ("", "random_")}
    randomisation = {"head": 0.1, "encoder": None}
    study = FaithfulnessResults(7, 0.4, 0.4, 0.4, 0.4, areas, randomisation, [], [], [], [])
    return ClassMapResults({"all": EvidenceSummary(0.5, 0.24, None, 5, images, 0)}, {}, {}, intervals, study)


def _shortcuts() -> ShortcutResults:
    def view(value: float, margin: float | None = None) -> ViewResults:
        return ViewResults(margin, 0.5, {"balanced_accuracy": number(value)})

    views = {name: view(0.6) for name in ("full", "lungs", "blanked", "box", "border")}
    curves = ([view(value, margin) for margin in (0.0, 0.1, 0.2)] for value in (0.6, 0.5))
    return ShortcutResults(12, {"label": 0, "lungs": 1}, 0, views, *curves)


def _robustness() -> RobustnessResults:
    points = [
        RobustnessPoint(
            strength,
            {
                "balanced_accuracy": number(0.8 - strength),
                "dice": number(None),
                "flipped": number(strength),
                "evidence_in_lungs": number(0.5),
            },
            dict.fromkeys(CLASSES, 1),
        )
        for strength in (0.0, 0.1, 0.2)
    ]
    return RobustnessResults(12, 0, {"noise": RobustnessCurve("grey range", points)})
