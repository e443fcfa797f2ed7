"""Train a network, then test its best checkpoint: `python -m lungseg.fit --config FILE [key=value ...]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.command import add_config_arguments, run_command
from lungseg.errors import printable

if TYPE_CHECKING:
    from lungseg.config import Config
    from lungseg.runs.run import Run


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings are C++ frames of connections that end
    from lungseg.config.loading import dump_config, load_config
    from lungseg.runs.rank import detect_rank, mistakes_said_once

    with mistakes_said_once():
        config = load_config(arguments.config, arguments.words)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    if detect_rank().is_zero:  # before the seconds that torch and Lightning take to load
        line = ", ".join([f"config: {arguments.config or 'defaults'}", *map(printable, arguments.words)])
        print(line.encode(errors="backslashreplace").decode(), flush=True)
    try:
        fit(config, arguments.config.stem if arguments.config else "fit")
    except SystemExit as stop:
        # W&B's agent ends a run by SIGTERM, takes any code but 0 for a failure, and gives up after five in a row.
        if stop.code == 128 + signal.SIGTERM and "WANDB_SWEEP_ID" in os.environ:
            return 0
        raise
    return 0


def fit(config: Config, stem: str = "fit") -> Path:
    """Train and test as the config says; give the run folder.

    Args:
        config: The whole config.
        stem: Names the run folder where `run.name` is null.

    Raises:
        UserError, OSError: A mistake in config or data, before anything is written into the run folder's place.
        SystemExit: SIGINT, SIGTERM or SIGHUP came: exit code 128 + its number.
    """
    from lungseg.runs.rank import detect_rank, end_with_parent, mistakes_said_once
    from lungseg.runs.run import check_free

    rank = detect_rank()
    if rank.is_child:
        end_with_parent()
    if not (config.run.resume or config.trainer.fast_dev_run):
        check_free(Path(config.run.dir), config.run.name)  # also below; here it needs no seconds of imports
    import torch

    from lungseg.training.fitting import Training
    from lungseg.training.signals import SignalHandler, Stopped
    from lungseg.training.trackers.wandb_tracker import finish_wandb

    training = None
    try:
        with SignalHandler(ignore=rank.is_child) as signals:
            try:
                with mistakes_said_once():
                    training = Training.prepare(config, stem, signals)
                folder = training.fit()
                finish_wandb(0)
                return folder
            except BaseException:
                finish_wandb(signals.exit_code or 1)
                raise
    except getattr(torch.distributed, "DistNetworkError", ConnectionError):  # not in every build of torch
        if rank.is_child:
            # Mostly rank zero is going, has said why, and takes this process along (`end_with_parent`).
            time.sleep(5)
        raise
    except Stopped as stop:
        if rank.is_zero:
            run = training.run if training else None
            print(_how_to_go_on(stop.signal_name, run), file=sys.stderr, flush=True)
        raise


def _how_to_go_on(signal_name: str, run: Run | None) -> str:
    if run is None or not run.last_checkpoint.is_file():
        return f"stopped by {signal_name} before the end of the first epoch"
    return f"stopped by {signal_name}; the same command with run.name={run.name} run.resume=true goes on"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.fit", description=__doc__)
    add_config_arguments(parser)
    return parser


if __name__ == "__main__":
    code = run_command(main, _parser())
    # All is done and on the disk: a signal that comes while the interpreter takes itself down changes nothing.
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(code)
