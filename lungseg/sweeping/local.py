"""A sweep run here, without a server: `python -m lungseg.sweep run FILE --count N`.

Draws values, starts fits with them, follows them, writes down what came of each, until the sweep has as many runs as
wanted. The same command continues a sweep that was cut short, and started several times it shares the runs out.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType

from lungseg.errors import SweepError
from lungseg.sweeping.child_run import ChildRun
from lungseg.sweeping.queue import Queue
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.storage import SweepFolder

_POLL_S, _IDLE_S = 0.2, 1.0


class Stop:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag while it is entered, so that none of them tears a write apart."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.number = 0
        """The first signal that came; 0: none."""
        self.twice = False
        self._event = threading.Event()

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._on) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long, for a signal; whether one has come."""
        return self._event.wait(seconds)

    def _on(self, number: int, _: FrameType | None) -> None:
        self.twice = bool(self.number)
        self.number = self.number or number
        self._event.set()


def run_sweep(sweep: Sweep, count: int | None = None, workers: int = 1) -> int:
    """Run a sweep up to so many runs in all; give the exit code: 1 if no run has succeeded, 128 + signal if stopped.

    Args:
        sweep: The checked file.
        count: Runs in all, those of earlier calls and of other processes included; None: as the file says.
        workers: Runs at the same time. Where CUDA_VISIBLE_DEVICES lists at least as many GPUs, each gets its part.
    """
    total = _total(sweep, count)
    queue = Queue(sweep, SweepFolder.of(sweep), total)
    print(f"sweep {sweep.name}: {sweep.method}, {total} runs in all, in {queue.folder.path}", flush=True)
    with Stop() as stop:
        active: dict[int, ChildRun] = {}
        try:
            while not stop.number and (_fill(active, queue, workers) or queue.may_hold_dead()):
                stop.wait(_POLL_S if active else _IDLE_S)
                for slot in [slot for slot, run in active.items() if run.is_over()]:
                    del active[slot]
        finally:
            _end(active, stop)
    if stop.number:
        print(f"stopped by {signal.Signals(stop.number).name}; the same command continues", flush=True)
        return 128 + stop.number
    return _close(queue)


def _total(sweep: Sweep, count: int | None) -> int:
    limits = [count, sweep.run_cap, sweep.grid_size() if sweep.method == "grid" else None]
    known = [limit for limit in limits if limit is not None]
    if not known:
        raise SweepError(f"{sweep.path}: run_cap: missing, and a {sweep.method} sweep has no end; say --count N")
    return min(known)


def _fill(active: dict[int, ChildRun], queue: Queue, workers: int) -> bool:
    """Start runs where there is room; whether any is going on."""
    for slot in range(workers):
        if slot not in active:
            trial = queue.next()
            if trial is None:
                break
            active[slot] = ChildRun(queue, trial, slot, workers)
    return bool(active)


def _end(active: dict[int, ChildRun], stop: Stop) -> None:
    """Cut short what still runs, all of it at once, even if nobody reads any more what we print."""
    for run in active.values():
        run.ask_to_end()
    with suppress(BrokenPipeError):
        if active:
            print(f"ending {len(active)} run(s), to be continued; once more to kill", flush=True)
    for run in active.values():
        run.cut_short(in_a_hurry=lambda: stop.twice)


def _close(queue: Queue) -> int:
    """Say how it stands."""
    from optuna.trial import TrialState

    states = [trial.state for trial in queue.study.get_trials(deepcopy=False)]
    names = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}
    names[TrialState.RUNNING] = "running elsewhere"
    parts = [f"{states.count(state)} {name}" for state, name in names.items() if state in states]
    print(f"{len(states)} runs: {', '.join(parts)}; see python -m lungseg.sweep status {queue.sweep.path}", flush=True)
    return 0 if {TrialState.COMPLETE, TrialState.RUNNING} & set(states) else 1
