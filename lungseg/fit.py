"""Train a network, then test its best checkpoint: `python -m lungseg.fit --config FILE [key=value ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.command import add_config_arguments, run_command

if TYPE_CHECKING:
    from lungseg.config import Config


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from lungseg.configuration import dump_config, load_config

    config = load_config(arguments.config, arguments.words)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    stem = arguments.config.stem if arguments.config else "fit"
    fit(config, stem)
    return 0


def fit(config: Config, stem: str = "fit") -> Path:
    """Train and test as the config says; give the run folder.

    Args:
        config: The whole config.
        stem: Names the run folder where `run.name` is null.

    Raises:
        ValueError, OSError: A mistake in config or data, before anything is written into the run folder's place.
    """
    from lungseg.reporting.run_folder import check_free
    from lungseg.training.run import Training

    check_free(Path(config.run.dir), config.run.name, config.run.resume)
    training = Training.prepare(config, stem)
    training.run()
    return training.folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.fit", description=__doc__)
    add_config_arguments(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
