"""The processes of one run as one: rank zero goes first, one failure ends all of them, and so does one signal.

They talk through torch's key-value store at MASTER_ADDR:MASTER_PORT, which rank zero (or torchrun) hosts and which
`torch.distributed` uses too; so it works alike under Lightning's launcher, torchrun and srun, on any number of nodes.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not listed as such

from lungseg.errors import UserError
from lungseg.runs.rank import Rank
from lungseg.training.loggers import finish_wandb
from lungseg.training.signals import Signals, Stopped
from lungseg.training.trainer import cluster_environment

_LOOK_S = 0.3
"""Between two looks at what became of the other processes."""
_GRACE_S = 10.0
"""For a process that is to end because of another one, then it is cut off: it may hang in a collective call."""
_FAREWELL_S = 20.0
"""For one that has failed or been stopped to say so and to close its files; W&B's agent allows 30 s."""
_LAST_S = 60.0
"""For the slowest process to end after the first has, in a run that went well."""
_CONNECT_S = 600.0
"""For rank zero to come up; where it has died early, torchrun and `srun --kill-on-bad-exit` end the others sooner."""


class Processes:
    """All processes of one run, seen from this one; for `with`, around everything that the run does.

    Inside, SIGINT, SIGTERM and SIGHUP raise `Stopped` (exit codes 130, 143, 129). Whatever else raises is told to the
    other processes, which then raise `Stopped` without a word of their own.

    Args:
        rank: This process among them.
        nodes: As the config says.
    """

    def __init__(self, rank: Rank, nodes: int = 1):
        self.rank, self.signals = rank, Signals()
        self._total = rank.world_size or 1
        self._many = self._total > 1 or nodes > 1 or rank.is_child
        self._store: Any = None
        self._line: socket.socket | None = None
        self._launcher: Any = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._parent = os.getppid()
        self._deadline: float | None = None
        self._exit_code = 1
        self._has_left = False
        self._over = threading.Event()

    def __enter__(self) -> Processes:
        self.signals.take()
        if self._many:
            if self.rank.launcher == "Lightning" and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
                raise UserError(
                    "trainer.num_nodes: several nodes need torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK "
                    "in the environment of each"
                )
            self._connect(cluster_environment(self.rank))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._over.set()
                self._part(_LAST_S)
            else:
                self._fail(error)
        finally:
            self.signals.give_back()

    def folder_of_rank_zero(self) -> Path:
        """Wait until rank zero has found the run good to start, and give the run folder it made."""
        while not self._store.check(["folder"]):
            time.sleep(_LOOK_S)  # a failure of rank zero raises here
        return Path(self._store.get("folder").decode())

    def begin(self, folder: Path, trainer: Trainer) -> None:
        """On rank zero, let the others begin; Lightning's launcher starts them later, with the store's address."""
        self._total = trainer.world_size
        if self._total == 1:
            return
        if self._store is None:
            self._launcher = trainer.strategy.launcher
            self._connect(self._launcher.cluster_environment)
        self._store.set("folder", str(folder))

    def tell(self, error: BaseException) -> bool:
        """Tell the others that this process ends; False if another one was first, so that this is a consequence."""
        if self._store is None:
            return True
        word = f"{error.exit_code if isinstance(error, Stopped) else 1} {self.rank.name}"
        if self._host_is_gone():
            return False
        try:
            first = self._store.compare_set("end", "", word).decode()
        except RuntimeError:  # it goes at this moment; of its connections the store's was not the first to close
            return False
        if self._deadline is None:
            self._exit_code, self._deadline = int(first.split()[0]), time.monotonic() + _FAREWELL_S
        return bool(first == word)

    def _fail(self, error: BaseException) -> None:
        mine, stopped = self.tell(error), isinstance(error, Stopped)
        self.signals.expect(more=self._store is None)  # alone, a second Ctrl-C may end a W&B that waits for its server
        self._deadline = time.monotonic() + _FAREWELL_S
        if self.rank.is_zero:
            finish_wandb(error.exit_code if isinstance(error, Stopped) else 1)
        self._part(_FAREWELL_S * 3 / 4)
        if self._store is None or stopped:
            return
        if not mine:
            raise Stopped(self._exit_code) from None
        sys.excepthook = sys.__excepthook__  # else torch and W&B print the traceback once each
        if not self.rank.is_zero:
            print(f"{self.rank.name} failed:", file=sys.stderr, flush=True)

    def _connect(self, environment: Any) -> None:
        """Open the store, host it on rank zero; a line beside it closes when its host dies."""
        address, port = environment.main_address, environment.main_port
        hosted = self.rank.launcher == "torchrun" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host = self.rank.is_zero and not hosted
        if not host:
            self._line = _call(address, port, self.rank.name)
        wait = timedelta(seconds=20)
        try:
            store = TCPStore(address, port, is_master=host, wait_for_workers=False, multi_tenant=True, timeout=wait)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise UserError(f"{address}:{port}: {line}; another run may use it, set MASTER_PORT") from error
        self._store = PrefixStore(f"lungseg/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        threading.Thread(target=self._watch, name="lungseg-processes", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            if self._deadline is None:
                self._look()
            elif time.monotonic() > self._deadline:
                self._cut_off()

    def _look(self) -> None:
        """End this process if another one has ended before its time."""
        if self._host_is_gone():
            print(f"{self.rank.name}: rank 0 is gone", file=sys.stderr, flush=True)
            return self._end(1)
        with suppress(RuntimeError):  # it goes at this moment
            if self._store.check(["end"]):
                return self._end(int(self._store.get("end").split()[0]))
            self._adopt()
            for place, child in enumerate(self._children, 1):
                if child.poll() and self.tell(Stopped(1)):
                    print(f"rank {place} ended with code {child.returncode}", file=sys.stderr, flush=True)
                    return self._end(1)
        return None

    def _host_is_gone(self) -> bool:
        """Whether nobody answers any more; asking the store then would have torch print C++ frames."""
        if self.rank.is_child and os.getppid() != self._parent:
            return True
        return self._line is not None and _is_closed(self._line)

    def _end(self, exit_code: int) -> None:
        """Make the main thread raise `Stopped`; if it cannot, being in a call that hangs, time will tell."""
        self._exit_code, self._deadline = exit_code, time.monotonic() + _GRACE_S
        self._leave()
        self.signals.stop(exit_code)

    def _cut_off(self) -> None:
        """End this process and all it has started, at once."""
        for worker in multiprocessing.active_children():
            worker.kill()
        self._adopt()
        for child in self._children:
            child.kill()
        os._exit(self._exit_code)

    def _adopt(self) -> None:
        """Take the processes that Lightning starts from its observer, which kills this one too when one fails."""
        if self._launcher is not None:
            self._children += self._launcher.procs
            self._launcher.procs.clear()

    def _leave(self) -> None:
        """Let rank zero know that this process needs its store no more."""
        if not self._has_left and not self._host_is_gone():
            self._has_left = True
            with suppress(RuntimeError):  # it goes at this moment
                self._store.add("left", 1)

    def _part(self, limit_s: float) -> None:
        """Leave; rank zero last, and after the processes that it started."""
        if self._store is None:
            return
        self._leave()
        end = time.monotonic() + limit_s
        while self.rank.is_zero and not self._host_is_gone() and time.monotonic() < end:
            if self._store.add("left", 0) >= self._total or self._is_last():
                break
            time.sleep(0.05)
        self._adopt()
        for child in self._children:
            try:
                child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _is_last(self) -> bool:
        """Whether this process started all the others, and they have ended: one that was killed takes no leave."""
        self._adopt()
        ended = [child for child in self._children if child.poll() is not None]
        return len(ended) == self._total - 1


class FollowProcesses(Callback):
    """Keeps `Processes` informed from inside of the Trainer."""

    def __init__(self, processes: Processes):
        self.processes = processes

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals from Lightning, which would broadcast from inside of their handlers."""
        self.processes.signals.take()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        self.processes.signals.take()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop for a signal that was lost."""
        self.processes.signals.check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold the signals: the epoch's checkpoints come now, and only after them its row of metrics."""
        self.processes.signals.hold()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop for a signal that was held."""
        self.processes.signals.release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop for a signal that was held at the end of the last epoch."""
        self.processes.signals.release()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        self.processes.signals.take()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others before this process closes its connections, on which they fail too."""
        self.processes.tell(exception)


def _call(address: str, port: int, name: str) -> socket.socket:
    """Connect as soon as somebody answers."""
    end = time.monotonic() + _CONNECT_S
    while True:
        try:
            line = socket.create_connection((address, port), timeout=5)
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{name}: nobody answers at {address}:{port} ({error}); is rank 0 running, and are MASTER_ADDR and "
                    "MASTER_PORT right?"
                ) from error
            time.sleep(_LOOK_S)
        else:
            line.setblocking(False)
            return line


def _is_closed(line: socket.socket) -> bool:
    try:
        return not line.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
