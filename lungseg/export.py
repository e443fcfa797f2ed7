"""Write a network as one file for other programs: `python -m lungseg.export --checkpoint RUN --output model.onnx`.

Pre-processing and class maps are inside: grey images of any size, uint16 (8-bit values too), in; lung mask, calibrated
probabilities, class maps and the map inside the lungs with its evidence share out. Written only if it does what the
network does.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command

PRECISIONS = ("fp32", "fp16", "int8")


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.exporting.export_model import export

    for line in export(arguments.checkpoint, arguments.output, arguments.precision, arguments.licence):
        print(line, flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.export", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="run folder, .ckpt or .safetensors file, or wandb:ENTITY/PROJECT/NAME:ALIAS; default: the model that "
        "comes with the package",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="ends in .onnx, .pt2 (torch.export) or .safetensors"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp16 stores weights in half the size; int8 (ONNX) computes in integers. What that loses is measured on "
        "Val of the run's data, or on phantoms (default: fp32)",
    )
    parser.add_argument("--licence", metavar="TEXT", help="written into the file; default: what the model says")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
