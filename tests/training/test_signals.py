"""Signals become an exception in the main thread, once, and the handlers from before come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from lungseg.data.datamodule import _leave_signals_to_parent
from lungseg.training.signals import SignalHandler, Stopped

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTHING: Any = None


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    """What a signal does in a fresh process: `nohup`, and `&` in a script, ignore some. SIGCHLD is not given back."""
    session = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGCHLD)}
    for number in NUMBERS:
        signal.signal(number, signal.default_int_handler)
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == [signal.default_int_handler] * 3
    for number, handler in session.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_an_exit_with_its_code_and_the_next_one_at_once_is_the_same(
    number: signal.Signals, code: int
) -> None:
    with pytest.raises(Stopped, match=str(code)) as stopped, SignalHandler() as signals:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            assert signals.exit_code == code
    assert stopped.value.code == code and stopped.value.signal_name == number.name


def test_a_second_signal_some_seconds_later_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with pytest.raises(Stopped, match="130"), SignalHandler() as signals:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            signals._received_s -= 10
            os.kill(os.getpid(), signal.SIGINT)
            assert raised == [signal.SIGINT] and signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_a_signal_inside_of_a_destructor_stops_at_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))
    with SignalHandler() as signals:
        signals.on_train_batch_start(NOTHING, NOTHING, NOTHING, 0)
        Closing().__class__  # noqa: B018  # made and gone
        assert dropped == [Stopped]
        with pytest.raises(Stopped, match="143"):
            signals.on_train_batch_start(NOTHING, NOTHING, NOTHING, 1)


@pytest.mark.parametrize("release", ["on_train_epoch_start", "on_train_end"])
def test_a_signal_between_the_checkpoint_and_its_row_of_metrics_waits_for_the_row(release: str) -> None:
    with SignalHandler() as signals:
        signals.on_train_epoch_end(NOTHING, NOTHING)
        getattr(signals, release)(NOTHING, NOTHING)
        signals.on_train_epoch_end(NOTHING, NOTHING)
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Stopped, match="129"):
            getattr(signals, release)(NOTHING, NOTHING)


def test_what_fails_after_a_signal_is_its_consequence() -> None:
    with pytest.raises(Stopped, match="143"), SignalHandler() as signals:
        signals.on_train_epoch_end(NOTHING, NOTHING)
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("connection closed by peer")


@pytest.mark.parametrize("hook", ["on_sanity_check_start", "on_train_start", "on_test_start"])
def test_handlers_that_the_trainer_sets_are_replaced_and_not_kept(hook: str) -> None:
    with pytest.raises(Stopped, match="143"), SignalHandler() as signals:
        signal.signal(signal.SIGTERM, lambda *_: None)
        getattr(signals, hook)(NOTHING, NOTHING)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with SignalHandler():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, signal.default_int_handler) == signal.SIG_IGN


def test_a_child_of_lightnings_launcher_ignores_all_of_them() -> None:
    with SignalHandler(ignore=True) as signals:
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        assert signals.exit_code is None


class _Signalled:
    """A data set whose reading sends a signal to the worker that reads."""

    def __init__(self, number: int):
        self.number = number

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), self.number)
        return index


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_worker_leaves_ctrl_c_and_a_closed_terminal_to_its_parent(number: int) -> None:
    with SignalHandler():
        loader = DataLoader(_Signalled(number), num_workers=1, worker_init_fn=_leave_signals_to_parent)  # type: ignore[arg-type]
        assert [batch.tolist() for batch in loader] == [[0]]


_DEAF = """
import ctypes, os, signal, threading, time
from lungseg.training import signals
signals._DEAF_S = 0.5
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with signals.SignalHandler():
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # never comes back, as a collective call whose other rank hangs
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a lock of its C library")
def test_a_process_that_waits_in_compiled_code_is_ended_all_the_same() -> None:
    ended = subprocess.run([sys.executable, "-c", _DEAF], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == "stopped by SIGTERM: killed, for it waited for another process\n"


_FINISHED = """
import atexit, os, runpy, signal
import lungseg.command
lungseg.command.run_command = lambda *_: 0
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
runpy.run_module("lungseg.fit", run_name="__main__")
"""


def test_a_signal_to_a_finished_fit_changes_nothing() -> None:
    assert subprocess.run([sys.executable, "-c", _FINISHED], timeout=120, check=False).returncode == 0
