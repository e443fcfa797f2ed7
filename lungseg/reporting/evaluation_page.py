"""The page of an evaluation; what is said around its numbers stands in the template."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from lungseg.evaluation.intervals import Numbers
from lungseg.evaluation.results import EvaluationResults
from lungseg.reporting.chart_files import Chart
from lungseg.reporting.evaluation_files import Content
from lungseg.reporting.formatting import LOCALISATION_COLUMNS, class_counts, headlines, title_of
from lungseg.reporting.gallery import gallery_values
from lungseg.reporting.pages import render
from lungseg.reporting.sentences import summary_sentences, wrong_at_most

FLAGS = {
    "shortcut": "Shortcut: the network tells the class where no lung is to be seen",
    "no sign": "No sign of a shortcut in this test",
    "unclear": "Unclear: the shortcut test does not decide",
}
PATHS = ("root", "cache_dir", "dir")  # Keys of the config whose values, names of folders, stay out of the page.


def evaluation_page(content: Content, charts: Mapping[str, Sequence[Chart]], folder: Path, names: bool = False) -> str:
    """The page as HTML.

    Args:
        content: What is shown.
        charts: Of `evaluation_charts`.
        folder: The evaluation's, which holds `images/`.
        names: Whether ids of images (names of files) and groups (patients) are put into the page.
    """
    results, path = content.results, PurePath(content.results.setup.checkpoint)
    groups = ["", *(name for name in results.setup.classes if f"dice_{name}" in results.segmentation)]
    never_wrong = min(_images_never_wrong(results), default=0)
    return render(
        "evaluation.html.jinja",
        title=f"Evaluation: {title_of(results)}",
        results=results,
        sentences=summary_sentences(content),
        headlines=headlines(results),
        flag=FLAGS[results.verdict.flag] if results.verdict else "",
        charts=charts,
        mask_groups=groups,
        class_numbers=results.classification | _calibration_numbers(results),
        never_wrong=never_wrong,
        may_be_wrong=wrong_at_most(never_wrong),
        localisation=LOCALISATION_COLUMNS,
        studies={name: maps.faithfulness for name, maps in results.class_maps.items() if maps.faithfulness},
        gallery=gallery_values(content, folder, names),
        pairs=_pairs,
        # the run's name and the file's: no folder above them
        checkpoint="/".join(part for part in path.parts[-3:] if part not in ("checkpoints", "/")),
    )


def _images_never_wrong(results: EvaluationResults) -> list[int]:
    """Images of each class with a sensitivity of 1, whose interval says too much."""
    numbers = {name: results.classification.get(f"sensitivity_{name}") for name in results.setup.classes}
    perfect = {name for name, number in numbers.items() if number and number.value == number.low == 1}
    return [count for name, count in class_counts(results).items() if name in perfect]


def _calibration_numbers(results: EvaluationResults) -> Numbers:
    found = results.calibration
    if found is None:
        return {}
    scaled = {f"{name} after temperature scaling": number for name, number in (found.after or {}).items()}
    return found.before | scaled


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text, what is empty left out."""
    known = {name: value for name, value in values.items() if name not in PATHS and value not in (None, "", [])}
    return [(name, _plain(value)) for name, value in known.items()]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items() if name not in PATHS)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
