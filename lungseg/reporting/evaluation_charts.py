"""The charts of an evaluation: what each shows, and what is said of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lungseg.evaluation.intervals import Number, Numbers
from lungseg.evaluation.results import EvaluationResults, RobustnessCurve, ShortcutResults, ViewResults
from lungseg.reporting import charts
from lungseg.reporting.chart_files import Chart
from lungseg.reporting.charts import Drawing, Row
from lungseg.reporting.evaluation_files import Content, to_float
from lungseg.reporting.formatting import class_counts, confusion_names, format_interval
from lungseg.reporting.sentences import chance_of, tells_nothing

VIEWS = {
    "full": "full image",
    "lungs": "lungs alone",
    "blanked": "lungs blanked",
    "box": "outside the lungs' box",
    "border": "border alone",
}
CURVES = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "dice": "lung dice",
    "evidence_in_lungs": "evidence in lungs",
}
"""Scores of a robustness chart."""


def evaluation_charts(content: Content) -> dict[str, list[Chart]]:
    """The charts of what was measured, by section of the page, and as `paper` what the page shows otherwise."""
    results = content.results
    matrix, paper = results.confusion, []
    if sum(map(sum, matrix)):
        paper.append(Chart("confusion", "", "", charts.draw_confusion(matrix, confusion_names(results))))
    return {
        "masks": _mask_charts(content),
        "classes": _class_charts(results),
        "maps": _map_charts(content),
        "shortcuts": _shortcut_charts(results, results.shortcuts) if results.shortcuts else [],
        "robustness": _robustness_charts(results),
        "paper": paper,
    }


def _mask_charts(content: Content) -> list[Chart]:
    drawn = []
    for name, kind in (("dice", "lung"), ("infection_dice", "infection")):
        # Where there is no infection an empty mask scores 1, which would say more of the images than of the network.
        rows = [row for row in content.rows if kind == "lung" or to_float(row.get("infection_pixels_true"))]
        groups = replace(content, rows=rows).by_class(name)
        if groups["all"]:
            low = max(0.0, min(int(min(groups["all"]) * 20) / 20, 0.9))
            caption = "Boxes: middle half and median; lines: 5 to 95 % of the images."
            if kind == "infection":
                caption += " Images with infection alone."
            drawing = charts.draw_distribution(groups, f"{kind} dice", low)
            drawn.append(Chart(name, f"{kind.capitalize()} dice of each image", caption, drawing))
    return drawn


def _class_charts(results: EvaluationResults) -> list[Chart]:
    scores, counts, drawn = results.classification, class_counts(results), []
    several = results.setup.multi_label
    images = {name: scores[f"auroc_{name}"].images if several else sum(counts.values()) for name in counts}
    prevalence = {name: count / (images[name] or 1) for name, count in counts.items()}
    rest = "Images with each finding against those without" if several else "Each class against the rest"
    if curves := results.curves.roc:
        caption = f"{rest}; dashed diagonal: chance."
        drawn.append(Chart("roc", "ROC", caption, charts.draw_roc(curves, scores)))
    if curves := results.curves.precision_recall:
        drawing = charts.draw_precision_recall(curves, scores, prevalence)
        caption = f"{rest}; thin: precision of guessing."
        drawn.append(Chart("precision_recall", "Precision and recall", caption, drawing))
    found = results.calibration
    if found and found.reliability:
        errors = found.before.get("ece"), (found.after or {}).get("ece")
        axis, of = "probability of a finding", "frequency"
        if not several:
            axis, of = "confidence (probability of the class predicted)", "accuracy"
        drawing = charts.draw_reliability(found.reliability, found.reliability_after or [], errors, axis, of)
        caption = (
            "Below the diagonal the network is too sure. Open marks: fewer than 10 images. Noise can only raise the "
            f"ECE, so that its interval lies high. {_temperature(results)}"
        )
        drawn.append(Chart("reliability", "Reliability", caption, drawing))
    if (left := results.abstention) and len(left.answered.x) > 1:
        points = [(x, Number(y, None, None, 0)) for x, y in zip(left.answered.x, left.answered.y, strict=True)]
        axis, least = "share of images answered, surest first", np.floor(10 * min(left.answered.y)) / 10
        drawing = charts.draw_series({"accuracy": points}, axis, "accuracy", None, least if least < 1 else 0.9)
        area = format_interval(left.selective.get("risk_coverage_area"))
        caption = (
            "The others are left to a person; those equally sure are answered together. Mean error over all shares"
        )
        caption += f" (area): {area}."
        drawn.append(Chart("answered", "Answering only what is sure", caption, drawing))
    return drawn


def _temperature(results: EvaluationResults) -> str:
    found = results.calibration
    used = [f"{value:.3f}" for value in (found.used if found else []) if value is not None]
    if found is None or not used:
        return "No temperature is known."
    words = f"Temperature {' and '.join(used)}, chosen on {found.fitted_on}"
    if tells_nothing(found):
        words += ": so far from 1 that it tells only how few (or how many) of those images are wrong"
    return f"{words}."


def _map_charts(content: Content) -> list[Chart]:
    first = next(iter(content.results.class_maps.values()), None)
    if first is None:
        return []
    area, drawn = first.evidence["all"].lung_area, []
    groups = content.by_class("evidence_in_lungs")
    if groups["all"]:
        drawing = charts.draw_distribution(groups, "share of evidence in the lungs", 0.0, area)
        caption = "" if area is None else f"Dashed: {area:.3f}, what a uniform map would have."
        drawn.append(Chart("evidence", "Evidence in the lungs, before any crop", caption, drawing))
    names = {"all": "evidence_in_lungs"} | {name: f"evidence_in_lungs_{name}" for name in list(groups)[1:]}
    numbers = {group: first.intervals[name] for group, name in names.items() if name in first.intervals}
    reference = None if area is None else (area, f"uniform map {area:.2f}")
    if all(number.value is None for number in numbers.values()):
        return drawn
    drawing = _draw_numbers(numbers, "mean share of evidence in the lungs", reference)
    return [*drawn, Chart("evidence_by_class", "By true class", "With 95 % intervals.", drawing)]


def _shortcut_charts(results: EvaluationResults, found: ShortcutResults) -> list[Chart]:
    chance = chance_of(results)
    numbers = {VIEWS.get(name, name): view.scores["balanced_accuracy"] for name, view in found.views.items()}
    reference = None if chance is None else (chance, f"chance {chance:.2f}")
    drawing = _draw_numbers(numbers, "balanced accuracy", reference)
    drawn = [Chart("shortcuts", "What the network is shown", "With 95 % intervals.", drawing)]
    if found.lungs_curve and found.blanked_curve and chance is not None:
        series = {
            "lungs alone, dilated": _points(found.lungs_curve),
            "dilated lungs blanked": _points(found.blanked_curve),
        }
        drawing = charts.draw_series(series, "dilation, share of the side", "balanced accuracy", chance)
        drawn.append(Chart("dilation", "As the lungs are dilated", "Dashed: chance.", drawing))
    return drawn


def _robustness_charts(results: EvaluationResults) -> list[Chart]:
    if results.robustness is None or not results.robustness.images:
        return []
    drawn = []
    for name, curve in results.robustness.curves.items():
        series = {
            words: [(point.strength, point.scores[score]) for point in curve.points if score in point.scores]
            for score, words in CURVES.items()
            if any((number := point.scores.get(score)) and number.value is not None for point in curve.points)
        }
        drawing = charts.draw_series(series, f"{name}: {curve.unit}", "", chance_of(results))
        title = "JPEG" if name == "jpeg" else name.capitalize()
        drawn.append(Chart(f"robustness_{name}", title, _flips(curve), drawing))
    return drawn


def _draw_numbers(numbers: Numbers, name: str, reference: tuple[float, str] | None) -> Drawing:
    rows = [Row(f"{title}: {format_interval(number)}", number) for title, number in numbers.items()]
    return charts.draw_intervals(rows, name, reference)


def _flips(curve: RobustnessCurve) -> str:
    """How many predictions the strongest change flips, and to what."""
    last = curve.points[-1]
    share, towards = last.scores.get("flipped"), last.flipped_to
    if share is None or share.value is None:
        return ""
    most = max(towards, key=towards.__getitem__, default="")
    named = f", most often to {most}" if most and towards[most] else ""
    return f"At the strongest, {share.value:.0%} of the predictions change{named}."


def _points(views: Sequence[ViewResults]) -> list[tuple[float, Number]]:
    return [(view.margin, view.scores["balanced_accuracy"]) for view in views if view.margin is not None]
