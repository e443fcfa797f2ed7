"""Make several runs one: `python -m lungseg.ensemble RUN RUN... --output DIR [--soup]`.

An ensemble keeps every network and gives the mean of their logits and class maps, and how far they disagree; --soup
averages the weights of runs that share their start. DIR is a run folder: evaluate it, and every command takes it.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command
from lungseg.errors import UserError


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.runs.run import MIXED_DIVISIONS
    from lungseg.training.ensembling import write_ensemble, write_soup

    runs = [Path(run) for run in arguments.runs if "=" not in run or Path(run).exists()]
    words = [word for word in arguments.runs if Path(word) not in runs]
    if words and not arguments.soup:
        raise UserError(f"{words[0]}: belongs to --soup, which reads the data; an ensemble is made without")
    made = write_soup(runs, arguments.output, words) if arguments.soup else write_ensemble(runs, arguments.output)
    print(f"written  {made.folder}   ({'mean of the weights' if arguments.soup else 'ensemble'} of {len(runs)} runs)")
    chosen = (
        "which calibrates it on Val, too" if made.fingerprint != MIXED_DIVISIONS else "on Test: Val was learned from"
    )
    print(f"next     python -m lungseg.evaluate --checkpoint {made.folder}   ({chosen})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.ensemble", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders (or wandb:...), two or more; with --soup also words such as data.root=...",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="run folder to write")
    parser.add_argument("--soup", action="store_true", help="average weights, of runs fine-tuned from one start")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
