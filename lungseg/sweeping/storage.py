"""What a local sweep keeps on the disk: Optuna's journal, signs of life of its runs, their logs, and the run folders.

    runs/<sweep>/journal.log  beats/trial-0007  logs/trial-0007.log  trial-0007/  sweep.html

Processes and machines that share the disk work on one sweep; all that they know of each other is in this folder.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.errors import SweepError
from lungseg.sweeping.spec import Sweep
from lungseg.training.trial import mend_journal, open_journal

if TYPE_CHECKING:
    from optuna import Study

BEAT_S = 5.0
STALE_S = 120.0
"""Between two signs of life, and without any before a run is taken for killed; seconds."""
_LOCK_S = 60
"""Until a lock whose owner was killed is broken: more than the journal's 30 s, which the owner may have to wait, and
with these less than `STALE_S`, since who waits for a lock gives no sign of life."""


class SweepFolder:
    """Places of one sweep on the disk.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.journal = path / "journal.log"

    @classmethod
    def of(cls, sweep: Sweep) -> SweepFolder:
        """Find the folder: below the base config's `run.dir`, by the sweep's name made fit for a folder."""
        name = re.sub(r"[^\w.-]+", "-", sweep.name).strip("-.") or "sweep"
        return cls(Path(sweep.config({}).run.dir) / name)

    def run(self, number: int) -> Path:
        """Run folder of a trial."""
        return self.path / run_name(number)

    def log(self, number: int) -> Path:
        """What a trial printed."""
        return self.path / "logs" / f"{run_name(number)}.log"

    def beat(self, number: int) -> None:
        """Say that the process which runs a trial is alive."""
        self._beat(run_name(number)).touch()

    def beaten(self, number: int) -> float:
        """When a trial's process last said that it is alive, by the disk's own clock; never: 0."""
        try:
            with self._beat(run_name(number)).open() as file:  # opening makes NFS ask the server anew
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return 0.0

    def silent_s(self, number: int) -> float:
        """Seconds since then; both times are the disk's, so that clocks of machines may differ."""
        now = self._beat(f".now-{socket.gethostname()}-{os.getpid()}")
        now.touch()
        try:
            return now.stat().st_mtime - self.beaten(number)
        finally:
            now.unlink()

    def _beat(self, name: str) -> Path:
        return self.path / "beats" / name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from handing out trials."""
        from optuna.storages.journal import JournalFileOpenLock

        lock = JournalFileOpenLock(str(self.path / "queue"), grace_period=_LOCK_S)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()


def run_name(number: int) -> str:
    """Name a trial's run folder."""
    return f"trial-{number:04d}"


def open_study(sweep: Sweep, folder: SweepFolder, make: bool) -> Study:
    """Open the sweep of a folder, or begin it.

    Args:
        sweep: The checked file.
        folder: Its place.
        make: Begin it if there is none yet; else that is a FileNotFoundError.

    Raises:
        SweepError: The file is not the one with which the sweep was begun, or Optuna is missing.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SweepError(f"{sweep.path}: a sweep run here needs the extra: pip install 'lungseg[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not make:
        if not folder.journal.is_file():
            raise FileNotFoundError(f"{sweep.path}: nothing has run here yet: no {str(folder.journal)!r}")
        study = optuna.load_study(study_name=None, storage=open_journal(folder.journal))
        _check_same(sweep, folder, study)
        return study
    for name in ("beats", "logs"):
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    with folder.lock():
        mend_journal(folder.journal)
        storage, goal = open_journal(folder.journal), sweep.metric.goal
        study = optuna.create_study(storage=storage, study_name="sweep", direction=goal, load_if_exists=True)
        if "asked" not in study.user_attrs:
            study.set_user_attr("metric", sweep.metric.name)
            study.set_user_attr("asked", _asked(sweep))
    _check_same(sweep, folder, study)
    return study


def _asked(sweep: Sweep) -> dict[str, str]:
    """What makes runs comparable: a sweep may go on with another run_cap, but not with these changed."""
    asked = {"method": sweep.method, "metric": f"{sweep.metric.name}, {sweep.metric.goal}"}
    return asked | {name: parameter.describe() for name, parameter in sweep.parameters.items()}


def _check_same(sweep: Sweep, folder: SweepFolder, study: Study) -> None:
    asked, before = _asked(sweep), study.user_attrs["asked"]
    for key in {**before, **asked}:
        if asked.get(key) != before.get(key):
            raise SweepError(
                f"{sweep.path}: {key}: the runs in {str(folder.path)!r} were made with {before.get(key)!r}, "
                f"got {asked.get(key)!r}; give the sweep another name, or move the folder away"
            )
