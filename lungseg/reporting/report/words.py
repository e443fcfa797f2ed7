"""An evaluation in words: numbers with their intervals, and the summary that stands at the top of the page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from lungseg.reporting.report.content import Content, Number

NEAR = 0.05
"""Share of evidence above that of a uniform map from which the summary says that maps clearly prefer the lungs."""
EXTREME = 0.1, 10.0
"""Temperatures beyond these come from sets that are classified all right, or by chance."""
FLAGS = {
    "shortcut": "Shortcut: the network tells the class where no lung is to be seen",
    "no sign": "No sign of a shortcut in this test",
    "unclear": "Unclear: the shortcut test does not decide",
}


def told(number: Number | None, digits: int = 3) -> str:
    """`0.951 [0.948, 0.954]`; `not measured` where there is no value."""
    if not number or number.get("value") is None:
        return "not measured"
    value = f"{number['value']:.{digits}f}"
    if number.get("low") is None or number.get("high") is None:
        return value
    return f"{value} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"


def digits_of(name: str) -> int:
    """Decimals of a number by its name: distances and counts have two, shares three."""
    coarse = ("hd95", "asd", "components", "holes")
    return 2 if any(part in name for part in coarse) else 3


def counted_images(count: int) -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def title_of(content: Content) -> str:
    """What was evaluated, in a line."""
    what = content.what
    return f"{what.get('split', 'evaluation')} of {what.get('data_name') or 'unnamed data'}"


def chance_of(content: Content) -> float | None:
    """Balanced accuracy of guessing: one by the classes that have an image."""
    present = [count for count in class_counts(content).values() if count]
    return 1 / len(present) if present else None


def class_counts(content: Content) -> dict[str, int]:
    """Images by true class."""
    return {str(name): int(count) for name, count in content.section("what", "class_images").items() if count}


def sentences(content: Content) -> list[str]:
    """The summary, a sentence or two for each part that was measured."""
    parts = (_data, _masks, _classes, _weakest, _calibration, _maps, _robustness)
    return [sentence for part in parts if (sentence := part(content))]


def tells_nothing(calibration: Mapping[str, Any]) -> bool:
    """Whether a temperature is so far from 1 that it says nothing of confidence."""
    used = [float(value) for value in calibration.get("used") or [] if value is not None]
    return any(not EXTREME[0] <= value <= EXTREME[1] for value in used)


def _in_words(number: Number, digits: int = 3) -> str:
    """`0.951 (95 % interval 0.948 to 0.954)`."""
    value = f"{number['value']:.{digits}f}"
    if number.get("low") is None or number.get("high") is None:
        return value
    return f"{value} (95 % interval {number['low']:.{digits}f} to {number['high']:.{digits}f})"


def _data(content: Content) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in class_counts(content).items())
    return f"Measured on {counted_images(content.images)}: {title_of(content)} ({counts or 'no class labels'})."


def _masks(content: Content) -> str:
    dice, values = content.number("segmentation", "dice"), content.column("dice")
    if dice is None:
        return ""
    said = f"Predicted and true lungs overlap with a mean dice of {_in_words(dice)}"
    if values:
        said += f"; half of the images reach {statistics.median(values):.3f}, the worst {min(values):.3f}"
    infection = content.number("segmentation", "infection_dice_infected")
    if infection is not None:
        said += f". Infections, where there are some, are found with a mean dice of {_in_words(infection)}"
    return f"{said}."


def _classes(content: Content) -> str:
    accuracy, balanced = (content.number("classification", name) for name in ("accuracy", "balanced_accuracy"))
    if accuracy is None:
        return ""
    said = f"The accuracy of the class, over images, is {_in_words(accuracy)}"
    counts = class_counts(content)
    if counts:
        most = max(counts.values()) / sum(counts.values())
        said += f"; always naming the most frequent class would reach {most:.3f}"
    if balanced is not None and (chance := chance_of(content)) is not None:
        said += f". The balanced accuracy is {_in_words(balanced)}, chance {chance:.3f}"
    return f"{said}."


def _weakest(content: Content) -> str:
    found = {name: content.number("classification", f"sensitivity_{name}") for name in content.classes}
    known = {name: number for name, number in found.items() if number is not None}
    values = [float(number["value"]) for number in known.values()]
    if min(values, default=1.0) == 1.0 and values:
        images = sum(class_counts(content).values())
        return (
            f"Not one class is wrong. That says that no error was seen, not that there is none: of other images, up to "
            f"about {min(3 / images, 1):.0%} may be wrong (rule of three)."
        )
    if len(set(values)) < 2:
        return ""
    name = min(known, key=lambda key: float(known[key]["value"]))
    return f"Of all classes, {name} is recognised least often: sensitivity {_in_words(known[name])}."


def _calibration(content: Content) -> str:
    before, after = (content.section("calibration", when).get("ece") for when in ("before", "after"))
    if not before or before.get("value") is None:
        return ""
    said = f"Confidence and accuracy differ by {_in_words(before)} on average (ECE)"
    if tells_nothing(content.section("calibration")):
        said += "; no temperature is told from images of which (almost) none is wrong, or (almost) all are"
    elif after and after.get("value") is not None:
        said += f", after temperature scaling by {_in_words(after)}"
    return f"{said}."


def _maps(content: Content) -> str:
    whole = content.first_map.get("evidence", {}).get("all", {})
    number = content.first_map.get("intervals", {}).get("evidence_in_lungs")
    area = whole.get("lung_area")
    if not number or number.get("value") is None or area is None:
        return ""
    low = number["value"] if number.get("low") is None else number["low"]
    said = (
        f"A share of {_in_words(number)} of the class maps' evidence lies in the lungs before any crop; a map that "
        f"knows nothing of lungs would have {area:.3f}"
    )
    prefers = "clearly " if low > area + NEAR else "hardly " if low > area else "do not "
    outside, shown = whole.get("outside"), whole.get("n")
    counted = f"; in {outside:,} of {counted_images(shown)} most of the evidence lies outside" if shown else ""
    cropped = ""
    if number["value"] < 0.5 or low <= area + NEAR:
        cropped = ": a map cropped to the lungs would look better than it is"
    return f"{said}. So the maps {prefers}prefer the lungs{counted}{cropped}."


def _robustness(content: Content) -> str:
    falls: dict[str, tuple[float, float, float, str]] = {}
    for name, curve in content.section("robustness", "curves").items():
        points = curve.get("points") or []
        values = [_value(point, "balanced_accuracy") for point in points]
        if len(values) > 1 and values[0] is not None and values[-1] is not None:
            falls[name] = values[0], values[-1], points[-1]["strength"], curve.get("unit", "")
    if not falls:
        return ""
    name, (first, last, strength, unit) = max(falls.items(), key=lambda item: item[1][0] - item[1][1])
    images = int(content.section("robustness").get("images") or 0)
    if last >= first:
        return "None of the perturbations tried lowers the balanced accuracy."
    return (
        f"Of the perturbations tried on {counted_images(images)}, each at its strongest, {name} hurts most: a balanced "
        f"accuracy of {first:.3f} falls to {last:.3f} at {strength:g} ({unit})."
    )


def _value(point: Mapping[str, Any], score: str) -> float | None:
    value = point.get("scores", {}).get(score, {}).get("value")
    return None if value is None else float(value)
