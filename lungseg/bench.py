"""Measure speed against the alternatives, and what the input checks find: `python -m lungseg.bench [data ...]`."""

import argparse
from importlib import import_module
from pathlib import Path

from lungseg.command import run_command
from lungseg.errors import UserError

BENCHMARKS = {
    "data": "training batches: from the cache, with transforms too, or from PNG pairs with plain albumentations",
    "fit": "the training loop of fit against a bare torch loop with its batches in memory, and the loader alone",
    "cam": "class activation maps: on top of a forward pass, against the package grad-cam, as overlays of an epoch",
    "evaluate": "an evaluation: masks, maps, intervals, shortcut test, robustness and page, without the forward passes",
    "predict": "an exported ONNX file against eager PyTorch, and predict against a plain script, from start to end",
    "input_checks": "what share of good, turned, inverted, cropped and foreign images the input checks flag",
}
"""What each module of `lungseg.benchmarks` measures."""
_OPTIONS = ("checkpoint", "data")  # Of `input_checks` alone.


def main(arguments: argparse.Namespace) -> int:
    """Run the benchmarks asked for and print their lines as they come."""
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    given = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    if given and "input_checks" not in (arguments.names or BENCHMARKS):
        raise UserError(
            f"--{next(iter(given))} is for input_checks only, got {' '.join(arguments.names)!r}; name it too"
        )
    for name in arguments.names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name]}", flush=True)
        options = given if name == "input_checks" else {}
        for line in import_module(f"lungseg.benchmarks.{name}").run(quick=arguments.quick, **options):
            print(f"  {line}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all if none is given"
    )
    parser.add_argument("--quick", action="store_true", help="tiny images, once: shows that it works, not how fast")
    group = parser.add_argument_group("of input_checks")
    group.add_argument("--checkpoint", type=Path, metavar="RUN", help="model; if not given, that of the package")
    group.add_argument("--data", type=Path, metavar="ROOT", help="data set whose Val is taken; if not given, phantoms")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
