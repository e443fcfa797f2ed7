"""A signal ends a run as an exception that nobody prints: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a terminal."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(SystemExit):
    """Ends this process for a signal, or because another one failed and has said why.

    Args:
        exit_code: 128 + number of the signal, else 1.
    """

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code

    @property
    def signal_name(self) -> str | None:
        """Such as `SIGTERM`; None where a failure of another process is the reason."""
        return signal.Signals(self.exit_code - 128).name if self.exit_code > 128 else None


class Signals:
    """The handlers of this process while it runs a training; without effect outside of the main thread."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._main = threading.main_thread().ident or 0
        self._has_raised = self._is_held = False
        self._exit_code: int | None = None
        self._pending: int | None = None

    def take(self) -> None:
        """Let signals raise `Stopped` in the main thread, the first of them; again where others took them since."""
        if threading.current_thread() is not threading.main_thread():
            return
        _leave_loaders_to_us(True)
        for number in _TAKEN:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN, self._raise):  # `nohup`, and `&` in a script, ignore some
                self._before.setdefault(number, handler)
                signal.signal(number, self._raise)

    def hold(self) -> None:
        """Let signals wait until `release`: what is written now belongs together."""
        self._is_held = True

    def release(self) -> None:
        """Raise what came since `hold`."""
        self._is_held = False
        self.check()

    def check(self) -> None:
        """Raise again what is still on its way: Python drops an exception that a handler raises inside a `__del__`."""
        if self._pending is not None:
            raise Stopped(self._pending)

    def give_back(self) -> None:
        """Put back the handlers that were there before."""
        if self._before:
            _leave_loaders_to_us(False)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self, exit_code: int) -> None:
        """From another thread, let the main one raise `Stopped` with this code, if it has not yet."""
        self._exit_code = exit_code
        if self._before:
            signal.pthread_kill(self._main, signal.SIGTERM)

    def expect(self, *, more: bool) -> None:
        """Say whether one more signal may raise, or all that come are to be ignored."""
        self._has_raised, self._pending, self._is_held = not more, None, False

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if not self._has_raised:
            self._has_raised = True
            signal.signal(signal.SIGCHLD, _say_nothing)  # torch would report loaders that the same signal has ended
            self._pending = self._exit_code or 128 + number
            if not self._is_held:
                raise Stopped(self._pending)


def _say_nothing(number: int, frame: FrameType | None) -> None:
    """Not SIG_DFL: Python complains if it finds that where a signal is on its way."""


_loaders_are_ours = False


def _leave_loaders_to_us(ours: bool) -> None:
    global _loaders_are_ours
    _loaders_are_ours = ours


def _in_loader() -> None:
    """In a process forked from this one while it trains, undo the handlers; Ctrl-C goes to the whole group and is ours.

    torch sets its own for SIGTERM in loaders, a little later.
    """
    if _loaders_are_ours:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: os._exit(0))


os.register_at_fork(after_in_child=_in_loader)
