"""Tell what is wrong with a data set, and which images leak between its splits: `python -m lungseg.audit ROOT`.

Exit code 0: clean; 1: there are findings; 2: it could not be run. What is checked, and by which rules, stands in the
modules of `lungseg.auditing`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.command import run_command

if TYPE_CHECKING:
    from lungseg.config import Config


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.auditing.audit import audit
    from lungseg.config.loading import load_config
    from lungseg.errors import UserError
    from lungseg.reporting.audit_report import AUGMENTED, check_output, summarise, to_json, write_report
    from lungseg.runs.whole_files import write_json, write_whole

    root = arguments.root.expanduser()
    name = root.resolve().name if root.is_dir() else root.stem
    output = arguments.output or Path(f"audit-{name}")
    check_output(output, root)
    for word in arguments.words if arguments.augment is None else ():
        if not word.startswith(("data.infection_unknown=", "data.multi_label=")):
            known = "data.infection_unknown and data.multi_label mean"
            raise UserError(f"{word}: of the config only {known} something without --augment")
    config = load_config(arguments.augment, arguments.words)
    result = audit(root, infection_unknown=config.data.infection_unknown, multi_label=config.data.multi_label)
    print(summarise(result))
    written = write_report(result, output)
    if arguments.json:
        write_json(arguments.json, to_json(result))
        written.append(arguments.json)
    if arguments.augment is not None:
        write_whole(output / AUGMENTED, _augmented(config, root))
        written.append(output / AUGMENTED)
    print(f"written: {', '.join(map(str, written))}")
    return 0 if result.is_clean else 1


def _augmented(config: Config, root: Path) -> bytes:
    """The picture of augmented samples of a training with this config on this data set, as PNG."""
    from lungseg.data.datamodule import LungDataModule
    from lungseg.reporting.augment_sheet import draw_augmented
    from lungseg.reporting.drawing import png

    data = LungDataModule(replace(config.data, root=str(root)), config.augment, config.run.seed)
    data.find_samples()
    return png(draw_augmented(data))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.audit", description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of a data set, or a CSV manifest")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="data.infection_unknown=[CLASS,...]: classes whose empty infection masks are no fault, because nobody "
        "drew any (default: [Non-COVID]); data.multi_label=true: an image may have several; with --augment any key of "
        "its config",
    )
    parser.add_argument(
        "--augment",
        type=Path,
        metavar="CONFIG",
        help="also write augmented.png: samples of Train as a training with this config would see them",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found as JSON too")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for leaks.csv, faults.csv, pairs.png, augmented.png (default: audit-NAME here, NAME being that of "
        "ROOT)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
