"""Signals become an exception in the main thread, once, and the handlers from before come back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from lungseg.training.signals import Signals, Stopped


@pytest.fixture
def signals() -> Iterator[Signals]:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # `nohup` and `&` in a script ignore some
        signal.signal(number, signal.default_int_handler)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    signals = Signals()
    signals.take()
    yield signals
    signals.give_back()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_an_exit_with_its_code_and_the_next_one_is_ignored(
    signals: Signals, number: signal.Signals, code: int
) -> None:
    with pytest.raises(Stopped, match=str(code)) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.code == code and stopped.value.signal_name == number.name
    os.kill(os.getpid(), number)


def test_a_signal_inside_of_a_destructor_is_not_lost(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))
    signals.check()
    Closing().__class__  # noqa: B018  # made and gone
    assert dropped == [Stopped]
    with pytest.raises(Stopped, match="143"):
        signals.check()
    signals.expect(more=False)
    signals.check()


def test_a_signal_that_is_held_stops_when_it_is_released(signals: Signals) -> None:
    signals.hold()
    signals.release()
    signals.hold()
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(Stopped, match="129"):
        signals.release()


def test_another_thread_can_stop_the_main_one_in_its_sleep(signals: Signals) -> None:
    threading.Timer(0.1, signals.stop, [1]).start()
    start = time.monotonic()
    with pytest.raises(Stopped, match="1") as stopped:
        time.sleep(20)
    assert stopped.value.code == 1 and stopped.value.signal_name is None and time.monotonic() - start < 10


def test_handlers_that_others_set_since_are_replaced_and_not_kept(signals: Signals) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signals.take()
    with pytest.raises(Stopped, match="143"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals()
    signals.take()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signals.give_back()
        assert signal.signal(signal.SIGHUP, before) == signal.SIG_IGN


def _load(up: Connection, seconds: float) -> None:
    up.send(None)
    time.sleep(seconds)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.5), (signal.SIGTERM, 100), (signal.SIGHUP, 100)])
def test_a_forked_loader_ends_as_if_done_and_leaves_ctrl_c_to_its_parent(
    signals: Signals, number: int, seconds: float
) -> None:
    ours, its = multiprocessing.Pipe()
    loader = multiprocessing.get_context("fork").Process(target=_load, args=(its, seconds))
    loader.start()
    ours.recv()
    assert loader.pid is not None
    os.kill(loader.pid, number)
    loader.join(50)
    assert loader.exitcode == 0
