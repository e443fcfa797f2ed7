"""Measure the class maps of a trained network on a split: `python -m lungseg.evaluate --checkpoint RUN [WORDS]`.

For every image: the share of its evidence in the lungs before any crop, the peak, how well the map finds the infection;
for the split: means by class and size of lesion, deletion and insertion, and the weight-randomisation check.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lungseg.command import run_command


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.evaluation.maps_report import evaluate_maps
    from lungseg.evaluation.subject import load_subject

    split, words = _split_of(arguments.words)
    folder = arguments.checkpoint if arguments.checkpoint.is_dir() else arguments.checkpoint.parent.parent
    output = arguments.output or folder / "evaluation" / split
    subject = load_subject(arguments.checkpoint, words, split)
    evaluate_maps(subject, arguments.methods.split(","), arguments.target, arguments.faithfulness, output)
    return 0


def _split_of(words: list[str]) -> tuple[str, list[str]]:
    """The word `data.split=...`, which only this command knows, and the other words."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("data.split=")]
    return (chosen or ["test"])[-1], [word for word in words if not word.startswith("data.split=")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="run folder, or a .ckpt in one")
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
    parser.add_argument(
        "--faithfulness",
        type=int,
        default=60,
        metavar="N",
        help="images for deletion, insertion and weight randomisation; 0 leaves them out (default: 60)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/evaluation/SPLIT")
    parser.add_argument(
        "words", nargs="*", metavar="data.key=value", help="data.split=val (default test), data.root=..., ..."
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
