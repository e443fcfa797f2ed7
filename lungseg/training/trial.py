"""What a training knows of the local sweep that started it: its journal, its trial, and the pipe that ends with it.

`lungseg.sweeping` sets the environment and opens the journal by the same function. No Lightning here.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

JOURNAL = "LUNGSEG_SWEEP_JOURNAL"
TRIAL = "LUNGSEG_SWEEP_TRIAL"
LIFELINE = "LUNGSEG_SWEEP_LIFELINE"
"""Environment: the sweep's journal, the number of the trial in it, the reading end of a pipe from the sweep."""

PATIENCE_S = 30.0
"""Between asking processes to end and killing them, as W&B's agent has it."""

History = Mapping[int, float]
"""The metric of one run by how many times it had been logged: 1, 2, ..."""


class RunningTrial:
    """The trial that this process works on.

    Args:
        journal: File of the sweep.
        number: Of the trial in it.
    """

    def __init__(self, journal: Path, number: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.RandomSampler()  # never asked: the sweep has drawn the values
        self._study = optuna.load_study(study_name=None, storage=open_journal(journal), sampler=sampler)
        frozen = self._study.get_trials(deepcopy=False)[number]
        self._trial = optuna.trial.Trial(self._study, frozen._trial_id)
        self._sign = 1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
        self.metric: str = self._study.user_attrs["metric"]

    def report(self, value: float, count: int) -> bool:
        """Report the metric as logged for the `count`-th time; say whether the run is to stop here.

        A resumed run may come to a value twice; the first one stays.
        """
        if count not in self._histories()[self._trial.number]:
            self._trial.report(value, count)
        rule = self._trial.user_attrs["hyperband"]
        return rule is not None and is_behind(self._histories(), self._trial.number, sign=self._sign, **rule)

    def stopped(self, count: int) -> None:
        """Leave word that the run ends early because of the answer to its report."""
        self._trial.set_user_attr("stopped_after", count)

    def _histories(self) -> list[History]:
        return [trial.intermediate_values for trial in self._study.get_trials(deepcopy=False)]


def is_behind(
    histories: Sequence[History], own: int, *, brackets: Sequence[int], eta: float, strict: bool, sign: int = 1
) -> bool:
    """Whether a run is not among the best at the last bracket it has reached: W&B's rule for `hyperband`.

    Of n runs that have reached the bracket, finished and stopped ones included, the best int(n / eta) + 1 go on.
    This is successive halving (Li et al., JMLR 18, 2018) that waits for nobody: the first run to come is never stopped.

    Args:
        histories: Of all runs.
        own: Position of the run asked about.
        brackets: Counts at which runs are compared, ascending.
        eta: Share that goes on is 1 / eta.
        strict: Compare values at the bracket; else the best up to there.
        sign: 1 if larger is better, -1 if smaller is. What is not a number is worst.
    """
    reached = [bracket for bracket in brackets if bracket in histories[own]]
    if not reached:
        return False

    def score(history: History) -> float:
        counts = [reached[-1]] if strict else [count for count in history if count <= reached[-1]]
        return max(-math.inf if math.isnan(history[count]) else sign * history[count] for count in counts)

    ranked = sorted((score(history) for history in histories if reached[-1] in history), reverse=True)
    mine = score(histories[own])
    return mine == -math.inf or mine < ranked[min(int(len(ranked) / eta), len(ranked) - 1)]


def open_journal(path: Path) -> JournalStorage:
    """Open or make a journal for this process among others on the same disk.

    The lock is a file that only one process can create, which holds on a local disk, Lustre and NFS from version 3 on;
    one that its owner left behind (killed while writing) is broken after 30 s.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def mend_journal(path: Path) -> None:
    """Cut off a last line that was not written to its end (full disk, power cut), which would spoil the next one."""
    from optuna.storages.journal import JournalFileOpenLock

    if not path.exists():
        return
    lock = JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def hold_lifeline(environment: MutableMapping[str, str] = os.environ) -> None:
    """End this process and its group when the sweep that started it is gone, however it died.

    The variable is taken out of the environment: processes started from here have not inherited the pipe.
    """
    end = environment.pop(LIFELINE, None)
    if end is not None:
        threading.Thread(target=_end_with, args=(int(end),), daemon=True).start()


def _end_with(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    leads = os.getpgrp() == os.getpid()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if leads:
            os.killpg(os.getpgrp(), number)
        else:
            os.kill(os.getpid(), number)
        time.sleep(PATIENCE_S)
