"""The study of a sweep that runs here: its storage, what each run draws, and the runs among Optuna's trials.

    runs/<sweep>/sweep.db  sweep.lock  sweep.html  logs/trial-0007.log  trial-0007/

A trial whose heartbeat has stopped, or whose process was told to stop, is failed and queued again as a new trial.
All these attempts are one run: it has the number of the first one, its values and its folder.
"""

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial
from sqlalchemy.exc import SQLAlchemyError

from lungseg.errors import SweepError
from lungseg.sweeping.parameter import Parameter
from lungseg.sweeping.schema import require
from lungseg.sweeping.spec import Sweep

STORAGE = "LUNGSEG_SWEEP_STORAGE"  # Environment: URL of a database, in place of the SQLite file in the sweep's folder.
HEARTBEAT_S, GRACE_S = 10, 120
"""Between two heartbeats, and without any before a run is taken for killed; whole seconds."""

# Heartbeats and retries are documented, and have been called experimental since 2021.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
requeue = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
"""Queues a failed trial of a study again, with its values and what it has reported."""


def folder_of(sweep: Sweep) -> Path:
    """Find the folder of a sweep: below the base config's `run.dir`, by the sweep's name made fit for a folder."""
    name = re.sub(r"[^\w.-]+", "-", sweep.name).strip("-.") or "sweep"
    return Path(sweep.config({}).run.dir) / name


def run_name(number: int) -> str:
    """Name the folder of a run."""
    return f"trial-{number:04d}"


def lock_of(sweep: Sweep) -> FileLock:
    """The lock under which runs are handed out, one process at a time."""
    return FileLock(folder_of(sweep) / "sweep.lock")


def open_study(sweep: Sweep, create: bool) -> Study:
    """Open the study of a sweep; where there is none yet, `create` begins one.

    Raises:
        FileNotFoundError: There is none.
        SweepError: The file is not the one with which the sweep was begun, or the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = folder_of(sweep)
    file, url = folder / "sweep.db", os.environ.get(STORAGE)
    if not create and not url and not file.is_file():
        raise FileNotFoundError(f"{sweep.path}: nothing has run here yet: no {str(file)!r}")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    try:
        with lock_of(sweep):  # Optuna makes its tables without one, and the tasks of an array start at the same time
            storage = RDBStorage(
                url or f"sqlite:///{file}",
                # SQLite waits 5 s for another process by default, too little where many workers write.
                engine_kwargs={"connect_args": {"timeout": 60}} if (url or "sqlite:").startswith("sqlite:") else None,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=requeue,
            )
            study = optuna.create_study(
                storage=storage, study_name=str(folder), direction=sweep.metric.goal, load_if_exists=True
            )
            _check_same(sweep, study)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        raise SweepError(f"{STORAGE if url else file}: cannot be used: {str(error).splitlines()[0]}") from error
    return study


def sampler(sweep: Sweep, seed: int) -> BaseSampler:
    """Build Optuna's sampler for the method of a sweep: grid, random, or for bayes the Parzen estimator (TPE).

    Every run needs a seed of its own, else a sweep that is continued would draw its first runs again.
    """
    if sweep.method == "grid":
        words = {name: list(map(repr, sweep.parameters[name].grid_values() or ())) for name in sweep.varying()}
        return GridSampler(words, seed=0)  # one order of the points in all processes
    return RandomSampler(seed) if sweep.method == "random" else TPESampler(seed=seed)


def draw(trial: Trial, parameter: Parameter, grid: bool) -> Any:
    """Draw the value of a parameter from what Optuna has: floats, whole numbers and choices.

    The rest of W&B's distributions (normal, beta, values with probabilities) is drawn as a share in [0, 1] of the
    distribution: the same law, and TPE still sees which values are neighbours.
    """
    name, kind, numbers = parameter.name, parameter.kind, parameter.numbers
    if kind == "value":
        return parameter.values[0]
    options = parameter.grid_values() if grid or kind == "values" else None
    if options is not None:
        words = list(map(repr, options))  # a list such as `[64, 32]` is no choice that Optuna can store
        return options[words.index(trial.suggest_categorical(name, words))]
    if "min" not in numbers:
        return parameter.at(trial.suggest_float(name, 0.0, 1.0))
    low, high = numbers["min"], numbers["max"]
    if kind == "int_uniform":
        return trial.suggest_int(name, int(low), int(high))
    if kind == "q_uniform":
        # Optuna counts its steps from the lower end, W&B rounds to multiples of q: so the multiple is drawn.
        step = numbers["q"]
        return parameter.rounded(trial.suggest_int(name, round(low / step), round(high / step)) * step)
    return parameter.rounded(trial.suggest_float(name, low, high, log="log" in kind))


def run_number(trial: FrozenTrial) -> int:
    """Number of the run that a trial is an attempt at."""
    first = requeue.retried_trial_number(trial)
    return trial.number if first is None else first


def runs_of(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The latest attempt at each run, by the run's number. Later attempts take numbers too, so numbers have gaps."""
    return {run_number(trial): trial for trial in trials}


def best_run(runs: Mapping[int, FrozenTrial], sweep: Sweep) -> int | None:
    """Number of the finished run with the best value."""
    values = {number: trial.value for number, trial in runs.items() if trial.state.name == "COMPLETE"}
    return max(values, key=lambda number: sweep.metric.sign * (values[number] or 0.0), default=None)


def _check_same(sweep: Sweep, study: Study) -> None:
    """Runs must be comparable: a sweep may go on with another run_cap, but not with these changed."""
    asked = {"method": sweep.method, "metric": f"{sweep.metric.name}, {sweep.metric.goal}"}
    asked |= {key: parameter.describe() for key, parameter in sweep.parameters.items()}
    if "asked" not in study.user_attrs:
        study.set_user_attr("asked", asked)
    before = study.user_attrs["asked"]
    for key in {**before, **asked}:
        require(
            asked.get(key) == before.get(key),
            f"{sweep.path}: {key}: the runs in {study.study_name!r} were made with {before.get(key)!r}, got "
            f"{asked.get(key)!r}; give the sweep another name, or move the folder away",
        )
