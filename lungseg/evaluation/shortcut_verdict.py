"""The verdict on the hide-and-seek test: whether a network can do without the lungs, by a rule that is told with it."""

import numpy as np

from lungseg.evaluation.intervals import Interval, bootstrap, numbers_of
from lungseg.evaluation.results import Flag, Verdict
from lungseg.evaluation.shortcut_study import REPLICATES, ShownImages, view_scores
from lungseg.evaluation.statistics import Floats, Statistic, divide

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


def verdict(shown: ShownImages, seed: int = 0) -> Verdict:
    """Judge by `RULE`.

    Args:
        shown: Of `measure_shortcuts`.
        seed: Of the bootstrap, which draws whole groups where they are known.
    """
    units = _independent(shown)
    present = [count for count in units.values() if count]
    if len(present) < 2 or min(present) < LEAST_UNITS:
        counts = ", ".join(f"{name} {count}" for name, count in units.items())
        few = f"too few to judge: {counts}; two classes and {LEAST_UNITS} images (or patients) of each are needed"
        return Verdict("unclear", [few], RULE, LIMITS, {})
    left = bootstrap(
        [_skill_left(shown)], len(shown.label), [sample.group for sample in shown.samples], REPLICATES, seed
    )
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
