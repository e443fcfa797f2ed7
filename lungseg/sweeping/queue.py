"""Who runs which trial of a local sweep, among all processes and machines that work on it.

A trial is handed out under a lock; the process that runs it touches its beat every few seconds. A beat that stands
still for `STALE_S` means that the process was killed: the trial goes back into the queue and is taken up again, under
the same number and in the same run folder, by whoever asks next. So each trial is run to its end once.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lungseg.sweeping import space
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.storage import STALE_S, SweepFolder, open_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_ASK_AGAIN_S = 1.0


class Queue:
    """Hands out the trials of a sweep, each to one process, until there are as many as wanted.

    Args:
        sweep: The checked file.
        folder: Its place.
        total: Trials in all, whoever runs them, failed ones included.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder, total: int):
        self.sweep, self.folder, self.total = sweep, folder, total
        self.study = open_study(sweep, folder, make=True)
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._seen: dict[int, float] = {}
        self._not_before = 0.0

    def next(self) -> FrozenTrial | None:
        """Hand out a trial, one that was cut short first; None if there is none to start now."""
        from optuna.trial import TrialState

        if time.monotonic() < self._not_before:
            return None
        with self.folder.lock():
            self._take_back_stale()
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if not waiting and (len(trials) >= self.total or self._target_is_reached()):
                self._not_before = time.monotonic() + _ASK_AGAIN_S
                return None
            parameters, method = self.sweep.parameters, self.sweep.method
            self.study.sampler = space.sampler(parameters, method, seed=len(trials))
            trial = self.study.ask(space.distributions(parameters, method))
            self.folder.beat(trial.number)
            trial.set_user_attr("owner", self.owner)
            trial.set_user_attr("values", space.values(parameters, method, trial.params))
            trial.set_user_attr("hyperband", self._hyperband(trial.user_attrs["values"]))
        return self.trial(trial.number)

    def trial(self, number: int) -> FrozenTrial:
        """Read a trial as it stands in the journal now."""
        return self.study.get_trials(deepcopy=False)[number]

    def is_ours(self, number: int) -> bool:
        """Whether a trial is still this process's: one that stood still for too long has lost it to another."""
        from optuna.trial import TrialState

        trial = self.trial(number)
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("owner") == self.owner

    def note(self, number: int, key: str, value: Any) -> None:
        """Write something about a trial into the journal."""
        self.study._storage.set_trial_user_attr(self.trial(number)._trial_id, key, value)

    def put_back(self, number: int) -> None:
        """Queue a trial again that was cut short."""
        with self.folder.lock():
            if self.is_ours(number):
                _requeue(self.study, self.trial(number))

    def may_hold_dead(self) -> bool:
        """Whether trials run elsewhere that have given no sign of life since this was first asked."""
        beats = {trial.number: self.folder.beaten(trial.number) for trial in _running(self.study)}
        self._seen = beats | self._seen
        return any(self._seen[number] == beat for number, beat in beats.items())

    def _take_back_stale(self) -> None:
        for trial in _running(self.study):
            ours = trial.user_attrs.get("owner") == self.owner  # the machine may have slept
            if not ours and self.folder.silent_s(trial.number) > STALE_S:
                _requeue(self.study, trial)

    def _target_is_reached(self) -> bool:
        metric = self.sweep.metric
        if metric.target is None:
            return False
        best = best_trial(self.study)
        sign = 1 if metric.goal == "maximize" else -1
        return best is not None and best.value is not None and sign * best.value >= sign * metric.target

    def _hyperband(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The rule for stopping a run with these values, as `callbacks.trial.is_behind` takes it."""
        early = self.sweep.early_terminate
        if early is None:
            return None
        try:
            epochs = self.sweep.config(values).trainer.max_epochs
        except ValueError:  # values that do not go together: the run itself will say so
            return None
        return {"brackets": early.brackets(epochs), "eta": early.eta, "strict": early.strict}


def best_trial(study: Study) -> FrozenTrial | None:
    """The finished trial with the best value; None if no run has finished."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if done else None


def _running(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _requeue(study: Study, trial: FrozenTrial) -> None:
    """Set a running trial back to waiting, with its number, values and reports; Optuna hands it out again."""
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
