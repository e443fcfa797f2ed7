"""Compare evaluated runs on the same images: `python -m lungseg.compare RUN RUN...`.

Every run is set against the first: paired bootstrap differences of every number, with intervals and p-values.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command
from lungseg.errors import check


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.evaluation.comparison import compare
    from lungseg.evaluation.saved import read_evaluation
    from lungseg.reporting.comparison_report import comparison_lines, write_comparison
    from lungseg.runs.whole_files import without_nan

    check(arguments.bootstraps >= 1, "--bootstraps", "1 or more", arguments.bootstraps)
    evaluations = [read_evaluation(run, arguments.split) for run in arguments.runs]
    content = without_nan(compare(evaluations, arguments.shared, arguments.bootstraps))
    for line in comparison_lines(content):
        print(line)
    output: Path = arguments.output or evaluations[0].folder / "comparison"
    write_comparison(content, output)
    print(f"written  {output}   (comparison.html, .md, .tex, .csv, .json, figures/)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.compare", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders (or folders of an evaluation), the baseline first",
    )
    parser.add_argument(
        "--split",
        default="test",
        metavar="NAME",
        help="which evaluation of each run: test, val, or the folder's name for another data set (default: test)",
    )
    parser.add_argument("--shared", action="store_true", help="where images differ, take those that all runs have")
    parser.add_argument(
        "--bootstraps", type=int, default=10_000, metavar="N", help="resamples behind every interval (default: 10000)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: a folder in the first run's evaluation")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
