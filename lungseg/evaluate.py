"""Measure a trained network on a split: `python -m lungseg.evaluate --checkpoint RUN [WORDS]`.

Masks, classes, calibration and class maps, image by image; over the split every number with a bootstrap interval, a
test for shortcuts, robustness, and the published numbers beside. `data.root=OTHER` measures another data set. Under
torchrun or srun the processes share the forward passes.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.evaluation.distributed import join
    from lungseg.evaluation.evaluator import Options
    from lungseg.evaluation.outputs import CamMethod
    from lungseg.reporting.report_run import assist_run, report_run
    from lungseg.reporting.summary import evaluation_lines

    options = Options(
        cam_methods=tuple(CamMethod.parse(method) for method in arguments.methods.split(",")),
        map_class=arguments.target,
        faithfulness=arguments.faithfulness,
        bootstraps=arguments.bootstraps,
        sensitivity=arguments.sensitivity,
        shortcuts=arguments.shortcuts,
        robustness=arguments.robustness,
    )
    split, words = _split_of(arguments.words)
    page = not arguments.no_report
    with join() as processes:
        if not processes.is_zero:
            assist_run(arguments.checkpoint, words, split, options, processes)
            return 0
        found = report_run(arguments.checkpoint, words, split, options, arguments.output, page, processes)
    for line in evaluation_lines(found.results):
        print(line)
    written = "metrics.json, scores.csv, per_image.csv"
    if found.page:
        print(f"report   {found.page}")
        written += ", table.tex, images/, figures/"
    print(f"written  {found.folder}   ({written})")
    return 0


def _split_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The word `data.split=...`, which only this command knows, and the other words."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("data.split=")]
    return chosen[-1] if chosen else None, [word for word in words if not word.startswith("data.split=")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.evaluate", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="RUN",
        help="run folder, a .ckpt in one, or wandb:ENTITY/PROJECT/NAME:ALIAS",
    )
    parser.add_argument(
        "--methods",
        default="cam",
        metavar="NAME[@LAYER],...",
        help="cam, grad_cam, grad_cam_pp, hires_cam, layer_cam, eigen_cam, score_cam, each at 'features' or, as "
        "layer_cam@encoder.4, at a stage of encoder or decoder (default: cam)",
    )
    parser.add_argument(
        "--target",
        choices=("predicted", "label"),
        default="predicted",
        help="whose map: of the predicted class, as a user sees it, or of the true one (default: predicted)",
    )
    numbers = (
        ("--faithfulness", int, 60, "N", "images for deletion, insertion and weight randomisation; 0 leaves them out"),
        ("--robustness", int, 200, "N", "images for noise, blur, rotation and the like; 0 leaves them out"),
        ("--shortcuts", int, 1_000, "N", "images for the shortcut test, which shows parts of each; 0 leaves it out"),
        ("--bootstraps", int, 10_000, "N", "resamples behind every interval"),
    )
    parser.add_argument(
        "--sensitivity",
        type=float,
        metavar="S",
        help="that the operating points are to reach (default: 0.95; of several findings an image: the highest F1)",
    )
    for name, kind, default, metavar, words in numbers:
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=f"{words} (default: {default})")
    parser.add_argument("--no-report", action="store_true", help="leave out report.html and its pictures")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: RUN/evaluation/SPLIT, or .../NAME-SPLIT of another set"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="data.key=value",
        help="data.split=val (default test; all images of another set), data.root=..., ...",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
