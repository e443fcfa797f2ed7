"""Check a sweep, run it here, show its status, or launch agents for it: `python -m lungseg.sweep ACTION FILE`.

FILE is a W&B sweep in YAML. `check` finds every mistake that can be known before a run; `run` does the runs here with
Optuna and no server (start it again to go on, several at once to share the work); `status` prints the table, the best
run and what mattered, and writes a page of plots; `launch` prints the commands that start W&B's agents.
"""

import argparse
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from lungseg.command import run_command
from lungseg.errors import UserError, did_you_mean

_OPTIONS = {"check": (), "run": ("count", "workers"), "status": ("page",), "launch": ("gpus", "slurm", "count", "id")}
"""Options of each action; any other with it is a mistake, never ignored."""


def main(arguments: argparse.Namespace) -> int:
    """Run the command."""
    _check_arguments(arguments)
    from lungseg.sweeping.checking import check_report, load_sweep

    sweep = load_sweep(arguments.file)
    if arguments.action in ("run", "status") and not (find_spec("optuna") and find_spec("plotly")):
        raise UserError(f"{arguments.file}: a sweep run here needs the extra: pip install 'lungseg[sweep]'")
    if arguments.action == "run":
        from lungseg.sweeping.local import run_sweep

        return run_sweep(sweep, arguments.count, arguments.workers or 1)
    if arguments.action == "status":
        from lungseg.sweeping.status import show_status

        show_status(sweep, arguments.page)
    elif arguments.action == "check":
        print("\n".join(check_report(sweep)))
    else:
        from lungseg.sweeping.launch import gpu_commands, slurm_commands

        if arguments.slurm:
            print("\n".join(slurm_commands(sweep, arguments.count, arguments.id)))
        else:
            print("\n".join(gpu_commands(sweep, arguments.gpus, arguments.id)))
    return 0


def _check_arguments(arguments: argparse.Namespace) -> None:
    action = arguments.action
    if action not in _OPTIONS:
        near = did_you_mean(get_close_matches(action, _OPTIONS, 1))
        raise UserError(f"ACTION must be one of {', '.join(_OPTIONS)}, got {action!r}{near}")
    options = sorted(set().union(*_OPTIONS.values()))
    given = [name for name in options if getattr(arguments, name) not in (None, False)]  # 0 is refused below
    for name in (name for name in given if name not in _OPTIONS[action]):
        actions = " and ".join(other for other, options in _OPTIONS.items() if name in options)
        raise UserError(f"--{name}: belongs to {actions}, not to {action}")
    if action == "launch" and arguments.slurm == (arguments.gpus is not None):
        raise UserError("launch: say either --gpus N, for this machine, or --slurm")
    if arguments.gpus is not None and arguments.count is not None:
        raise UserError("--count: belongs to --slurm; agents on GPUs go on until the sweep's run_cap")
    for name in ("count", "workers", "gpus"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: must be >= 1, got {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.sweep", description=__doc__)
    parser.add_argument("action", metavar="ACTION", help=f"one of {', '.join(_OPTIONS)}")
    parser.add_argument("file", type=Path, metavar="FILE", help="sweep in W&B's YAML, such as sweeps/grid.yaml")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="run: runs in all, those of earlier calls and other processes included; launch --slurm: runs wanted",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="run: runs at the same time (default: 1)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="status: where to write the page of plots")
    parser.add_argument("--gpus", type=int, metavar="N", help="launch: agents for N GPUs of this machine")
    parser.add_argument("--slurm", action="store_true", help="launch: a Slurm array of agents")
    parser.add_argument("--id", metavar="PATH", help="launch: ENTITY/PROJECT/ID of a sweep that W&B already has")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
