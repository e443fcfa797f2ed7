"""One training as a process of its own, which takes all its processes with it when it ends."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

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
