"""Lung mask, class and class map of new images: `python -m lungseg.predict INPUT... --output DIR [--checkpoint RUN]`.

Takes PNG, JPEG, TIFF, BMP and DICOM files, folders of them and patterns. Writes masks/, overlays/, predictions.csv and
predictions.jsonl, and infection_masks/ where the model predicts infection; what is done is not done again. A file that
cannot be read is named and skipped (exit code 1).
"""

import argparse
import sys
from pathlib import Path

from lungseg.command import add_model_argument, run_command


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.inference.job import Options, predict

    values = vars(arguments)
    outcome = predict(Options(**{**values, "inputs": tuple(arguments.inputs)}))
    earlier = f", {outcome.before:,} by an earlier run" if outcome.before else ""
    print(f"images   {outcome.inputs:,}: {outcome.done:,} done{earlier}, {outcome.skipped:,} skipped")
    if outcome.flagged:
        print(f"flags    {outcome.flagged:,} images with reasons to look twice (flags, flag_reasons)")
    infection = "infection_masks/, " if (arguments.output / "infection_masks").is_dir() else ""
    print(f"written  {arguments.output}   (predictions.csv, predictions.jsonl, masks/, {infection}overlays/)")
    for device in outcome.lost:
        print(f"error: the process on {device!r} broke off; run the same command again for the rest", file=sys.stderr)
    return 1 if outcome.skipped or outcome.lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.predict", description=__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder (with those below it), or pattern")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="takes the results; made if need be")
    add_model_argument(parser)
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME[,NAME...]",
        help="auto, cpu, cuda, cuda:1, mps; several, as cuda:0,cuda:1, share the files (default: auto, with "
        "PyTorch a GPU if there is one)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="images a pass (default: 16; of ONNX models on the CPU, where each core runs its own, at most 4)",
    )
    parser.add_argument("--tta", action="store_true", help="average with the mirror image; twice the time")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="probability above which a pixel is lung (default: 0.5)",
    )
    parser.add_argument(
        "--dicom-out",
        action="store_true",
        help="of DICOM inputs also a DICOM SEG and a secondary capture of the overlay, in dicom/ (extra dicom-out); "
        "they alone bear the patient's data of the input, for they are filed by it",
    )
    parser.add_argument("--shard", metavar="I/N", help="every N-th file from the I-th (0 first), for jobs side by side")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
