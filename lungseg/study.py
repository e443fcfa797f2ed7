"""Train variants with several seeds and folds, and compare them in one table: `python -m lungseg.study STUDY.yaml`.

Runs are ordinary run folders; started again, the command goes on with what is not done, and started several times, on
one machine or as a Slurm array, it shares the runs out.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command
from lungseg.errors import check


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.sweeping.study import load_study
    from lungseg.sweeping.study_runs import is_done, run_study

    check(arguments.workers >= 1, "--workers", "1 or more", arguments.workers)
    study = load_study(arguments.file)
    if arguments.check:
        print(f"{study.path}: good; {len(study.runs)} runs, measured on {study.split}:")
        for name in study.missing:
            print(f"  note: {name} is not set here; set it where the runs start")
        print("\n".join(f"  {run.name}  {' '.join(study.variants[run.variant])}".rstrip() for run in study.runs))
        return 0
    if arguments.table and not study.folder.is_dir():
        raise FileNotFoundError(f"{study.folder}: nothing has run there yet; leave --table out")
    code = 0 if arguments.table else run_study(study, arguments.workers)
    if code > 1:  # a signal: what is asked for is an end
        return code
    from filelock import FileLock

    from lungseg.evaluation.study_results import study_results
    from lungseg.reporting.study_report import study_lines, write_study
    from lungseg.runs.whole_files import without_nan, write_text
    from lungseg.sweeping.study_table import predictions_csv, trainings

    # Of several processes that end together, the last to write has read what the others did.
    with FileLock(study.folder / "logs" / "table.lock"):
        found = trainings(study)
        if not found:
            print(f"no table yet: no seed of a variant has all its runs, of {len(study.runs)} runs in all")
            return code
        content = without_nan(study_results(found))
        missing = sum(not is_done(study, run) for run in study.runs)
        if missing:
            content["notes"].insert(
                0, f"{missing} of {len(study.runs)} runs are not done: this is what is there so far"
            )
        print("\n".join(study_lines(content)))
        write_study(content, study.folder)
        write_text(study.folder / "predictions.csv", predictions_csv(study, found))
    print(f"written  {study.folder}   (study.html, .md, .tex, .csv, .json, predictions.csv, figures/)")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.study", description=__doc__)
    parser.add_argument("file", type=Path, metavar="STUDY", help="study in YAML, such as sweeps/studies/pooling.yaml")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument("--check", action="store_true", help="only check the file and list the runs")
    parser.add_argument("--table", action="store_true", help="only make the tables, of what is done")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
