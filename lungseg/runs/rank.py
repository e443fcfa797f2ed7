"""This process among those of its run, as its launcher says in the environment before anything is set up."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

from lungseg.errors import UserError

Launcher = Literal["torchrun", "srun", "Lightning"]
PARENT_PID = "LUNGSEG_PARENT_PID"
"""Environment of the children of Lightning's launcher, set by the process that starts them."""


class Rank(NamedTuple):
    """Place of a process in its run."""

    launcher: Launcher
    """`Lightning` stands for a process that was started by hand, and for those its launcher starts from it."""
    rank: int = 0  # Among all processes; under Lightning's launcher known of the first process of a node only as 0.
    local_rank: int = 0  # Among those of this machine.
    node_rank: int = 0
    world_size: int | None = None  # All processes that the launcher started; None where the config decides.
    nodes: int = 1

    @property
    def is_zero(self) -> bool:
        """Whether this is the process that makes the run folder, writes, logs and prints."""
        return self.rank == 0 and self.local_rank == 0 and self.node_rank == 0

    @property
    def is_child(self) -> bool:
        """Whether Lightning's launcher started this process from another one, which has prepared everything."""
        return self.launcher == "Lightning" and self.local_rank != 0


def detect_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """Read the environment.

    torchrun inside of srun is torchrun. A Slurm job of one task, or an interactive shell of one, is none of Slurm's.
    """

    def number(name: str, default: int = 0) -> int:
        return int(environment.get(name) or default)

    # The innermost launcher decides: under srun, Slurm's variables speak of torchrun, not of what it starts.
    if environment.get("RANK"):
        world = number("WORLD_SIZE", 1)
        nodes = world // number("LOCAL_WORLD_SIZE", world)
        return Rank("torchrun", number("RANK"), number("LOCAL_RANK"), world_size=world, nodes=nodes)
    # Lightning ignores Slurm in an interactive shell too; both must agree on who starts the processes.
    if environment.get("SLURM_JOB_NAME") not in ("bash", "interactive") and number("SLURM_NTASKS", 1) > 1:
        rank, world = number("SLURM_PROCID"), number("SLURM_NTASKS")
        return Rank("srun", rank, number("SLURM_LOCALID"), world_size=world, nodes=number("SLURM_NNODES", 1))
    local, node = number("LOCAL_RANK"), number("NODE_RANK")
    return Rank("Lightning", number("SLURM_PROCID") or local, local, node_rank=node)


def own_cores(usable: int, local_world_size: int, environment: Mapping[str, str] = os.environ) -> int:
    """Cores of this process alone, of those that it may use (its affinity), 1 or more.

    All of them where srun has bound it to a part of the node's; else they are shared by the processes of this node.
    """
    # What Slurm gave the job on this node: a process that may use fewer cores has been given its own.
    of_node = int(environment.get("SLURM_CPUS_ON_NODE") or 0)
    if detect_rank(environment).launcher == "srun" and usable < of_node:
        return usable
    return max(1, usable // local_world_size)


@contextmanager
def mistakes_said_once() -> Iterator[None]:
    """Around what every process checks before the training: a mistake is one line a machine, not one a process.

    The processes of a machine read the same files and so find the same mistake; all but the first end silently. A child
    of Lightning's launcher speaks all the same: rank zero has found no mistake before it.

    Raises:
        SystemExit: With exit code 2 in place of the mistake.
    """
    try:
        yield
    except (UserError, OSError):
        rank = detect_rank()
        if rank.local_rank == 0 or rank.is_child:
            raise
        raise SystemExit(2) from None


def end_with_parent() -> None:
    """Have the kernel end this child of Lightning's launcher as soon as its parent has ended, in whatever way.

    The launcher leaves its children behind when rank zero fails or is killed. With gloo they would fail on the closed
    connection, but with NCCL, which exists on Linux alone, they would wait on their GPUs until a timeout of hours.
    """
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1  # of <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.environ.get(PARENT_PID) != str(os.getppid()):  # it has ended before the call above
        raise SystemExit(1)
