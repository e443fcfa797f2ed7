"""This run beside the published numbers, each with the data it was measured on.

They stand in one table because readers compare them, not because they are comparable: the data differ, and so may the
way of averaging, which the papers do not all give. The accuracy of the paper is a case of its own: its sentence gives
97.72 % to "the U-Net model", which may mean pixels or images, so no row of this run stands under the same name.

Infection scores have two conventions that must not be compared: over images with infection alone, or over all, two
empty masks counting as 1. The published 0.8821 and 0.8305 are 0.764 and 0.661 by the first if as many images have none
and all of these score 1; other networks reach about that on its images with infection (MedSegBench: 0.756 and 0.647).
"""

from dataclasses import dataclass
from typing import NamedTuple

from lungseg.evaluation.intervals import Numbers

PAPER = "Schraut et al., Discover Artificial Intelligence 3 (2023), doi 10.1007/s44163-022-00045-1"
TAHIR = "Tahir et al., Comput. Biol. Med. 139:105002 (2021), best network"
_PAPER_DATA = "COVID-QU-Ex, test data"
_TAHIR_DATA = "COVID-QU-Ex"
NOT_MEASURED = "not measured"
HEADLINES = (
    ("segmentation", "dice", "Lung dice, mean over images"),
    ("segmentation", "dice_global", "Lung dice, over all pixels"),
    ("segmentation", "iou", "Lung IoU, mean over images"),
    ("segmentation", "pixel_accuracy", "Pixel accuracy of the lung mask"),
    ("segmentation", "hd95_px", "95 % Hausdorff distance, pixels"),
    ("segmentation", "hd95_mm", "95 % Hausdorff distance, mm"),
    ("segmentation", "asd_px", "Average surface distance, pixels"),
    ("segmentation", "asd_mm", "Average surface distance, mm"),
    ("segmentation", "infection_dice_infected", "Infection dice, mean over images with infection"),
    ("segmentation", "infection_iou_infected", "Infection IoU, mean over images with infection"),
    ("segmentation", "infection_dice", "Infection dice, two empty masks count as 1"),
    ("segmentation", "infection_iou", "Infection IoU, two empty masks count as 1"),
    ("segmentation", "infection_false_positive", "False infection, share of images without any"),
    ("segmentation", "infection_false_share", "False infection there, share of the lungs"),
    ("segmentation", "infection_severity_error", "Severity (infected share of lungs), mean error"),
    ("segmentation", "infection_severity_spearman", "Severity, Spearman correlation"),
    ("classification", "accuracy", "Accuracy of the class, images"),
    ("classification", "balanced_accuracy", "Balanced accuracy"),
    ("classification", "f1", "F1, mean over classes"),
    ("classification", "auroc", "AUROC, mean over classes"),
    ("classification", "average_precision", "Average precision, mean over classes"),
)
"""Section, name and title of the numbers of the summary and of the LaTeX table."""


@dataclass(frozen=True)
class ScoreboardRow:
    """A number of this run or of a paper."""

    what: str
    value: float | None  # None where this run has no such number; `data` then says why.
    low: float | None
    high: float | None  # None, as `low`, of published numbers.
    data: str  # What it was measured on.
    source: str
    published: bool


class Own(NamedTuple):
    """A number of this run."""

    what: str
    section: str
    name: str
    lacking: str  # Why it may not be there.


def _published(what: str, value: float, data: str, source: str) -> ScoreboardRow:
    return ScoreboardRow(what, value, None, None, data, source, published=True)


_NO_LUNGS = "no image has a lung mask"
_NO_LABELS = "no image has a class label"
_NO_INFECTION = "the network predicts no infection, or no image has an infection mask"
_TWO_EMPTY = "two empty masks count as 1"
_READ_AS = "probably with two empty masks as 1"
_READ = "{} over images with infection gives it if as many have none and all of these score 1"
BOARD: tuple[Own | ScoreboardRow, ...] = (
    Own("lung dice, mean over images", "segmentation", "dice", _NO_LUNGS),
    Own("lung dice, over all pixels", "segmentation", "dice_global", _NO_LUNGS),
    _published("lung dice, as published", 0.9691, _PAPER_DATA, PAPER),
    _published("lung dice, as published", 0.9799, _TAHIR_DATA, TAHIR),
    Own("lung IoU, mean over images", "segmentation", "iou", _NO_LUNGS),
    Own("lung IoU, over all pixels", "segmentation", "iou_global", _NO_LUNGS),
    _published("lung IoU, as published", 0.9611, _TAHIR_DATA, TAHIR),
    Own("pixel accuracy of the lung mask", "segmentation", "pixel_accuracy", _NO_LUNGS),
    Own("image accuracy of the class", "classification", "accuracy", _NO_LABELS),
    _published("accuracy of pixels or of images, the paper leaves open which", 0.9772, _PAPER_DATA, PAPER),
    Own("infection dice, mean over images with infection", "segmentation", "infection_dice_infected", _NO_INFECTION),
    Own("infection dice, over all pixels", "segmentation", "infection_dice_global", _NO_INFECTION),
    Own(f"infection dice, {_TWO_EMPTY}", "segmentation", "infection_dice", _NO_INFECTION),
    _published(f"infection dice, as published, {_READ_AS}", 0.8821, f"{_TAHIR_DATA}; {_READ.format(0.764)}", TAHIR),
    Own("infection IoU, mean over images with infection", "segmentation", "infection_iou_infected", _NO_INFECTION),
    Own("infection IoU, over all pixels", "segmentation", "infection_iou_global", _NO_INFECTION),
    Own(f"infection IoU, {_TWO_EMPTY}", "segmentation", "infection_iou", _NO_INFECTION),
    _published(f"infection IoU, as published, {_READ_AS}", 0.8305, f"{_TAHIR_DATA}; {_READ.format(0.661)}", TAHIR),
)
"""Rows in the order shown."""


def scoreboard(segmentation: Numbers, classification: Numbers, data: str) -> list[ScoreboardRow]:
    """The rows of the table in the order of `BOARD`, published numbers without an interval.

    The first two arguments are sections of the results; `data` says in words what this run was measured on.
    """
    sections = {"segmentation": segmentation, "classification": classification}

    def row_of(entry: Own) -> ScoreboardRow:
        number = sections[entry.section].get(entry.name)
        if number is None:
            why = f"{NOT_MEASURED}: {entry.lacking}"
            return ScoreboardRow(entry.what, None, None, None, why, "this run", published=False)
        words, infected = data, segmentation.get("infection_dice_infected")
        if number.images is not None and entry.name.startswith("infection_"):
            words += f", {number.images} of them scored"
            if not entry.name.endswith("_infected") and infected is not None and infected.images is not None:
                words += f", {number.images - infected.images} of these without infection"
        return ScoreboardRow(entry.what, number.value, number.low, number.high, words, "this run", published=False)

    return [entry if isinstance(entry, ScoreboardRow) else row_of(entry) for entry in BOARD]
