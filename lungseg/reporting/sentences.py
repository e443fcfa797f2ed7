"""An evaluation in words: the summary that stands at the top of the page."""

import statistics

from lungseg.evaluation.results import CalibrationResults, EvaluationResults, RobustnessPoint
from lungseg.reporting.evaluation_files import Content
from lungseg.reporting.formatting import Measured, class_counts, count_words, format_images, title_of

CLEARLY = 0.05
"""Share of evidence above that of a uniform map from which the summary says that maps clearly prefer the lungs."""
EXTREME = 0.1, 10.0  # Temperatures beyond these come from sets that are classified all right, or by chance.


def summary_sentences(content: Content) -> list[str]:
    """A sentence or two for each part that was measured."""
    results = content.results
    found = [_data(results), _masks(content), _classes(results), _weakest(results), _calibration(results)]
    found += [_maps(results), _robustness(results)]
    return [f"{words}." for words in found if words]


def chance_of(results: EvaluationResults) -> float | None:
    """Balanced accuracy of guessing: one by the classes that have an image; AUROC of guessing for several findings."""
    if results.setup.multi_label:
        return 0.5
    present = len(class_counts(results))
    return 1 / present if present else None


def tells_nothing(calibration: CalibrationResults) -> bool:
    """Whether a temperature is so far from 1 that it says nothing of confidence."""
    return any(value is not None and not EXTREME[0] <= value <= EXTREME[1] for value in calibration.used)


def wrong_at_most(images: int) -> str:
    """How many of all images may be wrong if of so many none was, by the rule of three: `up to about 25%`."""
    return f"up to about {min(3 / max(images, 1), 1):.0%}"


def _in_words(number: Measured) -> str:
    """`0.951 (95 % interval 0.948 to 0.954)`."""
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} (95 % interval {number.low:.3f} to {number.high:.3f})"


def _data(results: EvaluationResults) -> str:
    counts = count_words(results)
    images = format_images(results.setup.images)
    return f"Measured on {images}: {title_of(results)} ({counts or 'no class labels'})"


def _masks(content: Content) -> str:
    dice, values = content.results.headline("segmentation", "dice"), content.column("dice")
    if dice is None:
        return ""
    words = f"Predicted and true lungs overlap with a mean dice of {_in_words(dice)}"
    if values:
        words += f"; half of the images reach {statistics.median(values):.3f}, the worst {min(values):.3f}"
    infection = content.results.headline("segmentation", "infection_dice_infected")
    if infection is not None:
        words += f". Infections, where there are some, are found with a mean dice of {_in_words(infection)}"
    severity = content.results.headline("segmentation", "infection_severity_error")
    if severity is not None:
        words += f"; the infected share of the lungs is off by {_in_words(severity)} on average"
    false = content.results.headline("segmentation", "infection_false_positive")
    if false is not None:
        words += f". Of the images known to have no infection, a share of {_in_words(false)} is predicted to have some"
    return words


def _classes(results: EvaluationResults) -> str:
    if results.setup.multi_label:
        return _findings(results)
    accuracy, balanced = (results.headline("classification", name) for name in ("accuracy", "balanced_accuracy"))
    if accuracy is None:
        return ""
    words = f"The accuracy of the class, over images, is {_in_words(accuracy)}"
    counts, chance = class_counts(results), chance_of(results)
    if counts:
        most = max(counts.values()) / sum(counts.values())
        words += f"; always naming the most frequent class would reach {most:.3f}"
    if balanced is not None and chance is not None:
        words += f". The balanced accuracy is {_in_words(balanced)}, chance {chance:.3f}"
    return words


