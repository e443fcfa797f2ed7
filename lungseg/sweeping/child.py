"""One run of a local sweep as a process of its own, which takes all its processes with it when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lungseg.training.trial import JOURNAL, LIFELINE, PATIENCE_S, TRIAL

_OF_A_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "WANDB_RUN_ID"),
)
"""What a launcher told this process: started by srun or not, its runs are nobody's second rank, and no two are one."""


class Child:
    """A running fit, in a session and process group of its own.

    If this process dies without a word, a pipe closes, on which the fit ends itself
    (`lungseg.training.trial.hold_lifeline`).

    Args:
        arguments: The command line.
        log: Takes standard output and error, after what is there already.
        journal: File of the sweep.
        number: Of the trial in it.
        environment: More variables, over those of this process.
    """

    def __init__(self, arguments: Sequence[str], log: Path, journal: Path, number: int, environment: Mapping[str, str]):
        ours = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
        theirs, self._lifeline = os.pipe()
        self._closed = False
        link = {JOURNAL: str(journal), TRIAL: str(number), LIFELINE: str(theirs)}
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    list(arguments),
                    env=ours | dict(environment) | link,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(theirs,),
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)

    @property
    def code(self) -> int | None:
        """Exit code, a signal's number below 0; None while it runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Send SIGTERM to the whole group."""
        self._signal(signal.SIGTERM)

    def wait(self, in_a_hurry: Callable[[], bool]) -> None:
        """Give it `PATIENCE_S` to end, or until there is no time for that."""
        end = time.monotonic() + PATIENCE_S
        while self.code is None and time.monotonic() < end and not in_a_hurry():
            time.sleep(0.1)

    def close(self) -> None:
        """Kill what is left of the group; may be said twice."""
        if self._closed:
            return
        self._closed = True
        self._signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._lifeline)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal a group of zombies
            os.killpg(self._process.pid, number)
