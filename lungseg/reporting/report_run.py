"""A run measured and reported in one call: what `python -m lungseg.evaluate` does, and `fit` at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lungseg.evaluation.distributed import ALONE, ProcessGroup
from lungseg.evaluation.evaluator import Options, assist, evaluate
from lungseg.evaluation.intervals import Numbers
from lungseg.evaluation.outputs import check_cam_methods
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.target import load_target
from lungseg.reporting.chart_files import Chart, write_figures
from lungseg.reporting.evaluation_charts import evaluation_charts
from lungseg.reporting.evaluation_files import Content, PictureWriter, read_content
from lungseg.reporting.formatting import (
    LESIONS,
    LOCALISATION_COLUMNS,
    SIZE_COLUMNS,
    class_counts,
    confusion_names,
    headlines,
    localisation_rows,
    of_main_classes,
    results_latex,
    title_of,
)
from lungseg.reporting.gallery import gallery_values
from lungseg.reporting.pages import render
from lungseg.reporting.sentences import summary_sentences, wrong_at_most
from lungseg.runs.progress import Progress
from lungseg.runs.whole_files import write_text

AFTER_TRAINING = Options(shortcuts=300, robustness=100, faithfulness=30)
"""Fewer images through the studies that show the network each image many times; `evaluate` takes more."""

_PATHS = ("root", "cache_dir", "dir")  # Keys of the config whose values, names of folders, stay out of the page.


class Reported(NamedTuple):
    """An evaluation that is written."""

    results: EvaluationResults
    folder: Path
    page: Path | None  # report.html; None if it was not asked for.


def report_run(
    run: Path,
    words: Sequence[str] = (),
    split: str | None = None,
    options: Options | None = None,
    output: Path | None = None,
    page: bool = True,
    processes: ProcessGroup = ALONE,
) -> Reported:
    """Evaluate a run and write everything that a reader is given.

    Args:
        run: A run folder, or a .ckpt file in one.
        words: `data.key=value` over the run's config.
        split: As of `load_target`.
        options: How much is measured; None: the defaults.
        output: Folder; None: `EvaluationTarget.output`.
        page: Whether report.html, its pictures, the LaTeX table and the figures are wanted.
        processes: Shares the forward passes, its other processes calling `assist_run`; by default there are none.

    Raises:
        UserError: As of `load_target` and `evaluate`.
        FileNotFoundError: No checkpoint, or no config beside it.
    """
    options = options or Options()
    progress = Progress()
    target = load_target(run, words, split, progress.track, processes)
    check_cam_methods(target, options.cam_methods)
    processes.wait_for_zero()
    folder = output or target.output
    (folder / "report.html").unlink(missing_ok=True)  # of an earlier evaluation, whose numbers are replaced
    pictures = PictureWriter(folder) if page else None
    results = evaluate(target, options, folder, pictures.add if pictures else None, progress.say)
    if pictures is None:
        return Reported(results, folder, None)
    pictures.close()
    return Reported(results, folder, write_report(folder))


def assist_run(run: Path, words: Sequence[str], split: str | None, options: Options, processes: ProcessGroup) -> None:
    """Do this process's share of the forward passes of a `report_run` on rank zero, with the same arguments."""
    processes.wait_for_zero()
    assist(load_target(run, words, split, processes=processes), options)


def write_report(folder: Path) -> Path:
    """Write `report.html`, which is returned, `table.tex` and `figures/` from the files of an evaluation.

    These are metrics.json and, where they are there, per_image.csv and `images/`; what was not measured is left out.

    Raises:
        FileNotFoundError: No metrics.json.
        UserError: It is not what `evaluate` writes.
    """
    content = read_content(folder)
    content = replace(content, results=of_main_classes(content.results))
    charts = evaluation_charts(content)
    page = folder / "report.html"
    write_text(folder / "table.tex", results_latex(content.results))
    write_text(page, evaluation_page(content, charts, folder))
    write_figures([chart for of_section in charts.values() for chart in of_section], folder)
    return page


def evaluation_page(content: Content, charts: Mapping[str, Sequence[Chart]], folder: Path) -> str:
    """The page as HTML, with the charts of `evaluation_charts` and the `images/` of the folder."""
    results, path = content.results, PurePath(content.results.setup.checkpoint)
    map_rows = localisation_rows(results)
    groups = ["", *(name for name in results.setup.classes if f"dice_{name}" in results.segmentation)]
    never_wrong = min(_images_never_wrong(results), default=0)
    return render(
        "evaluation.html.jinja",
        title=f"Evaluation: {title_of(results)}",
        results=results,
        sentences=summary_sentences(content),
        headlines=headlines(results),
        confusion_names=confusion_names(results),
        charts=charts,
        mask_groups=groups,
        class_numbers=results.classification | _calibration_numbers(results) | _abstention_numbers(results),
        never_wrong=never_wrong,
        may_be_wrong=wrong_at_most(never_wrong),
        localisation=LOCALISATION_COLUMNS,
        map_rows=map_rows,
        map_sizes=[
            (row, size) for row, found in map_rows.items() for size in LESIONS if f"infection_hit_{size}" in found
        ],
        size_columns=SIZE_COLUMNS,
        infection_groups=_infection_groups(results),
        studies={name: maps.faithfulness for name, maps in results.class_maps.items() if maps.faithfulness},
        gallery=gallery_values(content, folder),
        pairs=_pairs,
        # the run's name and the file's: no folder above them
        checkpoint="/".join(part for part in path.parts[-3:] if part not in ("checkpoints", "/")),
    )


def _infection_groups(results: EvaluationResults) -> dict[str, str]:
    """Titles of the groups of images that predicted infection was measured on; without any, none."""
    titles = {"": "all with a known mask", "infected": "with infection"} | LESIONS
    titles |= {name: name for name in results.setup.classes}
    scored = results.segmentation
    return {
        group: title for group, title in titles.items() if f"infection_severity_error{group and '_' + group}" in scored
    }


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


def _abstention_numbers(results: EvaluationResults) -> Numbers:
    left = results.abstention
    return left.sets | left.selective if left else {}


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text, what is empty left out."""
    known = {name: value for name, value in values.items() if name not in _PATHS and value not in (None, "", [])}
    return [(name, _plain(value)) for name, value in known.items()]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items() if name not in _PATHS)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
