"""A page to try a model in the browser: `python -m lungseg.app [--checkpoint RUN] [--port N]`.

Drop X-rays (PNG, JPEG, TIFF, BMP, DICOM) and see lungs, probabilities, class map, evidence and flags. Serves this
machine only; nothing is sent elsewhere and nothing kept on disk. Needs the extra `app`. Not a medical device.
"""

import argparse

from lungseg.command import add_model_argument, run_command


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.serving.server import serve

    serve(arguments.checkpoint, arguments.host, arguments.port, arguments.device, arguments.backend)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.app", description=__doc__)
    add_model_argument(parser)
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen; another than 127.0.0.1 lets other machines in, without a password (default: 127.0.0.1)",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
