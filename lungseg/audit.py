"""Tell what is wrong with a data set, and which images leak between its splits: `python -m lungseg.audit ROOT`.

Exit code 0: clean; 1: there are findings; 2: it could not be run. What is checked, and by which rules, stands in the
modules of `lungseg.auditing`.
"""

import argparse
from pathlib import Path

from lungseg.command import run_command


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.auditing.audit import audit
    from lungseg.config.loading import load_config
    from lungseg.errors import UserError
    from lungseg.reporting.audit_report import check_output, summarise, to_json, write_report
    from lungseg.runs.whole_files import write_json

    root = arguments.root.expanduser()
    name = root.resolve().name if root.is_dir() else root.stem
    output = arguments.output or Path(f"audit-{name}")
    check_output(output, root)
    for word in arguments.words:
        if not word.startswith("data.infection_unknown="):
            raise UserError(f"{word}: of the config only data.infection_unknown means something to the audit")
    result = audit(root, infection_unknown=load_config(None, arguments.words).data.infection_unknown)
    print(summarise(result))
    written = write_report(result, output)
    if arguments.json:
        write_json(arguments.json, to_json(result))
        written.append(arguments.json)
    print(f"written: {', '.join(map(str, written))}")
    return 0 if result.is_clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.audit", description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of a data set, or a CSV manifest")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="data.infection_unknown=[CLASS,...]",
        help="classes whose empty infection masks are no fault, because nobody drew any (default: [Non-COVID])",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found as JSON too")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for leaks.csv, faults.csv and pairs.png (default: audit-NAME here, NAME being that of ROOT)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
