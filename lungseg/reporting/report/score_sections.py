"""Sections of the page: summary, masks, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lungseg.evaluation.tables import HEADLINES
from lungseg.reporting.report.charts import distribution_chart, precision_recall_chart, reliability_chart, roc_chart
from lungseg.reporting.report.content import Content
from lungseg.reporting.report.markup import figure, figures, folded, items, paragraph, section, table
from lungseg.reporting.report.words import FLAGS, class_counts, digits_of, sentences, tells_nothing, told

_BY_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc", "average_precision")
_INTERVAL = "95 % bootstrap interval in brackets."


def summary_section(content: Content) -> str:
    """Words, verdict, and the headline numbers."""
    rows = [(title, told(number, digits_of(name)), f"{images:,}") for name, title, number, images in headlines(content)]
    numbers = table(("", "value [95 % interval]", "images"), rows, "Headline numbers") if rows else ""
    return section("summary", "Summary", [items(sentences(content)), _verdict_box(content), numbers])


def headlines(content: Content) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """Name, title, number, and images behind it, of the `HEADLINES` that were measured."""
    labelled = sum(sum(row) for row in content.metrics.get("confusion") or [])
    scored = int(content.section("mask_counts", "lung").get("images") or content.images)
    found = []
    for part, name, title in HEADLINES:
        number = content.number(part, name)
        if number is not None:
            images = labelled if part == "classification" else number.get("images") or scored
            found.append((name, title, number, int(images)))
    return found


def mask_section(content: Content) -> str:
    """Distribution of dice and every number of the masks."""
    numbers = content.section("segmentation")
    if not numbers:
        return section("masks", "Masks", [paragraph("No masks were measured: no image has a true one.")])
    parts = []
    for prefix, kind in (("", "lung"), ("infection_", "infection")):
        values = content.column(f"{prefix}dice")
        if values:
            low = max(0.0, min(int(min(values) * 20) / 20, 0.9))
            groups = {"all": values} | {name: content.column(f"{prefix}dice", name) for name in content.classes}
            caption = "Boxes: middle half and median; lines: 5 to 95 % of the images."
            if kind == "infection":
                caption += " Images without infection score 1 where none is predicted, else 0."
            chart = distribution_chart(values, groups, f"{kind} dice", low)
            parts.append(figure(chart, f"{kind.capitalize()} dice of each image", caption))
    counts = [
        (kind, *(str(found.get(name, "")) for name in _COUNTS))
        for kind, found in content.section("mask_counts").items()
        if isinstance(found, Mapping)
    ]
    head = ("mask", *(name.replace("_", " ") for name in _COUNTS))
    rules = "Both empty scores 1, one empty 0; outlines of an empty mask have no distance."
    counted = table(head, counts, f"Images that the rules for empty masks touch. {rules}") if counts else ""
    by_class = _masks_by_class(content)
    return section(
        "masks", "Masks", [figures(parts), by_class, counted, folded("All numbers of masks", all_numbers(numbers))]
    )


_COUNTS = ("images", "empty_truth", "empty_prediction", "both_empty", "surface_undefined", "spacing_unknown")


_SHORT = {"iou": "IoU", "hd95_px": "HD95, px", "asd_px": "surface distance, px"}
_SHORT |= {f"dice_image_{side}": f"dice, {side} lung" for side in ("left", "right")}
_SHORT |= {"f1": "F1", "auroc": "AUROC"}
"""Columns whose names in metrics.json read badly."""
_BY_MASK = ("dice", "iou", "sensitivity", "precision", "hd95_px", "asd_px", "dice_image_left", "dice_image_right")


def _masks_by_class(content: Content) -> str:
    """Means of the lung scores over all images and over each true class."""
    numbers = content.section("segmentation")
    rows = []
    for group in ("", *(f"_{name}" for name in content.classes)):
        found = [numbers.get(f"{score}{group}") for score in _BY_MASK]
        if any(found):
            rows.append((group[1:] or "all", *(told(n, digits_of(s)) for s, n in zip(_BY_MASK, found, strict=True))))
    head = ("true class", *(_SHORT.get(score, score) for score in _BY_MASK))
    return table(
        head, rows, f"Lung masks, means over images. Left and right are those of the image. {_INTERVAL}", "many"
    )


def class_section(content: Content) -> str:
    """Confusion matrix, scores by class, curves, calibration and operating points."""
    numbers = content.section("classification")
    if not numbers:
        why = "The classes were not measured: no image has both a label and finite class outputs."
        return section("classes", "Classes", [paragraph(why)])
    rows = [
        (
            name,
            *(told(numbers.get(f"{score}_{name}")) for score in _BY_CLASS),
            f"{class_counts(content).get(name, 0):,}",
        )
        for name in content.classes
    ]
    head = ("class, against the rest", *(_SHORT.get(score, score.replace("_", " ")) for score in _BY_CLASS), "images")
    return section(
        "classes",
        "Classes",
        [
            figures([confusion_figure(content), *_curve_figures(content)]),
            table(head, rows, f"Scores by class. {_INTERVAL}", "many"),
            _without_error(content),
            _operating(content),
            folded("All numbers of classes and calibration", all_numbers({**numbers, **_calibration(content)})),
        ],
    )


def confusion_figure(content: Content) -> str:
    """The confusion matrix as a table whose cells choose images of the gallery; empty without counts."""
    matrix, classes = content.metrics.get("confusion"), content.classes
    if not isinstance(matrix, list) or len(matrix) != len(classes) or not any(map(sum, matrix)):
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    lines = []
    for name, counts in zip(classes, matrix, strict=True):
        cells = "".join(_cell(name, other, count, sum(counts)) for other, count in zip(classes, counts, strict=True))
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}<td class="sum">{sum(counts):,}</td></tr>')
    html = (
        '<div class="wide confusion"><table><thead><tr><th scope="col">true \\ predicted</th>'
        f'{head}<th scope="col">all</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
    return figure(
        html, "Confusion matrix", "Images, and share of the true class. A cell shows its images in the gallery."
    )


def _cell(true: str, predicted: str, count: int, total: int) -> str:
    share = count / total if total else 0.0
    light = "light" if share > 0.92 else ""  # either way a contrast of at least 4.5 to the words
    inside = f"<b>{count:,}</b> <small>{share:.1%}</small>" if total else f"<b>{count:,}</b>"
    return (
        f'<td style="--share:{share:.3f}" class="{light}"><button type="button" data-true="{escape(true)}" '
        f'data-predicted="{escape(predicted)}">{inside}</button></td>'
    )


def _curve_figures(content: Content) -> list[str]:
    scores, counts = content.section("classification"), class_counts(content)
    prevalence = {name: count / sum(counts.values()) for name, count in counts.items()}
    found = []
    if roc := content.section("curves", "roc"):
        found.append(figure(roc_chart(roc, scores), "ROC", "Each class against the rest; dashed diagonal: chance."))
    if recall := content.section("curves", "precision_recall"):
        chart = precision_recall_chart(recall, scores, prevalence)
        found.append(figure(chart, "Precision and recall", "Each class against the rest; thin: precision of guessing."))
    calibration = content.section("calibration")
    if calibration.get("reliability"):
        ece = {when: content.section("calibration", when).get("ece") or {} for when in ("before", "after")}
        chart = reliability_chart(calibration["reliability"], calibration.get("reliability_after") or [], ece)
        caption = (
            "Below the diagonal the network is too sure. Open marks: fewer than 10 images. Noise can only raise the "
            "ECE, so that its interval lies high."
        )
        found.append(figure(chart, "Reliability", f"{caption} {_temperature(calibration)}"))
    return found


def _temperature(calibration: Mapping[str, Any]) -> str:
    used = [float(value) for value in calibration.get("used") or [] if value is not None]
    if not used:
        return "No temperature is known."
    told_used = " and ".join(f"{value:.3f}" for value in used)
    said = f"Temperature {told_used}, chosen on {calibration.get('fitted_on', 'Val')}"
    if tells_nothing(calibration):
        said += ": so far from 1 that it tells only how few (or how many) of those images are wrong"
    return f"{said}."


def _without_error(content: Content) -> str:
    """A word on scores of 1: resampling images without an error finds none."""
    perfect = [
        count
        for name, count in class_counts(content).items()
        if (found := content.number("classification", f"sensitivity_{name}")) and found["value"] == found["low"] == 1
    ]
    if not perfect:
        return ""
    least = min(perfect)
    return paragraph(
        f"1.000 [1.000, 1.000] says that no error was seen, not that there is none: with none in {least} images, up to "
        f"about {min(3 / least, 1):.0%} of all may still be wrong (rule of three).",
        "soft",
    )


def _operating(content: Content) -> str:
    found = content.section("operating_points")
    if not found:
        return ""
    scores, names = found.get("scores", {}), ("sensitivity", "specificity", "precision")
    rows = []
    for name in content.classes:
        limits = [f"{value:.3f}" for value in found.get("thresholds", {}).get(name, []) if value is not None]
        rows.append(
            (name, " / ".join(limits) or "-", *(told(scores.get(f"{score}_at_threshold_{name}")) for score in names))
        )
    caption = (
        f"Operating points: thresholds that reach a sensitivity of {found.get('sensitivity_wanted', 0):g} on "
        f"{found.get('chosen_on', 'Val')}, and what they reach here. {_INTERVAL}"
    )
    return table(("class", "threshold", *names), rows, caption)


def _verdict_box(content: Content) -> str:
    verdict = content.section("verdict")
    if not verdict:
        return paragraph("Shortcuts were not tested: this evaluation cannot say where the accuracy comes from.", "box")
    flag = str(verdict.get("flag"))
    words = [FLAGS.get(flag, flag) + "."]
    words += [f"{str(reason)[:1].upper()}{str(reason)[1:]}." for reason in (verdict.get("reasons") or [])[:1]]
    kind = "warn" if flag == "shortcut" else "ask" if flag != "no sign" else ""
    link = '<a href="#shortcuts">Rule and limits</a>'
    return f'<p class="box {kind}"><b>{escape(words[0])}</b> {escape(" ".join(words[1:]))} {link}</p>'


def _calibration(content: Content) -> dict[str, Any]:
    words = {"before": "", "after": " after temperature scaling"}
    return {
        f"{name}{more}": number
        for when, more in words.items()
        for name, number in content.section("calibration", when).items()
    }


def all_numbers(numbers: Mapping[str, Any]) -> str:
    """A table of numbers by their names in metrics.json."""
    rows: list[Sequence[str]] = []
    for name, number in numbers.items():
        if isinstance(number, Mapping) and "value" in number:
            undefined = number.get("undefined") or 0
            images = number.get("images")
            rows.append(
                (name, told(number, digits_of(name)), "" if images is None else f"{images:,}", f"{undefined:g}")
            )
    return table(("name", "value [95 % interval]", "images", "undefined resamples"), rows, "All numbers of this part")
