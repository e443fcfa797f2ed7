"""Sections of the page on where the network looks and what it needs: class maps, shortcuts, robustness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungseg.evaluation.tables import COLUMNS
from lungseg.reporting.report.charts import distribution_chart
from lungseg.reporting.report.content import Content
from lungseg.reporting.report.markup import figure, figures, folded, items, paragraph, section, table
from lungseg.reporting.report.score_sections import all_numbers
from lungseg.reporting.report.study_charts import (
    VIEWS,
    dilation_chart,
    interval_chart,
    robustness_chart,
    robustness_key,
)
from lungseg.reporting.report.words import FLAGS, chance_of, counted_images, told

_TRUST = (
    ("deletion_area", "deletion"),
    ("random_deletion_area", "of a misplaced map"),
    ("deletion_gain", "gain"),
    ("insertion_area", "insertion"),
    ("random_insertion_area", "of a misplaced map"),
    ("insertion_gain", "gain"),
)
_STAGES = (
    "Rank correlation of the map with itself once the network is unlearned down to a stage: high means that the map "
    "does not depend on what was learned"
)


def map_section(content: Content) -> str:
    """Evidence in the lungs, localisation by method, faithfulness."""
    ways = content.section("class_maps")
    if not ways:
        return section("maps", "Class maps", [paragraph("Class maps were not measured.")])
    whole = content.first_map.get("evidence", {}).get("all", {})
    intervals, area = content.first_map.get("intervals", {}), whole.get("lung_area")
    charts = []
    if values := content.column("evidence_in_lungs"):
        groups = {"all": values} | {name: content.column("evidence_in_lungs", name) for name in content.classes}
        chart = distribution_chart(values, groups, "share of evidence in the lungs", 0.0, area)
        caption = "" if area is None else f"Dashed: {area:.3f}, what a uniform map would have."
        charts.append(figure(chart, "Evidence in the lungs, before any crop", caption))
    rows = {"all": intervals.get("evidence_in_lungs") or {}}
    rows |= {name: intervals.get(f"evidence_in_lungs_{name}") or {} for name in content.classes}
    charts.append(
        figure(
            interval_chart(rows, "mean share of evidence in the lungs", area, "uniform map"),
            "By true class",
            "With 95 % intervals.",
        )
    )
    return section("maps", "Class maps", [figures(charts), _localisation(ways), _faithfulness(ways), *_all_of(ways)])


def shortcut_section(content: Content) -> str:
    """What the network knows without the lungs, and from them alone; the verdict with its rule."""
    found, verdict = content.section("shortcuts"), content.section("verdict")
    if not found:
        why = "Not tested. Whether the class can be told without the lungs is therefore not known."
        return section("shortcuts", "Shortcuts", [paragraph(why)])
    views = {
        VIEWS.get(name, name): view.get("scores", {}).get("balanced_accuracy", {})
        for name, view in found.get("views", {}).items()
    }
    chance = chance_of(content)
    charts = [
        figure(interval_chart(views, "balanced accuracy", chance), "What the network is shown", "With 95 % intervals.")
    ]
    if found.get("lungs_curve") and found.get("blanked_curve") and chance is not None:
        chart = dilation_chart(found["lungs_curve"], found["blanked_curve"], chance)
        charts.append(figure(chart, "As the lungs are dilated", "Dashed: chance."))
    left = found.get("left_out") or {}
    told_left = ", ".join(f"{count} without {name}" for name, count in left.items() if count)
    said = f"Measured on {counted_images(found.get('images', 0))}" + (f"; left out: {told_left}" if told_left else "")
    if found.get("lungs_predicted"):
        said += f"; of {found['lungs_predicted']:,} the lungs are those predicted"
    return section("shortcuts", "Shortcuts", [_verdict(verdict), figures(charts), paragraph(f"{said}.", "soft")])


def robustness_section(content: Content) -> str:
    """One chart a perturbation."""
    found, chance = content.section("robustness"), chance_of(content)
    curves = found.get("curves") or {}
    if not curves or not found.get("images"):
        return section("robustness", "Robustness", [paragraph("Not measured.")])
    charts = [
        figure(robustness_chart(name, curve, chance), "JPEG" if name == "jpeg" else name.capitalize(), _flips(curve))
        for name, curve in curves.items()
    ]
    said = (
        f"Measured on {counted_images(found['images'])}; bars: 95 % intervals; dashed: chance of the balanced "
        "accuracy. The class maps' evidence is that for the class predicted on the changed image."
    )
    return section("robustness", "Robustness", [paragraph(said), robustness_key(), figures(charts)])


def _localisation(ways: Mapping[str, Any]) -> str:
    head = ("way to the map", *(title for title, _, _ in COLUMNS))
    rows = []
    for name, way in ways.items():
        cells = []
        for _, source, score in COLUMNS:
            number = (way.get("intervals") or {}).get(score if source == "evidence" else f"{source}_{score}")
            cells.append(told(number) if number and number.get("value") is not None else "-")
        rows.append((name, *cells))
    caption = (
        "Class maps against infection masks. in lungs: share of evidence; hit: the peak lies on an infection; cropped: "
        "after cutting the map to the predicted lungs, which helps any map; energy: share of evidence on infections; "
        "AP: average precision of pixels; -: no infection masks"
    )
    return table(head, rows, caption, "many")


def _all_of(ways: Mapping[str, Any]) -> list[str]:
    return [folded(f"All numbers of {name}", all_numbers(way.get("intervals") or {})) for name, way in ways.items()]


def _faithfulness(ways: Mapping[str, Any]) -> str:
    rows, stages, images = [], [], 0
    for name, way in ways.items():
        found = way.get("faithfulness") or {}
        if not found:
            continue
        images, numbers = int(found.get("images") or 0), found.get("intervals") or {}
        rows.append((name, *(told(numbers[part]) if part in numbers else "-" for part, _ in _TRUST)))
        steps = ", ".join(f"{stage} {_share(value)}" for stage, value in (found.get("randomisation") or {}).items())
        stages.append(f"{name}: {steps}")
    if not rows:
        return paragraph("Whether the maps are faithful to the network was not measured.")
    head = ("way to the map", *(words for _, words in _TRUST))
    caption = (
        "Faithfulness: area under the probability while pixels are deleted (less is better) or inserted (more is "
        "better) in the map's order, and in that of the same map misplaced; gain: how much better than the misplaced "
        f"map, 0 if the map tells nothing. Measured on {counted_images(images)}"
    )
    checks = items([_STAGES, *stages])
    return table(head, rows, caption, "many") + folded("Does the map depend on what was learned?", checks)


def _verdict(verdict: Mapping[str, Any]) -> str:
    if not verdict:
        return ""
    flag = FLAGS.get(str(verdict.get("flag")), str(verdict.get("flag")))
    rule = paragraph(f"Rule. {verdict.get('rule', '')}", "soft") + paragraph(
        f"Limits. {verdict.get('limits', '')}", "soft"
    )
    return paragraph(f"{flag}.", "strong") + items(map(str, verdict.get("reasons") or [])) + rule


def _flips(curve: Mapping[str, Any]) -> str:
    """How many predictions the strongest change flips, and to what."""
    last = (curve.get("points") or [{}])[-1]
    share, towards = last.get("scores", {}).get("flipped", {}).get("value"), last.get("flipped_to") or {}
    if share is None:
        return ""
    most = max(towards, key=lambda name: int(towards[name]), default="")
    named = f", most often to {most}" if most and towards[most] else ""
    return f"At the strongest, {share:.0%} of the predictions change{named}."


def _share(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"
