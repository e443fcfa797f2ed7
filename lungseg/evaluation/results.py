"""What an evaluation found, typed: the content of metrics.json, which every table, chart and page is made from.

None stands for a number that is undefined, and for a part that was not measured. `saved.to_plain` gives the dictionary
that metrics.json holds, `saved.read_results` reads it back.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from lungseg.evaluation.intervals import Number, Numbers
from lungseg.evaluation.scoreboard import ScoreboardRow

Flag = Literal["shortcut", "no sign", "unclear"]


@dataclass(frozen=True)
class EvaluationSetup:
    """What was evaluated, on what, with what; no path of an image."""

    checkpoint: str  # Path of the file.
    checkpoint_digest: str
    split: str  # `test`, `val`, or `all` of another data set.
    images: int
    data_name: str  # What the data set is called, without the path to it.
    data_origin: str
    """`own`, `changed` or `other`: whether these are the data of the training."""
    data: dict[str, Any]  # The config section.
    data_fingerprint: str | None
    classes: list[str]
    class_images: dict[str, int]  # Images by true class.
    network: dict[str, Any]
    """The config section `model`, and the number of `parameters`; of an `ensemble` that of the first, and of all."""
    map_class: str
    """Whose class maps: of the class `predicted`, or of the true one (`label`)."""
    bootstraps: int  # Resamples behind every interval.
    versions: dict[str, str | None]  # Of Python and of packages.
    devices: list[str]
    git_revision: str | None
    lungseg: str  # Version.
    date: str  # ISO 8601, in UTC.

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes, or none."""
        return bool(self.data.get("multi_label"))


@dataclass(frozen=True)
class MaskCounts:
    """How many images the rules for empty masks and unknown pixel spacings touch."""

    images: int  # Images with a true mask.
    empty_truth: int
    empty_prediction: int
    both_empty: int
    surface_undefined: int
    spacing_unknown: int


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of the reliability diagram."""

    low: float  # Lower edge; the upper one is the next bin's.
    images: int
    confidence: float | None  # Mean probability of the predicted class; None in an empty bin.
    accuracy: float | None  # Share of right predictions; None in an empty bin.


@dataclass(frozen=True)
class CalibrationResults:
    """Whether probabilities are frequencies, before and after temperature scaling."""

    temperature: float | None  # Kept with the model.
    used: list[float | None]  # Applied here: one, two where Val is measured by halves, none where nothing is known.
    fitted_on: str  # In words; empty where no temperature is known.
    before: Numbers  # `ece`, `ece_classwise`, `brier` of the probabilities as they are.
    reliability: list[ReliabilityBin]
    after: Numbers | None = None
    """After temperature scaling; None, as `reliability_after`, without a temperature."""
    reliability_after: list[ReliabilityBin] | None = None


@dataclass(frozen=True)
class CurvePoints:
    """Points of a curve from the strictest threshold on."""

    x: list[float]
    y: list[float]
    threshold: list[float | None]  # None at the first point, where nothing is called positive.


@dataclass(frozen=True)
class Curves:
    """Curves of each class against the rest, by class, where they are defined."""

    roc: dict[str, CurvePoints] = field(default_factory=dict)  # False against true positive rate.
    precision_recall: dict[str, CurvePoints] = field(default_factory=dict)  # Recall against precision.


@dataclass(frozen=True)
class OperatingPoints:
    """Each class against the rest at the thresholds that reach a sensitivity on other images."""

    sensitivity_wanted: float | None  # None: the thresholds of the highest F1.
    chosen_on: str  # Images that the thresholds were chosen on, in words.
    thresholds: dict[str, list[float | None]]  # By class; two where Val is measured by halves.
    scores: Numbers  # `sensitivity_at_threshold_CLASS`, and so for `specificity`, `precision` and `f1`.


@dataclass(frozen=True)
class AbstentionResults:
    """Where one class is not named: sets of classes, and images that are left to a person (`evaluation.class_sets`)."""

    coverage_wanted: float  # Of the sets, for each class.
    chosen_on: str  # Images that the sets were chosen on, in words; empty where there are none.
    least_probability: dict[str, list[float | None]]  # By class; two where Val is measured by halves.
    sets: Numbers  # `set_coverage`, `set_size`, `set_single`, of all images and each class; empty without sets.
    selective: Numbers  # `risk_coverage_area`, `accuracy_answered_80`, ...
    answered: CurvePoints  # Share of images answered against their accuracy.


@dataclass(frozen=True)
class EvidenceSummary:
    """Means over the images whose class map holds evidence, and counts."""

    evidence_in_lungs: float | None
    lung_area: float | None  # Share of the pixels, which is also a uniform map's evidence in the lungs.
    peak_in_lungs: float | None
    outside: int  # Images most of whose evidence lies outside the lungs.
    n: int  # Images with evidence.
    no_evidence: int


@dataclass(frozen=True)
class FaithfulnessResults:
    """Whether class maps say what the network does: mean areas and curves, as in `cam.faithfulness`."""

    images: int
    deletion_area: float
    insertion_area: float
    random_deletion_area: float
    random_insertion_area: float
    intervals: Numbers  # Of the areas, and of `deletion_gain` and `insertion_gain` over a misplaced map.
    randomisation: dict[str, float | None]
    """Rank correlation with the map as it was, by the stage down to which the network was unlearned."""
    deletion_curve: list[float]
    insertion_curve: list[float]
    random_deletion_curve: list[float]
    random_insertion_curve: list[float]


@dataclass(frozen=True)
class ClassMapResults:
    """Everything measured of the maps of one CAM method."""

    evidence: dict[str, EvidenceSummary]  # Of `all` images and of each true class.
    localisation: dict[str, dict[str, dict[str, float | None]]]
    """Mean scores and counts (`LocalisationScores.compute`) against `infection`, `infection_in_lungs` (maps cropped
    first) and `lungs`; of `all` images, each class, each `lesion_SIZE`."""
    tuned_threshold: dict[str, list[float]]
    """Share of a map's maximum at which `iou_tuned` is best, by what it is measured against; two for halves."""
    intervals: Numbers  # Means of the evidence and localisation scores, as `evidence_in_lungs`, `infection_hit_Normal`.
    faithfulness: FaithfulnessResults | None


