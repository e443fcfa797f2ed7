"""What an evaluation found, typed: the content of metrics.json, which every table, chart and page is made from.

None stands for a number that is undefined, and for a part that was not measured. `plain_data.to_plain` gives the
dictionary that metrics.json holds, `read_results` reads it back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungseg.errors import UserError
from lungseg.evaluation.intervals import Number, Numbers
from lungseg.evaluation.plain_data import from_plain, stored
from lungseg.evaluation.study_results import ClassMapResults, RobustnessResults, ShortcutResults, Verdict

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class EvaluationSetup:
    """What was evaluated, on what, with what; no path of an image."""

    checkpoint: str
    """Path of the file."""
    checkpoint_digest: str
    split: str
    """`test`, `val`, or `all` of another data set."""
    images: int
    data_name: str
    """What the data set is called, without the path to it."""
    origin: str
    """`own`, `changed` or `other`: whether these are the data of the training."""
    data: dict[str, Any]
    """The config section."""
    data_fingerprint: str | None
    classes: list[str]
    class_images: dict[str, int]
    """Images by true class."""
    network: dict[str, Any]
    """The config section `model`, and the number of `parameters`."""
    target: str
    """Whose class maps: of the class `predicted`, or of the true one (`label`)."""
    bootstraps: int
    """Resamples behind every interval."""
    versions: dict[str, str | None]
    """Of Python and of packages."""
    devices: list[str]
    git_revision: str | None
    lungseg: str
    """Version."""
    date: str
    """ISO 8601, in UTC."""


@dataclass(frozen=True)
class MaskCounts:
    """How many images the rules for empty masks and unknown pixel spacings touch."""

    images: int
    """Images with a true mask."""
    empty_truth: int
    empty_prediction: int
    both_empty: int
    surface_undefined: int
    spacing_unknown: int


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of the reliability diagram."""

    low: float
    """Lower edge; the upper one is the next bin's."""
    images: int
    confidence: float | None
    """Mean probability of the predicted class; None in an empty bin."""
    accuracy: float | None
    """Share of right predictions; None in an empty bin."""


@dataclass(frozen=True)
class CalibrationResults:
    """Whether probabilities are frequencies, before and after temperature scaling."""

    temperature: float | None
    """Kept with the model."""
    used: list[float | None]
    """Applied here: one, two where Val is measured by halves, none where nothing is known."""
    fitted_on: str
    """In words; empty where no temperature is known."""
    before: Numbers
    """`ece`, `ece_classwise`, `brier` of the probabilities as they are."""
    reliability: list[ReliabilityBin]
    after: Numbers | None = field(default=None, metadata=stored(none_as="nothing"))
    """After temperature scaling; None, as `reliability_after`, without a temperature."""
    reliability_after: list[ReliabilityBin] | None = field(default=None, metadata=stored(none_as="nothing"))


@dataclass(frozen=True)
class CurvePoints:
    """Points of a curve from the strictest threshold on."""

    x: list[float]
    y: list[float]
    threshold: list[float | None]
    """None at the first point, where nothing is called positive."""


@dataclass(frozen=True)
class Curves:
    """Curves of each class against the rest, by class, where they are defined."""

    roc: dict[str, CurvePoints] = field(default_factory=dict)
    """False against true positive rate."""
    precision_recall: dict[str, CurvePoints] = field(default_factory=dict)
    """Recall against precision."""


@dataclass(frozen=True)
class OperatingPoints:
    """Each class against the rest at the thresholds that reach a sensitivity on other images."""

    sensitivity_wanted: float
    chosen_on: str
    """Images that the thresholds were chosen on, in words."""
    thresholds: dict[str, list[float | None]]
    """By class; two where Val is measured by halves."""
    scores: Numbers
    """`sensitivity_at_threshold_CLASS`, and so for `specificity` and `precision`."""


@dataclass(frozen=True)
class ScoreboardRow:
    """A number of this run or of a paper."""

    what: str
    value: float | None
    """None where this run has no such number; `data` then says why."""
    low: float | None
    high: float | None
    """None, as `low`, of published numbers."""
    data: str
    """What it was measured on."""
    source: str
    published: bool


@dataclass(frozen=True)
class EvaluationResults:
    """Everything of metrics.json. A section of numbers is empty where nothing could be measured for it."""

    setup: EvaluationSetup = field(metadata=stored("what"))
    segmentation: Numbers = field(default_factory=dict)
    """Of the lung masks, and as `infection_...` of the infection masks."""
    mask_counts: dict[str, MaskCounts] = field(default_factory=dict)
    """By kind: `lung`, `infection`."""
    classification: Numbers = field(default_factory=dict)
    calibration: CalibrationResults | None = field(default=None, metadata=stored(none_as="empty"))
    confusion: list[list[int]] = field(default_factory=list)
    """Images, rows true, columns predicted."""
    curves: Curves = field(default_factory=Curves)
    operating_points: OperatingPoints | None = field(default=None, metadata=stored(none_as="empty"))
    class_maps: dict[str, ClassMapResults] = field(default_factory=dict)
    """By CAM method, `NAME` or `NAME@LAYER`; per_image.csv and the pictures hold the first."""
    shortcuts: ShortcutResults | None = None
    robustness: RobustnessResults | None = None
    verdict: Verdict | None = None
    scoreboard: list[ScoreboardRow] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list, metadata=stored("notes"))
    """What was left out or is undefined, and how to read a number: a sentence each."""

    def headline(self, section: str, name: str) -> Number | None:
        """A number of `segmentation` or `classification` that was measured and is defined."""
        numbers = {"segmentation": self.segmentation, "classification": self.classification}[section]
        number = numbers.get(name)
        return None if number is None or number.value is None else number


def read_results(folder: Path) -> EvaluationResults:
    """Read the metrics.json of an evaluation's folder.

    Raises:
        FileNotFoundError: It is not there.
        UserError: It is no JSON, or of another version.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; `python -m lungseg.evaluate --checkpoint RUN` writes it")
    try:
        plain = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is no JSON ({error}); evaluate again") from None
    return from_plain(EvaluationResults, plain, str(path))
