"""A run measured and reported in one call: what `python -m lungseg.evaluate` does, and `fit` at its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lungseg.evaluation.distributed import ProcessGroup
from lungseg.evaluation.evaluator import Options, assist, evaluate
from lungseg.evaluation.outputs import check_cam_methods
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.target import load_target
from lungseg.reporting.chart_files import write_figures
from lungseg.reporting.evaluation_charts import evaluation_charts
from lungseg.reporting.evaluation_files import PictureWriter, read_content
from lungseg.reporting.evaluation_page import evaluation_page
from lungseg.reporting.formatting import results_latex
from lungseg.runs.progress import Progress
from lungseg.runs.whole_files import write_text

AFTER_TRAINING = Options(shortcut_images=300, robustness=100, faithfulness=30)
"""Fewer images through the studies that show the network each image many times; `evaluate` takes more."""


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
    processes: ProcessGroup | None = None,
) -> Reported:
    """Evaluate a run and write everything that a reader is given.

    Args:
        run: A run folder, or a .ckpt file in one.
        words: `data.key=value` over the run's config.
        split: As of `load_target`.
        options: How much is measured; None: the defaults.
        output: Folder; None: `EvaluationTarget.output`.
        page: Whether report.html, its pictures, the LaTeX table and the figures are wanted.
        processes: Shares the forward passes, its other processes calling `assist_run`; None: this one needs no other.

    Raises:
        UserError: As of `load_target` and `evaluate`.
        FileNotFoundError: No checkpoint, or no config beside it.
    """
    processes, options = processes or ProcessGroup(), options or Options()
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


def write_report(folder: Path, names: bool = False) -> Path:
    """Write `report.html`, `table.tex` and `figures/` beside metrics.json; what was not measured is left out.

    Args:
        folder: Of an evaluation: metrics.json, per_image.csv, `images/` by `PictureWriter`.
        names: Put ids of images (names of files) and groups (patients) into the page; without, images have numbers.

    Returns:
        The page.

    Raises:
        FileNotFoundError: No metrics.json.
        UserError: It is not what `evaluate` writes.
    """
    content = read_content(folder)
    charts = evaluation_charts(content)
    page = folder / "report.html"
    write_text(folder / "table.tex", results_latex(content.results))
    write_text(page, evaluation_page(content, charts, folder, names))
    write_figures([chart for of_section in charts.values() for chart in of_section], folder)
    return page