@dataclass(frozen=True)
class ViewResults:
    """What the network makes of images of which it is shown a part, or of which one is hidden."""

    margin: float | None  # Dilation of the lungs, a share of the side; None where none comes in.
    kept: float | None  # Mean share of the pixels that is shown.
    scores: Numbers  # `accuracy`, `balanced_accuracy`, `auroc`, `true_class_prob`.


@dataclass(frozen=True)
class ShortcutResults:
    """The hide-and-seek test: what the network knows without the lungs, and from them alone."""

    images: int
    left_out: dict[str, int]  # Images by what they lack: `label`, `lungs`, `finite probabilities`.
    lungs_predicted: int  # Images whose true lungs are not known: those that the network predicts are hidden or shown.
    views: dict[str, ViewResults]  # `full`, `lungs`, `blanked`, `box`, `border`: the keys of `shortcut_views.VIEWS`.
    lungs_curve: list[ViewResults]  # The lungs alone, dilated further and further.
    blanked_curve: list[ViewResults]  # The same dilated lungs hidden.


@dataclass(frozen=True)
class Verdict:
    """What follows from the hide-and-seek test, and why."""

    flag: Flag
    reasons: list[str]  # A sentence each; the first one decides.
    rule: str  # How the flag follows.
    limits: str  # What it does not say.
    skill_left: Numbers  # Without the lungs, `balanced_accuracy` and `auroc`: 0 is chance, 1 what full images give.


@dataclass(frozen=True)
class RobustnessPoint:
    """The network on images changed with one strength."""

    strength: float  # 0 leaves the images as they are.
    scores: Numbers
    """`accuracy`, `balanced_accuracy`, `dice`, `evidence_in_lungs`, `flipped` (share of predictions that change)."""
    flipped_to: dict[str, int]  # Predictions that change, by the class that they change to.


@dataclass(frozen=True)
class RobustnessCurve:
    """One perturbation from strength 0 to its strongest."""

    unit: str  # What a strength means.
    points: list[RobustnessPoint]


@dataclass(frozen=True)
class RobustnessResults:
    """How the network stands up to worse images."""

    images: int
    left_out: int  # Images whose class probabilities were not finite at some strength.
    curves: dict[str, RobustnessCurve]  # By the names of `robustness.PERTURBATIONS`.


@dataclass(frozen=True)
class EvaluationResults:
    """Everything of metrics.json. A section of numbers is empty where nothing could be measured for it."""

    setup: EvaluationSetup
    segmentation: Numbers = field(default_factory=dict)
    """Of the lung masks, and as `infection_...` of the infection masks."""
    mask_counts: dict[str, MaskCounts] = field(default_factory=dict)  # By kind: `lung`, `infection`.
    classification: Numbers = field(default_factory=dict)
    calibration: CalibrationResults | None = None
    confusion: list[list[int]] = field(default_factory=list)  # Images, rows true, columns predicted.
    curves: Curves = field(default_factory=Curves)
    operating_points: OperatingPoints | None = None
    abstention: AbstentionResults | None = None  # None where an image may have several classes.
    class_maps: dict[str, ClassMapResults] = field(default_factory=dict)
    """By CAM method, `NAME` or `NAME@LAYER`; per_image.csv and the pictures hold the first."""
    map_baselines: dict[str, Numbers] = field(default_factory=dict)
    """Scores against the infection of what needs no class map: `lungs` as a map, and `predicted_infection` as one."""
    shortcuts: ShortcutResults | None = None
    robustness: RobustnessResults | None = None
    verdict: Verdict | None = None
    scoreboard: list[ScoreboardRow] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    """What was left out or is undefined, and how to read a number: a sentence each."""

    def headline(self, section: str, name: str) -> Number | None:
        """A number of `segmentation` or `classification` that was measured and is defined."""
        number: Number | None = getattr(self, section).get(name)
        return None if number is None or number.value is None else number
