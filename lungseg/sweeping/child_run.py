"""One trial of a local sweep as a fit in a process of its own: started, followed, and what came of it written down."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lungseg.sweeping.child import Child
from lungseg.sweeping.outcome import FINISHED, epochs, final_value, last_words, short
from lungseg.sweeping.queue import Queue, best_trial
from lungseg.sweeping.storage import BEAT_S, STALE_S, run_name

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_GRACE_S = 2.0
_INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)


class ChildRun:
    """A trial of this process, from its start on.

    Args:
        queue: Where the trial comes from.
        trial: As `Queue.next` gave it.
        slot: Position among the runs at the same time.
        slots: How many there are.
    """

    def __init__(self, queue: Queue, trial: FrozenTrial, slot: int = 0, slots: int = 1):
        self._queue, self._trial, self._number = queue, trial, trial.number
        self._run, self._log = queue.folder.run(trial.number), queue.folder.log(trial.number)
        self._beaten = time.monotonic()
        self._ended: float | None = None  # when it was seen to have ended by a signal that we may get too
        self._child: Child | None = None
        if (self._run / FINISHED).is_file():
            return  # killed between the end of the run and our note of it
        words = self._words()
        values = ", ".join(f"{name}={short(value)}" for name, value in trial.user_attrs["values"].items())
        self._say(f"{'continued, ' if 'run.resume' in words else ''}{values}; output in {self._log}")
        arguments = queue.sweep.run_arguments(trial.user_attrs["values"], sys.executable)
        arguments += [f"{name}={value}" for name, value in words.items()]  # last, so that they hold
        self._child = Child(arguments, self._log, queue.folder.journal, self._number, _devices(slot, slots))

    def is_over(self) -> bool:
        """Look after the run; True once it has ended and its outcome is in the journal."""
        if self._child is None:
            self._conclude(0)
            return True
        code = self._child.code
        if code is None:
            return self._has_lost_its_trial()
        if code in _INTERRUPTED:  # a scheduler signals us both, in any order: ours decides
            self._ended = self._ended or time.monotonic()
            if time.monotonic() - self._ended < _GRACE_S:
                return False
        self._child.close()
        self._conclude(code)
        return True

    def ask_to_end(self) -> None:
        """Send the fit SIGTERM."""
        if self._child is not None:
            self._child.ask_to_end()

    def cut_short(self, in_a_hurry: Callable[[], bool]) -> None:
        """Wait until the fit has ended as asked, or kill it; its trial goes back into the queue."""
        if self._child is not None:
            self._child.wait(in_a_hurry)
            self._child.close()
        self._queue.put_back(self._number)

    def _words(self) -> dict[str, Any]:
        """Place of the run; one that was cut short goes on from its checkpoint."""
        words: dict[str, Any] = {"run.dir": self._queue.folder.path, "run.name": run_name(self._number)}
        if (self._run / "checkpoints" / "last.ckpt").is_file():
            words["run.resume"] = True
        elif self._run.exists():  # not one epoch is kept in it: out of the way, but not thrown away
            taken = len(list(self._run.parent.glob(f"{self._run.name}.cut-*")))
            self._run.rename(self._run.with_name(f"{self._run.name}.cut-{taken + 1}"))
        return words

    def _has_lost_its_trial(self) -> bool:
        """Give a sign of life; where none was given for too long, another process may have taken the trial over."""
        if time.monotonic() - self._beaten < BEAT_S:
            return False
        self._beaten = time.monotonic()
        if self._queue.is_ours(self._number):
            self._queue.folder.beat(self._number)
            return False
        assert self._child is not None
        self._child.close()
        self._say(f"stood still for {STALE_S:.0f} s; another process has taken it over")
        return True

    def _conclude(self, code: int) -> None:
        """Write down how the run ended and say so."""
        from optuna.trial import TrialState

        study, metric = self._queue.study, self._queue.sweep.metric.name
        if not self._queue.is_ours(self._number):
            return
        value = final_value(self._run, metric) if code == 0 else None
        done = epochs(self._run, metric)
        self._queue.note(self._number, "epochs", done)
        stopped = self._queue.trial(self._number).user_attrs.get("stopped_after")
        if value is None:
            line = last_words(self._log, code) if code else f"error: no number logged as {metric}"
            self._queue.note(self._number, "error", line)
            study.tell(self._number, state=TrialState.FAIL)
            self._say(f"failed: {line}")
        elif stopped is None:
            study.tell(self._number, value)
            self._say(f"{metric} {value:.4f} after {done} epochs; {self._best()}")
        else:
            study.tell(self._number, state=TrialState.PRUNED)
            self._say(f"stopped early, after {done} epochs, {metric} {value:.4f}; {self._best()}")

    def _best(self) -> str:
        best = best_trial(self._queue.study)
        return f"best is run {best.number}, {best.value:.4f}" if best else "none has finished yet"

    def _say(self, line: str) -> None:
        print(f"run {self._number}: {line}", flush=True)


def _devices(slot: int, slots: int) -> dict[str, str]:
    """The part of the listed GPUs that a slot gets; nothing where too few are listed to share them out."""
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    share = len(listed) // slots
    return {"CUDA_VISIBLE_DEVICES": ",".join(listed[slot * share : (slot + 1) * share])} if share else {}
