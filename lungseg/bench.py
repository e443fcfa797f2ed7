"""Measure speed against the alternatives, as ratios: `python -m lungseg.bench [data ...]`."""

from __future__ import annotations

import argparse
from importlib import import_module

from lungseg.command import run_command

BENCHMARKS = {
    "data": "training batches: from the cache, or from PNG pairs with plain albumentations",
    "cam": "class activation maps: on top of a forward pass, against the package grad-cam, as overlays of an epoch",
    "evaluate": "an evaluation: masks, maps, intervals, shortcut test, robustness and page, without the forward passes",
    "predict": "an exported ONNX file against eager PyTorch, and predict against a plain script, from start to end",
}
"""What each module of `lungseg.benchmarks` measures."""


def main(arguments: argparse.Namespace) -> int:
    """Run the benchmarks asked for and print their lines as they come."""
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name]}", flush=True)
        for line in import_module(f"lungseg.benchmarks.{name}").run(quick=arguments.quick):
            print(f"  {line}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all if none is given"
    )
    parser.add_argument("--quick", action="store_true", help="tiny images, once: shows that it works, not how fast")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
