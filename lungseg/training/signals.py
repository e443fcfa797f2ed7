"""A signal ends a training in order: Ctrl-C, SIGTERM of a scheduler or of W&B's agent, SIGHUP of a closed terminal.

The last whole epoch is already on disk, so nothing is saved then: the run ends at once and resumes from that epoch.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_DEAF_S = 20.0
"""How long a signal may wait for Python: W&B's agent and most schedulers kill after 30 s."""
_ONE_EVENT_S = 3.0
"""Signals this close together are one: under torchrun a Ctrl-C comes from the terminal and again from the agent."""


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number (130, 143, 129) and no traceback.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal_name = signal.Signals(number).name


class SignalHandler(Callback):
    """Raises `Stopped` in the main thread at the first signal; for `with` around a training, and its first callback.

    It raises wherever the main thread is, and not at the next batch: a batch on a CPU, a cache or a report may take
    minutes, and W&B's agent kills after 30 s. Where that thread hears nothing, because it waits in compiled code for
    a rank that hangs, another one ends the process. Only what belongs together, an epoch's checkpoints and its row of
    metrics, is finished first. Outside of the main thread, where Python allows no handlers, it has no effect.

    Args:
        ignore: Ignore the signals, in a child of Lightning's launcher, which ends with rank zero: Ctrl-C reaches all
            processes of a terminal, and if a child went first, the launcher would kill rank zero in its last words.
    """

    def __init__(self, ignore: bool = False):
        self._handler: Any = signal.SIG_IGN if ignore else self._handle
        self._previous: dict[signal.Signals, Any] = {}
        self._received: int | None = None
        self._received_s = 0.0
        self._is_held = False
        self._wakeup: socket.socket | None = None
        self._wakeup_before = -1

    def __enter__(self) -> SignalHandler:
        self._install()
        if self._previous:  # in the main thread, which alone gets signals
            reader, self._wakeup = socket.socketpair()  # and not a pipe, which Windows cannot make non-blocking
            self._wakeup.setblocking(False)
            # Loaders, forked from here, take themselves off the socket (`datamodule`): their signals are their own.
            self._wakeup_before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=[reader], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            self._wakeup.shutdown(socket.SHUT_WR)  # which ends the thread, also where a loader still has a copy
            self._wakeup.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if error is not None and self._received is not None and not isinstance(error, Stopped):
            raise Stopped(self._received) from None  # such as the connection to a rank that the signal ended first

    @property
    def exit_code(self) -> int | None:
        """128 + the number of the signal that came, None before one has."""
        return None if self._received is None else 128 + self._received

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from the Trainer, whose own handler waits in a collective call for the other ranks."""
        self._install()

    on_train_start = on_test_start = on_sanity_check_start
    """Where there is no sanity check; and for the test, for which the Trainer sets its handler again."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold signals: now come the checkpoints, and after all callbacks the row of metrics."""
        self._is_held = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop for a signal that was held; also at the end of the last epoch."""
        self._release()

    on_train_end = on_train_epoch_start

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop for a signal whose exception was lost: Python drops what is raised inside of a `__del__`."""
        self._release()

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            current = signal.getsignal(number)
            if current not in (None, signal.SIG_IGN, self._handler):  # `nohup`, and `&` in a script, ignore some
                self._previous.setdefault(number, current)
                signal.signal(number, self._handler)

    def _release(self) -> None:
        self._is_held = False
        if self._received is not None:
            raise Stopped(self._received)

    def _watch(self, reader: socket.socket) -> None:
        """End this process some time after a signal that never reached Python; in a thread of its own."""
        with reader:
            while came := reader.recv(1):
                if came[0] in _SIGNALS:
                    time.sleep(_DEAF_S)
                    if self._received is None:
                        name = signal.Signals(came[0]).name
                        why = "killed, for it waited for another process"
                        print(f"stopped by {name}: {why}", file=sys.stderr, flush=True)
                        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._received_s = number, time.monotonic()
            if hasattr(signal, "SIGCHLD"):
                # torch raises from this signal for each loader worker that has ended, here by the same signal as we.
                # A function that does nothing, as Python complains about SIG_IGN where one is on its way.
                signal.signal(signal.SIGCHLD, lambda *_: None)
            if not self._is_held:
                raise Stopped(number)
        elif time.monotonic() - self._received_s > _ONE_EVENT_S:  # once more, on purpose: end without last words
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
