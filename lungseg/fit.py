"""Train a network, then test its best checkpoint: `python -m lungseg.fit --config FILE [key=value ...]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.command import add_config_arguments, run_command

if TYPE_CHECKING:
    from lungseg.config import Config
    from lungseg.runs.run import Run


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings are C++ frames of connections that end
    from lungseg.config.loading import dump_config, load_config

    config = load_config(arguments.config, arguments.words)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    stem = arguments.config.stem if arguments.config else "fit"
    try:
        fit(config, stem)
    except SystemExit as stop:
        if _is_stopped_by_agent(stop):
            return 0
        raise
    return 0


def fit(config: Config, stem: str = "fit") -> Path:
    """Train and test as the config says; give the run folder.

    Args:
        config: The whole config.
        stem: Names the run folder where `run.name` is null.

    Raises:
        ValueError, OSError: A mistake in config or data, before anything is written into the run folder's place.
        SystemExit: SIGINT, SIGTERM or SIGHUP came (exit code 128 + its number), or another process failed (1).
    """
    from lungseg.runs.run import check_free

    if not config.run.resume:
        check_free(Path(config.run.dir), config.run.name)
    from lungseg.runs.rank import detect_rank
    from lungseg.training.fitting import Training
    from lungseg.training.processes import Processes
    from lungseg.training.signals import Stopped

    training = None
    rank = detect_rank()
    try:
        with Processes(rank, config.trainer.num_nodes) as processes:
            training = Training.prepare(config, stem, processes)
            training.fit()
    except Stopped as stop:
        if stop.signal_name and rank.is_zero:
            print(_how_to_go_on(stop.signal_name, training.run if training else None), file=sys.stderr, flush=True)
        raise
    return training.run.folder


def _is_stopped_by_agent(stop: SystemExit) -> bool:
    """Whether W&B's agent has ended the run: it takes any code but 0 for a failure, and five in a row end the agent."""
    asked = stop.code == 128 + signal.SIGTERM and "WANDB_SWEEP_ID" in os.environ
    return asked and os.environ.get("LOCAL_RANK", "0") == "0"


def _how_to_go_on(signal_name: str, run: Run | None) -> str:
    if run is None or not run.last_checkpoint.is_file():
        return f"stopped by {signal_name} before the end of the first epoch"
    return f"stopped by {signal_name}; the same command with run.name={run.name} run.resume=true goes on"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.fit", description=__doc__)
    add_config_arguments(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