def _findings(results: EvaluationResults) -> str:
    """How well findings are told apart, and which one is told worst."""
    auroc, f1 = (results.headline("classification", name) for name in ("auroc", "f1"))
    if auroc is None:
        return ""
    words = (
        f"Images with a finding are ranked above those without it with a mean AUROC of {_in_words(auroc)}, chance 0.5"
    )
    if f1 is not None:
        words += f"; called at the operating points, findings reach a mean F1 of {_in_words(f1)}"
    found = {name: results.headline("classification", f"auroc_{name}") for name in results.setup.classes}
    values = {name: number.value for name, number in found.items() if number is not None and number.value is not None}
    if len(values) > 1:
        name = min(values, key=values.__getitem__)
        words += f". The weakest is {name} with an AUROC of {values[name]:.3f}"
    return words


def _weakest(results: EvaluationResults) -> str:
    """The class that is recognised least often, or what it means that none is ever wrong."""
    if results.setup.multi_label:
        return ""
    found = {name: results.headline("classification", f"sensitivity_{name}") for name in results.setup.classes}
    known = {name: number for name, number in found.items() if number is not None}
    values = {name: number.value for name, number in known.items() if number.value is not None}
    if values and min(values.values()) == 1:
        return (
            "Not one class is wrong. That says that no error was seen, not that there is none: of other images, "
            f"{wrong_at_most(sum(class_counts(results).values()))} may be wrong (rule of three)"
        )
    if len(set(values.values())) < 2:
        return ""
    name = min(values, key=values.__getitem__)
    return f"Of all classes, {name} is recognised least often: sensitivity {_in_words(known[name])}"


def _calibration(results: EvaluationResults) -> str:
    found = results.calibration
    before = found.before.get("ece") if found else None
    if found is None or before is None or before.value is None:
        return ""
    after = (found.after or {}).get("ece")
    what = (
        "The probabilities of findings and their frequencies"
        if results.setup.multi_label
        else "Confidence and accuracy"
    )
    words = f"{what} differ by {_in_words(before)} on average (ECE)"
    if tells_nothing(found):
        words += "; no temperature is told from images of which (almost) none is wrong, or (almost) all are"
    elif after is not None and after.value is not None:
        words += f", after temperature scaling by {_in_words(after)}"
    return words


def _maps(results: EvaluationResults) -> str:
    """Whether the maps prefer the lungs, and what a crop would hide."""
    first = next(iter(results.class_maps.values()), None)
    number = first.intervals.get("evidence_in_lungs") if first else None
    if first is None or number is None or number.value is None:
        return ""
    whole = first.evidence["all"]
    if whole.lung_area is None:
        return ""
    low, area = number.value if number.low is None else number.low, whole.lung_area
    prefers = "clearly " if low > area + CLEARLY else "hardly " if low > area else "do not "
    outside = f"; in {whole.outside:,} of {format_images(whole.n)} most of the evidence lies outside" if whole.n else ""
    flatters = number.value < 0.5 or low <= area + CLEARLY
    return (
        f"A share of {_in_words(number)} of the class maps' evidence lies in the lungs before any crop; a map that "
        f"knows nothing of lungs would have {area:.3f}. So the maps {prefers}prefer the lungs{outside}"
        + (": a map cropped to the lungs would look better than it is" if flatters else "")
    )


def _robustness(results: EvaluationResults) -> str:
    """The perturbation that costs most, each at its strongest."""
    falls: dict[str, tuple[float, float]] = {}
    curves = results.robustness.curves if results.robustness else {}
    for name, curve in curves.items():
        first, last = (_accuracy(curve.points[at]) if len(curve.points) > 1 else None for at in (0, -1))
        if first is not None and last is not None:
            falls[name] = first, last
    if not falls or results.robustness is None:
        return ""
    name, (first, last) = max(falls.items(), key=lambda item: item[1][0] - item[1][1])
    if last >= first:
        return "None of the perturbations tried lowers the balanced accuracy"
    return (
        f"Of the perturbations tried on {format_images(results.robustness.images)}, each at its strongest, {name} "
        f"hurts most: a balanced accuracy of {first:.3f} falls to {last:.3f} at {curves[name].points[-1].strength:g} "
        f"({curves[name].unit})"
    )


def _accuracy(point: RobustnessPoint) -> float | None:
    number = point.scores.get("balanced_accuracy")
    return number.value if number else None
