"""What the terminal shows of an evaluation: the headline numbers with their intervals, maps, verdict, and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungseg.evaluation.tables import map_table, table_lines

HEADLINES: tuple[tuple[str, str, str], ...] = (
    ("segmentation", "dice", "lung dice, mean over images"),
    ("segmentation", "dice_global", "lung dice, over all pixels"),
    ("segmentation", "iou", "lung IoU, mean over images"),
    ("segmentation", "pixel_accuracy", "pixel accuracy"),
    ("segmentation", "hd95_px", "HD95, pixels"),
    ("segmentation", "asd_px", "average surface distance, pixels"),
    ("segmentation", "infection_dice_infected", "infection dice, images with infection"),
    ("classification", "accuracy", "accuracy (images)"),
    ("classification", "balanced_accuracy", "balanced accuracy"),
    ("classification", "f1", "F1, mean over classes"),
    ("classification", "auroc", "AUROC, mean over classes"),
    ("classification", "average_precision", "average precision, mean over classes"),
)


def evaluation_lines(content: Mapping[str, Any]) -> list[str]:
    """The lines.

    Args:
        content: Of metrics.json.
    """
    what = content["what"]
    classes = ", ".join(f"{name} {count}" for name, count in what["class_images"].items())
    return [
        "",
        f"{what['split']} of {what['data_name']}: {what['images']} images ({classes})",
        *_headlines(content),
        *_calibration(content["calibration"]),
        *_maps(content["class_maps"], what["classes"]),
        *_verdict(content["verdict"]),
        *_robustness(content["robustness"]),
        "",
        "notes",
        *(f"  - {note}" for note in content["notes"]),
    ]


def told(number: Mapping[str, Any] | None, digits: int = 4) -> str:
    """`0.9512 [0.9481, 0.9540]`; `-` where there is none."""
    if number is None or number["value"] is None:
        return "-"
    if number["low"] is None:
        return f"{number['value']:.{digits}f}"
    return f"{number['value']:.{digits}f} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"


def _headlines(content: Mapping[str, Any]) -> list[str]:
    rows = [(title, content[section][name]) for section, name, title in HEADLINES if name in content[section]]
    of_class = content["classification"]
    for name in content["what"]["classes"]:
        for score in ("sensitivity", "specificity", "precision"):
            if f"{score}_{name}" in of_class:
                rows.append((f"{score}, {name}", of_class[f"{score}_{name}"]))
    return [f"{'':<40}  value  [95 % interval]", *(f"{title:<40}  {told(number)}" for title, number in rows)]


def _calibration(section: Mapping[str, Any]) -> list[str]:
    if not section:
        return []
    lines = [f"{'calibration error (ECE)':<40}  {told(section['before']['ece'])}"]
    if "after" in section:
        fitted = " and ".join(f"{t:.3f}" for t in section["used"] if t is not None)
        lines.append(f"{'  at temperature ' + fitted:<40}  {told(section['after']['ece'])}")
    return lines


def _maps(section: Mapping[str, Any], classes: list[str]) -> list[str]:
    """The ways side by side, evidence by class, and whether the maps say what the network does."""
    first = next(iter(section.values()))
    whole, intervals = first["evidence"]["all"], first["intervals"]
    lines = ["", *table_lines({name: map_table(way["evidence"], way["localisation"]) for name, way in section.items()})]
    by_class = [f"{name} {told(intervals.get(f'evidence_in_lungs_{name}'), 3)}" for name in classes]
    area = "" if whole["lung_area"] is None else f"; a uniform map would have {whole['lung_area']:.3f}"
    lines.append(f"evidence in lungs before crop, by true class: {', '.join(by_class)}{area}")
    lines.append(f"images whose evidence is mostly outside the lungs: {whole['outside']} (column evidence_outside)")
    for name, way in section.items():
        found = way["faithfulness"]
        if found is None:
            continue
        stages = ", ".join(
            f"{stage} {'-' if value is None else f'{value:.2f}'}" for stage, value in found["randomisation"].items()
        )
        lines.append(
            f"{name}: deletion {found['deletion_area']:.3f} (misplaced map {found['random_deletion_area']:.3f}), "
            f"insertion {found['insertion_area']:.3f} ({found['random_insertion_area']:.3f}); "
            f"rank correlation once unlearned down to: {stages}"
        )
    return lines


def _verdict(section: Mapping[str, Any] | None) -> list[str]:
    if section is None:
        return []
    return [
        "",
        f"shortcuts: {section['flag'].upper()}",
        *(f"  {reason}" for reason in section["reasons"]),
        f"  {section['limits'].partition('. ')[0]}; rule and limits: verdict in metrics.json, and report.html",
    ]


def _robustness(section: Mapping[str, Any] | None) -> list[str]:
    """Balanced accuracy from the image as it is to the strongest change of each kind."""
    if section is None or not section["images"]:
        return []
    lines = ["", f"balanced accuracy as images get worse ({section['images']} images; intervals: metrics.json)"]
    for name, curve in section["curves"].items():
        values = [point["scores"]["balanced_accuracy"]["value"] for point in curve["points"]]
        steps = [f"{point['strength']:g}" for point in curve["points"]]
        cells = ", ".join(f"{s}: {'-' if v is None else f'{v:.3f}'}" for s, v in zip(steps, values, strict=True))
        lines.append(f"  {name:<9} {cells}   ({curve['unit']})")
    return lines
