"""The runs of a study, one after another or side by side, by as many processes as share its folder.

    runs/<study>/definition.json  logs/conv-seed0-fold1.log  conv-seed0-fold1/

A run is done when its evaluation is there. Whoever works on one holds its lock, which the system takes back from a
process that dies; the next to come goes on from the run's last whole epoch.
"""

import sys
from collections import deque
from functools import partial

from filelock import FileLock, Timeout

from lungseg.errors import SweepError
from lungseg.runs.run import METRICS_FILE
from lungseg.sweeping.child import (
    INTERRUPTED,
    Child,
    Stop,
    check_process_groups,
    last_words,
    share_of,
    work_side_by_side,
)
from lungseg.sweeping.study import Study, StudyRun, keep_definition

_POLL_S = 0.2
_MEASURES_LITTLE = ("--no-report", "--faithfulness=0", "--robustness=0", "--shortcuts=0", "--bootstraps=200")
"""Options of the evaluation of a run: the study's intervals are its own, from what is kept of each image."""


def is_done(study: Study, run: StudyRun) -> bool:
    """Whether a run was trained and evaluated."""
    return (study.run(run).evaluation(study.split) / METRICS_FILE).is_file()


def run_study(study: Study, workers: int = 1) -> int:
    """Do what is not done yet; give the exit code: 1 if a run has failed, 128 + signal if stopped.

    Args:
        study: A checked file.
        workers: Runs at the same time; the GPUs that CUDA_VISIBLE_DEVICES lists, and the cores, are shared out.

    Raises:
        UserError: On Windows, a variable that is not set, or runs that were made with another definition.
    """
    check_process_groups("lungseg.study")
    for name in study.missing:
        raise SweepError(f"{study.path}: ${{envvar:{name}}}: {name} is not set; export {name}=...")
    (study.folder / "logs").mkdir(parents=True, exist_ok=True)
    with FileLock(study.folder / "logs" / "definition.lock"):
        keep_definition(study)
    waiting = deque(run for run in study.runs if not is_done(study, run))
    done = len(study.runs) - len(waiting)
    print(f"study {study.name}: {len(study.runs)} runs, {done} done, in {study.folder}", flush=True)
    stop, failed = Stop(), list[str]()

    def work(environment: dict[str, str]) -> None:
        while waiting and not stop.is_set():
            try:
                run = waiting.popleft()  # another thread may have taken the last
            except IndexError:
                return
            if error := _do(study, run, stop, environment):
                failed.append(run.name)
                _say(run, f"failed: {error}")

    work_side_by_side([partial(work, share_of(slot, workers)) for slot in range(workers)], stop)
    return stop.exit_code() if stop.number else int(bool(failed))


def _do(study: Study, run: StudyRun, stop: Stop, environment: dict[str, str]) -> str | None:
    """Train and evaluate a run that nobody else is at; why it failed, if it did."""
    logs, folder = study.folder / "logs", study.run(run)
    try:
        with FileLock(logs / f"{run.name}.lock", timeout=0):
            if is_done(study, run):
                return None
            log = logs / f"{run.name}.log"
            if not folder.metrics_json.is_file():
                words = study.run_words(run)
                if folder.folder.exists():
                    words.append("run.resume=true")
                _say(run, f"{'continued' if folder.folder.exists() else 'started'}; output in {log}")
                child = Child(
                    [sys.executable, "-m", "lungseg.fit", "--config", str(study.config), *words], log, environment
                )
                if code := _wait(child, stop):
                    return last_words(log, code)
            if stop.is_set():
                return None
            asked = [f"--checkpoint={folder.folder}", f"data.split={study.split}", *_MEASURES_LITTLE]
            child = Child([sys.executable, "-m", "lungseg.evaluate", *asked], log, environment)
            if code := _wait(child, stop):
                return last_words(log, code)
            if not stop.is_set():
                _say(run, "done")
    except Timeout:
        _say(run, "is done by another process")
    return None


def _wait(child: Child, stop: Stop) -> int:
    """Exit code of a child, or 0 where it was ended because this process is to stop."""
    try:
        while (code := child.code) is None and not stop.wait(_POLL_S):
            pass
    finally:
        child.end(lambda: stop.twice)
    # A scheduler signals this process and the child in any order: was it ended by that, it has not failed.
    if code is None or (code in INTERRUPTED and stop.wait(2.0)):
        return 0
    return code


def _say(run: StudyRun, line: str) -> None:
    print(f"{run.name}: {line}", flush=True)
