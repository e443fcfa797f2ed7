"""The exact commands that start a W&B sweep: one agent a GPU, one agent over the GPUs of a run, or a Slurm array."""

from pathlib import Path
from shlex import quote
from typing import Any

from lungseg.sweeping.schema import require
from lungseg.sweeping.spec import Sweep

CORES_PER_DEVICE = 8
_SCRIPT = Path("slurm") / "agents.sbatch"


def gpu_commands(sweep: Sweep, gpus: int, agent: str | None = None) -> list[str]:
    """Give the lines of shell that start the sweep on one machine.

    Args:
        sweep: A checked sweep.
        gpus: How many the machine has.
        agent: Path of a sweep that `wandb sweep` has already made, `ENTITY/PROJECT/ID`; None makes one.

    Raises:
        SweepError: A run takes more GPUs than there are, or none.
    """
    require(gpus >= 1, f"--gpus: must be >= 1, got {gpus}")
    devices, without_wandb = devices_a_run(sweep), f"python -m lungseg.sweep run {quote(str(sweep.path))}"
    require(
        devices,
        f"{sweep.path}: trainer.accelerator: is 'cpu', so no run would use a GPU; add trainer.accelerator=auto to the "
        f"command, or run it on the CPU: {without_wandb}",
    )
    require(devices <= gpus, f"{sweep.path}: trainer.devices: a run takes {devices} GPUs, and --gpus gives {gpus}")
    agents = gpus // devices
    lines = [f"# {_plural(agents, 'run')} at a time, {_plural(devices, 'GPU')} each", *_make(sweep, agent)]
    if gpus % devices:
        lines.append(f"# GPUs {', '.join(map(str, range(agents * devices, gpus)))} stay idle")
    for first in range(0, agents * devices, devices):
        seen = ",".join(map(str, range(first, first + devices)))
        lines.append(f'CUDA_VISIBLE_DEVICES={seen} wandb agent "$sweep" &')
    return [*lines, "wait", f"# where W&B cannot be reached: {without_wandb} in place of wandb agent"]


def slurm_commands(sweep: Sweep, count: int | None = None, agent: str | None = None) -> list[str]:
    """Give the lines of shell that start the sweep as a Slurm array, one run a task.

    Args:
        sweep: A checked sweep.
        count: Runs wanted; None takes those of the grid, or `run_cap`.
        agent: As in `gpu_commands`.

    Raises:
        SweepError: The number of runs is not known, or the script is not there.
    """
    runs = sweep.total(count)
    devices = devices_a_run(sweep)
    places = [sweep.path.parent / _SCRIPT, Path("sweeps") / _SCRIPT]
    script = next((place for place in places if place.is_file()), None)
    looked = " and ".join(map(str, places))
    require(script, f"no {_SCRIPT} (looked for {looked}); it comes with lungseg's repository")
    gpus = f"--gpus-per-node={devices} " if devices else ""
    cores = f"--cpus-per-task={CORES_PER_DEVICE * max(devices, 1)}"
    # Options of sbatch's command line win over those in the script, which stays the same for all sweeps.
    start = f"sbatch --array=1-{runs} {gpus}{cores} {quote(str(script))}"
    return [
        f"# {_plural(runs, 'run')}, {_plural(devices, 'GPU')} each; --array=1-{runs}%4 would keep it to 4 at a time",
        *_make(sweep, agent),
        f'{start} "$sweep"',
        "# where W&B cannot be reached, the same runs, shared by the tasks that get a place:",
        f"# {start} {quote(str(sweep.path))} --count {runs}",
    ]


def devices_a_run(sweep: Sweep) -> int:
    """GPUs that the largest run of the sweep takes on its node; 0 if all run on the CPU.

    `auto` and -1 take whatever a run sees, which is the one GPU that its agent is given.

    Raises:
        SweepError: A run wants several nodes, which no agent can give it.
    """
    keys = {"trainer.devices", "trainer.accelerator", "trainer.num_nodes"} & set(sweep.parameters)
    tried = [{}, *({key: value} for key in keys for value in sweep.parameters[key].samples())]
    trainers = [sweep.config(values).trainer for values in tried]
    require(
        all(trainer.num_nodes <= 1 for trainer in trainers),
        f"{sweep.path}: trainer.num_nodes: an agent runs on one node; start such runs one by one with "
        "sweeps/slurm/fit.sbatch",
    )
    return max(0 if trainer.accelerator == "cpu" else _count(trainer.devices) for trainer in trainers)


def _count(devices: Any) -> int:
    """GPUs that must be visible for this value of `trainer.devices`; indices need all up to the highest."""
    if isinstance(devices, str):
        listed = [part for part in devices.split(",") if part.strip().isdigit()]
        devices = [int(part) for part in listed] if "," in devices else int(listed[0]) if listed else 1
    return max(devices, default=0) + 1 if isinstance(devices, list) else max(1, devices)


def _make(sweep: Sweep, agent: str | None) -> list[str]:
    """Lines that make the sweep and keep its path in a variable of the shell."""
    if agent is not None:
        return [f"sweep={quote(agent)}"]
    wandb = sweep.config({}).wandb
    options = [] if sweep.project else ["--project", quote(wandb.project)]
    if wandb.entity and not sweep.entity:
        options += ["--entity", quote(wandb.entity)]
    entity, project = sweep.entity or wandb.entity or "ENTITY", sweep.project or wandb.project
    return [
        " ".join(["wandb sweep", *options, quote(str(sweep.path))]),
        f"sweep={quote(f'{entity}/{project}/ID')}  # as the line above ends: wandb agent ENTITY/PROJECT/ID",
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'s' * (count != 1)}"
