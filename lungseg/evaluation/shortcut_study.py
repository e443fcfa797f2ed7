"""The hide-and-seek test: can the network tell the class without the lungs, and what does it know from them alone?

The verdict follows by a rule that is told with it.
Sadre et al., "Validating deep learning inference during chest X-ray classification for COVID-19 screening", Scientific
Reports 11:16075, 2021; DeGrave, Janizek, Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal",
Nature Machine Intelligence 3:610-619, 2021. The views are those of `shortcut_views`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.data.batch import Batch
from lungseg.data.sample import Sample
from lungseg.evaluation.classification import class_scores, ranking_scores
from lungseg.evaluation.intervals import Interval, bootstrap, numbers_of
from lungseg.evaluation.outputs import evidence_shares, lungs_of
from lungseg.evaluation.results import Flag, ShortcutResults, Verdict, ViewResults
from lungseg.evaluation.shortcut_views import MARGIN, VIEWS, keep, measure_distance
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, divide, means
from lungseg.evaluation.target import EvaluationTarget, show_images
from lungseg.runs.progress import no_word

DILATIONS = (0.0, MARGIN, 0.05, 0.1, 0.2)
"""Radii of the curves, shares of the side; `MARGIN` is that of the views `lungs` and `blanked`."""
REPLICATES = 2_000
SCORES = ("accuracy", "balanced_accuracy", "auroc", "true_class_prob")
"""`true_class_prob` is the mean probability of the true class."""
SHOWN_VIEWS: dict[str, tuple[float | None, Callable[[Tensor], Tensor]]] = {
    name: (None if name == "full" else MARGIN, kept) for name, kept in VIEWS.items()
} | {
    f"{name} {margin:g}": (margin, partial(VIEWS[name], margin=margin))
    for name in ("lungs", "blanked")
    for margin in DILATIONS
    if margin != MARGIN
}
"""By name, `full` first: the dilation of the lungs, and what is kept of an image."""
PASSES = len(SHOWN_VIEWS)  # Forward passes an image.

CLEARLY_LEFT, HARDLY_LEFT = 0.15, 0.3
"""Of the skill on full images: a shortcut surely leaves more than the first without the lungs; less than the second is
no sign. They lie apart so that small sets can clear a network, which one number between them could not."""
LEAST_SKILL = 0.1
"""By which the balanced accuracy on full images surely exceeds chance, or there is no skill to ask about."""
LEAST_UNITS = 10  # Images of each class, or groups of images where they are known; two classes at least.
RULE = (
    "Skill left without the lungs: (score with the lungs blanked - chance) / (score on full images - chance), for "
    "balanced accuracy (chance: 1 / classes) and for AUROC (chance: 0.5), with 95 % bootstrap intervals. 'shortcut': "
    f"of either, the lower end is above {CLEARLY_LEFT:g}. 'no sign': of both, the upper end is below {HARDLY_LEFT:g}. "
    "'unclear': all else, and where the test cannot be made: fewer than two classes, fewer than "
    f"{LEAST_UNITS} images (or patients) of a class, a balanced accuracy on full images not surely {LEAST_SKILL:g} "
    "above chance."
)
LIMITS = (
    "A flag says that this network tells the class where no lung is to be seen, not that the lungs have no say. On "
    "real X-rays an honest network does so too, to a degree: heart, devices, posture and the films' origin go with the "
    "disease, and so may the outline of what was blanked, above all where lungs are predicted. No sign is no proof: "
    "not seen is a shortcut that these images do not hold (judge on Val, which comes from where Train does), one "
    "inside the lungs, and one that the network heeds only beside lungs."
)


@dataclass(frozen=True)
class ShownImages:
    """What a verdict is found from: N images, all those with a label, lungs, and finite probabilities in every view."""

    classes: tuple[str, ...]
    samples: list[Sample]
    label: Integers  # (N,).
    lung_known: Flags  # (N,): the true lungs were hidden or shown; else those predicted on the full image.
    evidence_in_lungs: Floats
    """(N,) share of the predicted class's evidence on the full image; NaN where the map holds none."""
    lung_area: Floats  # (N,) share of the pixels: a uniform map's share of evidence.
    probs: dict[str, Floats]  # (N, C) in [0, 1] for each of `SHOWN_VIEWS`.
    scores: dict[str, dict[str, Interval]]  # `SCORES` for each of `SHOWN_VIEWS`; NaN where there is no image.
    left_out: dict[str, int]  # Other images by what they lack: `label`, `lungs`, `finite probabilities`.


