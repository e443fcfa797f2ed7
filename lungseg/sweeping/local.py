"""A sweep run here, without a server: `python -m lungseg.sweep run FILE --count N`.

Workers take runs from Optuna's study, train each in a process of its own, report its metric from the run's
`metrics.csv`, and end it early where it falls behind. The same command continues a sweep that was cut short, and
started several times it shares the runs out.
"""

import csv
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from filelock import Timeout
from optuna import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from lungseg.runs.run import Run
from lungseg.sweeping import trials as attempts
from lungseg.sweeping.child import (
    INTERRUPTED,
    Child,
    Stop,
    check_process_groups,
    last_words,
    share_of,
    work_side_by_side,
)
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.trials import best_run, draw, folder_of, open_study, requeue, run_name, run_number, runs_of

_POLL_S, _IDLE_S = 0.2, 1.0


class _LetGo(BaseException):
    """Leaves `Study.optimize` without an outcome: whatever is an Exception would become one."""


def run_sweep(sweep: Sweep, count: int | None = None, workers: int = 1) -> int:
    """Run a sweep up to so many runs in all; give the exit code: 1 if no run has succeeded, 128 + signal if stopped.

    Args:
        sweep: A checked file.
        count: Runs in all, those of earlier calls and of other processes included; None: as the file says.
        workers: Runs at the same time. Where CUDA_VISIBLE_DEVICES lists at least as many GPUs, each gets its part.

    Raises:
        UserError: On Windows.
    """
    check_process_groups("lungseg.sweep run")
    total = sweep.total(count)
    study, stop = open_study(sweep, create=True), Stop()
    print(f"sweep {sweep.name}: {sweep.method}, {total} runs in all, in {folder_of(sweep)}", flush=True)
    work_side_by_side([Worker(sweep, study, total, stop, share_of(n, workers)).work for n in range(workers)], stop)
    if stop.number:
        return stop.exit_code()
    states = [trial.state for trial in runs_of(study.get_trials(deepcopy=False)).values()]
    names = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}
    names[TrialState.RUNNING] = "running elsewhere"
    parts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    print(f"{len(states)} runs: {parts}; see python -m lungseg.sweep status {sweep.path}", flush=True)
    return 0 if {TrialState.COMPLETE, TrialState.RUNNING} & set(states) else 1


