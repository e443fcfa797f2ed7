"""Trainings as processes of their own, side by side; each takes all its processes with it when it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from types import FrameType

from lungseg.errors import UserError
from lungseg.runs.progress import cores

INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit codes of a training that was told to stop."""

PATIENCE_S = 30  # Between asking processes to end and killing them, as W&B's agent has it.
_OF_A_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "WANDB_RUN_ID"),
)
"""What a launcher told this process: started by srun or not, its runs are nobody's second rank, and no two are one."""
_GUARD = f'read -r _; kill -TERM "-$1" && sleep {PATIENCE_S} && kill -KILL "-$1"'
"""Shell that waits for its standard input to close, then ends a process group."""


class Child:
    """A running fit, in a session and process group of its own; what it prints is appended to `log`."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]):
        own = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
        with log.open("ab") as output:
            self._process = Popen(
                arguments, env=own | environment, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True
            )
        # If this process is killed outright it can end nothing any more; then the guard's pipe closes.
        guard = ["/bin/sh", "-c", _GUARD, "guard", str(self._process.pid)]
        self._guard = Popen(guard, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)

    @property
    def code(self) -> int | None:
        """Exit code, a signal's number below 0; None while it runs."""
        return self._process.poll()

    def end(self, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        """Send SIGTERM to the whole group, and kill what is left of it after `PATIENCE_S` or as soon as in a hurry."""
        # The group, since loader workers and the ranks of Lightning's launcher are children of the child.
        deadline = time.monotonic() + PATIENCE_S
        if self.code is None:
            self._signal(signal.SIGTERM)
        while self.code is None and time.monotonic() < deadline and not in_a_hurry():
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._guard.kill()
        self._guard.communicate()  # closes the pipe

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal a group of zombies
            os.killpg(self._process.pid, number)


class Stop(threading.Event):
    """A handler of signals that only sets a flag, so that no write is torn apart; `number` is the first that came."""

    number, twice = 0, False

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take a signal."""
        self.twice = bool(self.number)
        self.number = self.number or number
        self.set()

    def exit_code(self) -> int:
        """Say that the work goes on by the same command, and give the code of a process that a signal has ended."""
        print(f"stopped by {signal.Signals(self.number).name}; the same command continues", flush=True)
        return 128 + self.number


def work_side_by_side(workers: Sequence[Callable[[], None]], stop: Stop) -> None:
    """Run functions in threads until all have returned; signals to end set `stop`, and so does one that fails."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            started = [pool.submit(work) for work in workers]
            try:
                for ended in as_completed(started):
                    ended.result()
            finally:
                stop.set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_process_groups(command: str) -> None:
    """Raise a UserError on Windows."""
    if not hasattr(os, "killpg"):
        raise UserError(f"{command}: needs process groups, which Windows has not; use WSL, or a W&B agent")


def last_words(log: Path, code: int) -> str:
    """The line of a log that says why a run failed: its `error:`, else the last one, the end of a traceback."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    how = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    return (errors or lines or [how])[-1] if code >= 0 else f"{how}; last line: {lines[-1] if lines else ''}"


def share_of(slot: int, slots: int) -> dict[str, str]:
    """What the environment of a slot's trainings says: its part of the listed GPUs, and of the cores.

    Without so many GPUs listed they are not shared out. Two trainings that each compute on every core take several
    times as long as one after the other.
    """
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    share = len(listed) // slots
    own = {"CUDA_VISIBLE_DEVICES": ",".join(listed[slot * share : (slot + 1) * share])} if share else {}
    if slots > 1 and "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, cores() // slots))
    return own
