"""Typed results of what is asked beyond the scores: class maps, their faithfulness, shortcuts, robustness.

They are sections of `results.EvaluationResults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lungseg.evaluation.intervals import Numbers

Flag = Literal["shortcut", "no sign", "unclear"]


@dataclass(frozen=True)
class EvidenceSummary:
    """Means over the images whose class map holds evidence, and counts."""

    evidence_in_lungs: float | None
    lung_area: float | None
    """Share of the pixels, which is also a uniform map's evidence in the lungs."""
    peak_in_lungs: float | None
    outside: int
    """Images most of whose evidence lies outside the lungs."""
    n: int
    """Images with evidence."""
    no_evidence: int


@dataclass(frozen=True)
class FaithfulnessResults:
    """Whether class maps say what the network does: mean areas and curves, as in `cam.faithfulness`."""

    images: int
    deletion_area: float
    insertion_area: float
    random_deletion_area: float
    random_insertion_area: float
    intervals: Numbers
    """Of the areas, and of `deletion_gain` and `insertion_gain` over a misplaced map."""
    randomisation: dict[str, float | None]
    """Rank correlation with the map as it was, by the stage down to which the network was unlearned."""
    deletion_curve: list[float]
    insertion_curve: list[float]
    random_deletion_curve: list[float]
    random_insertion_curve: list[float]


@dataclass(frozen=True)
class ClassMapResults:
    """Everything measured of the maps of one CAM method."""

    evidence: dict[str, EvidenceSummary]
    """Of `all` images and of each true class."""
    localisation: dict[str, dict[str, dict[str, float | None]]]
    """Mean scores and counts (`LocalisationScores.compute`) against `infection`, `infection_in_lungs` (maps cropped
    first) and `lungs`; of `all` images, each class, each `lesion_SIZE`."""
    tuned_threshold: dict[str, list[float]]
    """Share of a map's maximum at which `iou_tuned` is best, by what it is measured against; two for halves."""
    intervals: Numbers
    """Means of the evidence and localisation scores, as `evidence_in_lungs`, `infection_hit_Normal`."""
    faithfulness: FaithfulnessResults | None


@dataclass(frozen=True)
class ViewResults:
    """What the network makes of images of which it is shown a part, or of which one is hidden."""

    margin: float | None
    """Dilation of the lungs, a share of the side; None where none comes in."""
    kept: float | None
    """Mean share of the pixels that is shown."""
    scores: Numbers
    """`accuracy`, `balanced_accuracy`, `auroc`, `true_class_prob`."""


@dataclass(frozen=True)
class ShortcutResults:
    """The hide-and-seek test: what the network knows without the lungs, and from them alone."""

    images: int
    left_out: dict[str, int]
    """Images by what they lack: `label`, `lungs`, `finite probabilities`."""
    lungs_predicted: int
    """Images whose true lungs are not known: those that the network predicts are hidden or shown."""
    views: dict[str, ViewResults]
    """`full`, `lungs`, `blanked`, `box`, `border`: the keys of `shortcut.regions.VIEWS`."""
    lungs_curve: list[ViewResults]
    """The lungs alone, dilated further and further."""
    blanked_curve: list[ViewResults]
    """The same dilated lungs hidden."""


@dataclass(frozen=True)
class Verdict:
    """What follows from the hide-and-seek test, and why."""

    flag: Flag
    reasons: list[str]
    """A sentence each; the first one decides."""
    rule: str
    """How the flag follows."""
    limits: str
    """What it does not say."""
    skill_left: Numbers
    """Without the lungs, `balanced_accuracy` and `auroc`: 0 is chance, 1 what full images give."""


@dataclass(frozen=True)
class RobustnessPoint:
    """The network on images changed with one strength."""

    strength: float
    """0 leaves the images as they are."""
    scores: Numbers
    """`accuracy`, `balanced_accuracy`, `dice`, `evidence_in_lungs`, `flipped` (share of predictions that change)."""
    flipped_to: dict[str, int]
    """Predictions that change, by the class that they change to."""


@dataclass(frozen=True)
class RobustnessCurve:
    """One perturbation from strength 0 to its strongest."""

    unit: str
    """What a strength means."""
    points: list[RobustnessPoint]


@dataclass(frozen=True)
class RobustnessResults:
    """How the network stands up to worse images."""

    images: int
    left_out: int
    """Images whose class probabilities were not finite at some strength."""
    curves: dict[str, RobustnessCurve]
    """By the names of `perturbations.PERTURBATIONS`."""