class Worker:
    """Does one run after the other until there are `total`, whoever did them, failed ones included.

    The workers of a process share a study and what stops them; each has an environment for its runs.
    """

    def __init__(self, sweep: Sweep, study: Study, total: int, stop: Stop, environment: dict[str, str]):
        self._sweep, self._study, self._total, self._stop, self._environment = sweep, study, total, stop, environment
        self._folder, self._lock = folder_of(sweep), attempts.lock_of(sweep)

    def work(self) -> None:
        """Take runs; where none is left, wait until none can come back from a process that was killed."""
        until = math.inf
        while not self._stop.is_set():
            try:
                # Optuna asks inside `optimize`, which alone keeps heartbeats; `_train` gives the lock free.
                with self._lock.acquire(timeout=_IDLE_S):
                    if self._has_work():
                        until = math.inf
                        self._study.optimize(self._train, n_trials=1, callbacks=[self._say_outcome])
                        continue
            except (Timeout, _LetGo):
                continue
            # A run of another process may have died with it, which shows only when its heartbeat has stood still.
            until = min(until, time.monotonic() + attempts.GRACE_S + attempts.HEARTBEAT_S)
            if time.monotonic() > until or not self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
            self._stop.wait(_IDLE_S)
            optuna.storages.fail_stale_trials(self._study)

    def _has_work(self) -> bool:
        trials = self._study.get_trials(deepcopy=False)
        runs, metric = runs_of(trials), self._sweep.metric
        self._study.sampler = attempts.sampler(self._sweep, seed=len(runs))
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        enough = metric.target is not None and any(metric.sign * (v - metric.target) >= 0 for v in values)
        is_waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return is_waiting or (len(runs) < self._total and not enough)

    def _train(self, trial: Trial) -> float:
        """Do one run and give its metric; not a number if it failed."""
        sweep, metric = self._sweep, self._sweep.metric.name
        # A run that was cut short keeps its values, with which its checkpoint was made.
        values = trial.user_attrs.get("values") or {
            name: draw(trial, parameter, sweep.method == "grid") for name, parameter in sweep.parameters.items()
        }
        trial.set_user_attr("values", values)
        self._lock.release()
        before = self._frozen(trial)
        name, reported = run_name(run_number(before)), dict(before.intermediate_values)
        run, log = Run(self._folder / name), self._folder / "logs" / f"{name}.log"
        code = 0
        if not run.metrics_json.is_file():  # else killed between the end of the run and our record of it
            code = self._follow(trial, run, self._start(run, log, values), reported)
        self._report(trial, run, reported)
        value = final_value(run, metric) if code == 0 else math.nan
        if code or not math.isfinite(value):
            trial.set_user_attr("error", last_words(log, code) if code else f"error: no number logged as {metric}")
        return value

    def _start(self, run: Run, log: Path, values: dict[str, Any]) -> Child:
        """Start the fit in its folder; one that was cut short goes on from its checkpoint, if it got to one."""
        words: dict[str, Any] = {"run.dir": self._folder, "run.name": run.name}
        if run.folder.exists():
            words["run.resume"] = True
        shown = ", ".join(f"{name}={short(value)}" for name, value in values.items())
        _say(run.name, f"{'continued, ' if 'run.resume' in words else ''}{shown}; output in {log}")
        arguments = self._sweep.run_arguments(values, sys.executable)
        arguments += [f"{name}={value}" for name, value in words.items()]  # last, so that they hold
        return Child(arguments, log, self._environment)

    def _follow(self, trial: Trial, run: Run, child: Child, reported: dict[int, float]) -> int:
        """Wait for the end of a fit and give its exit code; leave earlier if it, or this process, is to stop."""
        try:
            checked = time.monotonic()
            while (code := child.code) is None and not self._stop.wait(_POLL_S):
                if self._report(trial, run, reported):
                    raise optuna.TrialPruned
                if time.monotonic() - checked > attempts.HEARTBEAT_S:
                    checked = time.monotonic()
                    if self._frozen(trial).state != TrialState.RUNNING:
                        _say(run.name, "stood still for too long; another process has taken it over")
                        raise _LetGo
            # A scheduler signals this process and the run in any order: was the run ended by it, ours decides.
            if code is None or (code in INTERRUPTED and self._stop.wait(2.0)):
                _say(run.name, "is ended, to be continued; once more to kill")
                child.end(lambda: self._stop.twice)
                self._study.tell(trial.number, state=TrialState.FAIL)
                requeue(self._study, self._frozen(trial))
                raise _LetGo
            return code
        finally:
            child.end(lambda: self._stop.twice)

    def _report(self, trial: Trial, run: Run, reported: dict[int, float]) -> bool:
        """Report the epochs that are new in `metrics.csv`; whether the run is to be stopped for what they say.

        A resumed run may log an epoch a second time; what was reported first stays.
        """
        new = {n: value for n, value in epochs_of(run, self._sweep.metric.name).items() if n not in reported}
        for count, value in new.items():
            trial.report(value, count)
        reported |= new
        early = self._sweep.early_terminate
        # Asked many times an epoch, so the config is only resolved where something is new.
        if early is None or not new or max(new) >= (epochs := self._sweep.epochs(trial.user_attrs["values"])):
            return False
        runs = runs_of(self._study.get_trials(deepcopy=False)).values()
        others = [other.intermediate_values for other in runs if other.number != trial.number]
        return early.is_behind(reported, others, epochs, self._sweep.metric.goal)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        """Read a trial as it now stands in the storage."""
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _say_outcome(self, study: Study, trial: FrozenTrial) -> None:
        name, epochs = run_name(run_number(trial)), len(trial.intermediate_values)
        value = math.nan if trial.value is None else trial.value
        runs = runs_of(study.get_trials(deepcopy=False))
        best = best_run(runs, self._sweep)
        leader = "none has finished yet" if best is None else f"best is run {best}, {runs[best].value:.4f}"
        if trial.state == TrialState.FAIL:
            _say(name, f"failed: {trial.user_attrs['error']}")
        elif trial.state == TrialState.PRUNED:
            _say(name, f"stopped early, after {epochs} epochs, {self._sweep.metric.name} {value:.4f}; {leader}")
        else:
            _say(name, f"{self._sweep.metric.name} {value:.4f} after {epochs} epochs; {leader}")


def epochs_of(run: Run, metric: str) -> dict[int, float]:
    """The metric by how many epochs had been done, as logged so far; a row that is being written is left for later.

    An epoch counts once its row holds the losses of training too: they are written after the epoch's checkpoints, so
    that a run which is ended for what it has logged can still be continued or evaluated where it stood.
    """
    if not run.metrics_csv.is_file():
        return {}
    lines = run.metrics_csv.read_text().rpartition("\n")[0].splitlines()
    rows = [row for row in csv.DictReader(lines, restval="") if all(map(row.get, ("epoch", metric, "train/loss")))]
    return {int(row["epoch"]) + 1: float(row[metric]) for row in rows}


def final_value(run: Run, metric: str) -> float:
    """The metric of a finished run: at its best checkpoint where it is known there, else as last logged, else nan."""
    numbers = json.loads(run.metrics_json.read_text()) if run.metrics_json.is_file() else {}
    value = float(numbers.get(metric, [math.nan, *epochs_of(run, metric).values()][-1]))
    return value if math.isfinite(value) else math.nan


def short(value: Any) -> str:
    """Write a value for people: a float with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(name: str, line: str) -> None:
    print(f"run {int(name.rpartition('-')[2])}: {line}", flush=True)
