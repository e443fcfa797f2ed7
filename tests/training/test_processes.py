"""How a run ends: by a failure on one rank, by a signal; what is said, what is left, what can go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from launching import FIT, TORCHRUN, Running, patched, rows

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for orphans in /proc"),
    pytest.mark.timeout(600),
]

LONG = ("--config", "tiny.yaml", "run.name=long", "trainer.max_epochs=500", "data.workers=1")
TWO = "trainer.devices=2"
FAULT = """
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.current_epoch == 1 and trainer.global_rank == {rank}:
            raise {kind}("planted fault")
"""


def _started(folder: Path, *words: str, launcher: tuple[str, ...] = (), epochs: int = 1) -> Running:
    """A long fit after its first checkpoint."""
    running = Running(folder, (*launcher, *FIT, *LONG, *words))
    running.until(lambda: len(rows(folder / "runs/long")) > epochs and (folder / LAST).is_file())
    return running


LAST = "runs/long/checkpoints/last.ckpt"


def _stopped(running: Running, number: int, *, group: bool = False, within_s: float = 60) -> int:
    """Signal it; its exit code, after checks that it went quickly, quietly and whole."""
    start = time.monotonic()
    running.signal(number, group=group)
    code = running.wait()
    assert time.monotonic() - start < within_s, running.said()
    assert running.left(within_s=1) == []
    assert "Traceback" not in running.said() and "rror" not in running.err.read_text()
    return code


def _goes_on(folder: Path) -> None:
    """The run folder continues where it stopped, as the line says."""
    done = max(int(row["epoch"]) for row in rows(folder / "runs/long") if row["val/score"])
    words = ("run.name=long", "run.resume=true", f"trainer.max_epochs={done + 2}", "data.workers=0")
    again = Running(folder, (*FIT, "--config", "tiny.yaml", *words))
    assert again.wait() == 0, again.said()
    epochs = [int(row["epoch"]) for row in rows(folder / "runs/long") if row["val/score"]]
    assert epochs == list(range(done + 2)) and (folder / "runs/long/metrics.json").is_file()


def test_ctrl_c_ends_a_fit_and_its_loaders_with_130_and_one_line(tmp_path: Path) -> None:
    running = _started(tmp_path)
    assert len(running.left()) > 1  # with loaders
    assert _stopped(running, signal.SIGINT, group=True) == 130
    line = "stopped by SIGINT; the same command with run.name=long run.resume=true goes on"
    assert running.err.read_text().splitlines()[-1] == line


def test_sigterm_to_the_first_process_ends_both_with_143_and_no_final_numbers(tmp_path: Path) -> None:
    running = _started(tmp_path, TWO)
    assert _stopped(running, signal.SIGTERM) == 143
    assert running.said().count("stopped by SIGTERM") == 1
    assert not (tmp_path / "runs/long/metrics.json").exists()


@pytest.mark.slow
def test_two_processes_that_were_stopped_go_on(tmp_path: Path) -> None:
    assert _stopped(_started(tmp_path, TWO), signal.SIGTERM) == 143
    _goes_on(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("words", [(), (TWO,)])
def test_every_signal_ends_every_fit_quietly(tmp_path: Path, words: tuple[str, ...], group: bool, number: int) -> None:
    running = _started(tmp_path, *words)
    assert _stopped(running, number, group=group) == 128 + number
    assert running.said().count("stopped by SIG") == 1


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [1, 3, 5, 7, 9])
def test_a_signal_while_things_come_up_leaves_no_process(tmp_path: Path, after_s: float) -> None:
    running = Running(tmp_path, (*FIT, *LONG, TWO))
    time.sleep(after_s)
    assert _stopped(running, signal.SIGTERM, within_s=60) in (143, -signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_passes_signals_on_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    running = _started(tmp_path, launcher=TORCHRUN)
    running.signal(number)
    assert running.wait() != 0
    assert running.left(within_s=1) == []
    assert running.said().count(f"stopped by {signal.Signals(number).name}") == 1
    traces = running.said().count("Traceback")
    assert traces == running.said().count("SignalException: Process")  # torchrun's own
    _goes_on(tmp_path)


def _failed(running: Running, message: str, within_s: float = 60) -> str:
    """Standard error of a fit that failed, after checks that it ended soon after the message, said once."""
    running.until(lambda: message in running.err.read_text())
    start = time.monotonic()
    assert running.wait() == 1
    assert time.monotonic() - start < within_s
    assert running.left(within_s=1) == []
    said = running.err.read_text()
    torchruns_own = said.count("errors.ChildFailedError:")
    assert said.count(message) == 1 and said.count("Traceback") == 1 + torchruns_own, said
    return said


def test_a_failure_on_one_rank_ends_all_with_its_message(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT.format(rank=1, kind="RuntimeError"))
    running = Running(tmp_path, (script, *LONG, TWO))
    assert "rank 1 failed:\n" in _failed(running, "RuntimeError: planted fault")


@pytest.mark.slow
def test_a_failure_of_rank_zero_ends_all_with_its_message(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT.format(rank=0, kind="RuntimeError"))
    _failed(Running(tmp_path, (script, *LONG, TWO, "wandb.mode=offline")), "RuntimeError: planted fault")


@pytest.mark.slow
def test_a_failure_under_torchrun_ends_all_with_its_message(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT.format(rank=1, kind="RuntimeError"))
    said = _failed(Running(tmp_path, (*TORCHRUN, script, *LONG)), "RuntimeError: planted fault")
    assert "rank 1 failed:\n" in said


@pytest.mark.slow
def test_a_rank_that_hangs_while_another_one_fails_is_cut_off(tmp_path: Path) -> None:
    patch = """
    def on_train_batch_start(self, trainer, module, batch, index):
        import signal, time
        if trainer.global_rank == 1:
            raise RuntimeError("planted fault")
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # as deaf as in a collective call
        time.sleep(1000)
"""
    running = Running(tmp_path, (patched(tmp_path, patch), *LONG, TWO))
    _failed(running, "RuntimeError: planted fault", within_s=60)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_rank_ends_the_other(tmp_path: Path, rank: int) -> None:
    running = _started(tmp_path, TWO)
    os.kill(running.rank(1) if rank else running.process.pid, signal.SIGKILL)
    assert running.wait(30) == (1 if rank else -signal.SIGKILL)
    assert running.left(within_s=15) == []
    said = running.err.read_text()
    assert ("rank 1 ended with code -9" if rank else "rank 1: rank 0 is gone") in said and "Traceback" not in said


@pytest.mark.slow
def test_a_mistake_is_one_line_under_torchrun_too(tmp_path: Path) -> None:
    running = Running(tmp_path, (*TORCHRUN, *FIT, *LONG, "data.root=nowhere"))
    assert running.wait() == 1
    said = running.err.read_text()
    assert said.count("nowhere") == 1 and "error: nowhere" in said and running.left(within_s=1) == []
    assert not (tmp_path / "runs").exists()