def measure_shortcuts(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[ShortcutResults, ShownImages]:
    """Show the network the views of every labelled image; arguments as of `show_images`."""
    samples, rows = show_views(target, say, images)
    lacking = {
        "label": rows["label"] < 0,
        "lungs": rows["lung_area"] == 0,
        "finite probabilities": ~np.all([np.isfinite(rows[name]).all(axis=1) for name in SHOWN_VIEWS], axis=0),
    }
    # One set of images for all views: the verdict compares them, image by image.
    used = ~np.any(list(lacking.values()), axis=0)
    samples = [sample for sample, use in zip(samples, used, strict=True) if use]
    rows = {name: values[used] for name, values in rows.items()}
    shown = ShownImages(
        classes=target.classes,
        samples=samples,
        probs={name: rows[name] for name in SHOWN_VIEWS},
        scores={name: _intervals(rows[name], rows["label"], samples, target.classes) for name in SHOWN_VIEWS},
        left_out={name: int(np.count_nonzero(flags)) for name, flags in lacking.items()},
        **{name: rows[name] for name in ("label", "lung_known", "evidence_in_lungs", "lung_area")},
    )
    kept = {name: float(rows[f"{name} kept"].mean()) if samples else math.nan for name in SHOWN_VIEWS}
    views = {
        name: ViewResults(margin, kept[name], numbers_of(shown.scores[name]))
        for name, (margin, _) in SHOWN_VIEWS.items()
    }
    results = ShortcutResults(
        images=len(samples),
        left_out=shown.left_out,
        lungs_predicted=int((~shown.lung_known).sum()),
        views={name: views[name] for name in VIEWS},
        lungs_curve=[views["lungs" if margin == MARGIN else f"lungs {margin:g}"] for margin in DILATIONS],
        blanked_curve=[views["blanked" if margin == MARGIN else f"blanked {margin:g}"] for margin in DILATIONS],
    )
    return results, shown


def show_views(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[list[Sample], dict[str, NDArray[Any]]]:
    """The `PASSES` forward passes an image; arguments and result as of `show_images`."""
    study = f"hide-and-seek on {{}}, {PASSES} passes each"
    return show_images(target, lambda batch: _run_batch(target, batch), study, say, images)


def view_scores(class_probs: Floats, label: Integers, classes: tuple[str, ...]) -> Statistic:
    """`SCORES` of class_probs (N, C) against label (N,), both of images that have them."""
    truth = class_probs[np.arange(len(label)), label]
    statistics = (
        class_scores(class_probs, label, classes),
        ranking_scores(class_probs, label, classes),
        means({"true_class_prob": truth}),
    )

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = {name: value for part in statistics for name, value in part(weights).items()}
        return {name: scores[name] for name in SCORES}

    return statistic


def _run_batch(target: EvaluationTarget, batch: Batch) -> dict[str, Tensor]:
    """Everything measured of a batch, a row an image; class probabilities (B, C) by the name of the view."""
    images = batch["image"]
    rows: dict[str, Tensor] = {}
    with torch.no_grad():
        output = target.network(images)
        lung = lungs_of(batch, output)
        distance = measure_distance(lung)
        for name, (_, kept_of) in SHOWN_VIEWS.items():
            kept = kept_of(distance)
            # keeping all of an image changes nothing, so the pass above serves as that of the full view
            logits = output.class_logits if name == "full" else target.network.classify(keep(images, kept))
            rows[name] = logits.double().softmax(1)
            rows[f"{name} kept"] = kept.double().mean(dim=(1, 2))
    rows["evidence_in_lungs"] = evidence_shares(output, lung, target.network.stride)
    rows["lung_area"] = lung.double().mean(dim=(1, 2))
    rows["label"] = torch.where(batch["has_label"], batch["label"], -1)
    return rows | {"lung_known": batch["has_lung"]}


def _intervals(probs: Floats, label: Integers, samples: list[Sample], classes: tuple[str, ...]) -> dict[str, Interval]:
    if not samples:
        return dict.fromkeys(SCORES, Interval(math.nan, math.nan, math.nan, 0))
    groups = [sample.group for sample in samples]
    return bootstrap([view_scores(probs, label, classes)], len(samples), groups, REPLICATES)


def verdict(shown: ShownImages) -> Verdict:
    """Judge by `RULE` what `measure_shortcuts` found."""
    units = _independent(shown)
    present = [count for count in units.values() if count]
    if len(present) < 2 or min(present) < LEAST_UNITS:
        counts = ", ".join(f"{name} {count}" for name, count in [*units.items()][:20])
        counts += f", and {len(units) - 20} more classes" if len(units) > 20 else ""
        few = f"too few to judge: {counts}; two classes and {LEAST_UNITS} images (or patients) of each are needed"
        return Verdict("unclear", [few], RULE, LIMITS, {})
    left = bootstrap([_skill_left(shown)], len(shown.label), [sample.group for sample in shown.samples], REPLICATES)
    chance, full = 1 / len(present), shown.scores["full"]["balanced_accuracy"]
    reasons = [*_decisive(shown, left), *_circumstances(shown)]
    if not full.low > chance + LEAST_SKILL:
        unskilled = (
            f"on full images the balanced accuracy is {_words(full)}, chance {chance:.2f}: too little skill on these "
            "images to ask where it comes from (a shortcut that training images hold and these do not looks so)"
        )
        return Verdict("unclear", [unskilled, *reasons], RULE, LIMITS, numbers_of(left))
    flag: Flag = "unclear"
    if any(interval.low > CLEARLY_LEFT for interval in left.values()):
        flag = "shortcut"
    elif all(interval.high < HARDLY_LEFT for interval in left.values()):
        flag = "no sign"
    return Verdict(flag, reasons, RULE, LIMITS, numbers_of(left))


def _independent(shown: ShownImages) -> dict[str, int]:
    """How many images of each class there are, those of one group counted once."""
    units: dict[str, set[str]] = {name: set() for name in shown.classes}
    for label, sample in zip(shown.label, shown.samples, strict=True):
        units[shown.classes[label]].add(f"image {sample.id}" if sample.group is None else f"group {sample.group}")
    return {name: len(names) for name, names in units.items()}


def _skill_left(shown: ShownImages) -> Statistic:
    """Share of the skill on full images that is left with the lungs blanked; undefined where full images show none."""
    one_hot = np.eye(len(shown.classes))[shown.label]
    full, blanked = (view_scores(shown.probs[name], shown.label, shown.classes) for name in ("full", "blanked"))

    def statistic(weights: Floats) -> dict[str, Floats]:
        with_lungs, without = full(weights), blanked(weights)
        present = np.count_nonzero(weights @ one_hot, axis=1)
        ones = np.ones(len(weights))
        chances = {"balanced_accuracy": divide(ones, present.astype(np.float64)), "auroc": ones / 2}
        left = {}
        for score, chance in chances.items():
            skill = with_lungs[score] - chance
            left[score] = divide(without[score] - chance, np.where(skill > 0, skill, 0.0))
        return left

    return statistic


def _decisive(shown: ShownImages, left: dict[str, Interval]) -> list[str]:
    """What the rule looks at, the score with more skill left first."""
    words = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
    full, blanked = (shown.scores[name] for name in ("full", "blanked"))
    return [
        f"with the lungs blanked, {words[score]} {_words(blanked[score])}, on full images {_words(full[score])}: "
        f"{_words(left[score])} of the skill is left"
        for score in sorted(left, key=lambda name: -np.nan_to_num(left[name].low))
    ]


def _circumstances(shown: ShownImages) -> list[str]:
    """What else a reader wants to know; none of it decides."""
    scores = {name: intervals["balanced_accuracy"] for name, intervals in shown.scores.items()}
    lungs, box, border = (scores[name] for name in ("lungs", "box", "border"))
    said = [
        f"the lungs alone give a balanced accuracy of {_words(lungs)}"
        + (", less than all but the lungs" if lungs.high < scores["blanked"].low else ""),
        f"all outside the lungs' bounding box gives {_words(box)}, the border alone {_words(border)}",
    ]
    evidence_of = shown.evidence_in_lungs[~np.isnan(shown.evidence_in_lungs)]
    if len(evidence_of):
        evidence, area = float(evidence_of.mean()), float(shown.lung_area.mean())
        near = "no more than" if evidence <= area else "more than"
        said.append(
            f"{evidence:.2f} of the evidence lies in the lungs, {near} the {area:.2f} of a uniform map"
            + (" (no proof: what a map shows in the lungs may be seen from beyond them)" if evidence > area else "")
        )
    if predicted := int(np.count_nonzero(~shown.lung_known)):
        said.append(f"of {predicted} of {len(shown.label)} images the lungs are predicted: disease may change them")
    said += [f"{count} images without {what} are left out" for what, count in shown.left_out.items() if count]
    return said


def _words(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
