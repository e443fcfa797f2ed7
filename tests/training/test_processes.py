"""How a run ends: by a failure on one rank, by a signal; what is said, what is left, what can go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
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
            raise RuntimeError("planted fault")
"""
LAST = "runs/long/checkpoints/last.ckpt"


def _started(folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> Running:
    """A long fit after its first two epochs."""
    running = Running(folder, (*launcher, *FIT, *LONG, *words))
    running.until(lambda: len(rows(folder / "runs/long")) > 1 and (folder / LAST).is_file())
    return running


def _stopped(running: Running, number: int, *, group: bool = False) -> int:
    """Signal it; its exit code, after checks that it went quickly, quietly and whole."""
    start = time.monotonic()
    running.signal(number, group=group)
    code = running.wait()
    assert time.monotonic() - start < 60, running.said()
    assert running.left(within_s=10) == []
    assert "Traceback" not in running.said() and "rror" not in running.err.read_text(), running.said()
    return code


def test_ctrl_c_ends_two_processes_and_their_loaders_with_130_one_line_and_no_final_numbers(tmp_path: Path) -> None:
    running = _started(tmp_path, TWO)
    assert len(running.left()) > 3  # with loaders
    assert _stopped(running, signal.SIGINT, group=True) == 130
    line = "stopped by SIGINT; the same command with run.name=long run.resume=true goes on"
    assert running.err.read_text().splitlines()[-1] == line and running.said().count("stopped by SIG") == 1
    assert not (tmp_path / "runs/long/metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("launcher", [(), TORCHRUN])
def test_two_processes_that_were_stopped_go_on_to_the_weights_of_an_unbroken_run(
    tmp_path: Path, number: int, launcher: tuple[str, ...]
) -> None:
    words = (*launcher, *FIT, *LONG, "trainer.max_epochs=6", "model.dropout=0.3", *(() if launcher else (TWO,)))
    running = Running(tmp_path, words)
    running.until(lambda: len(rows(tmp_path / "runs/long")) > 1 and (tmp_path / LAST).is_file())
    running.signal(number, group=number == signal.SIGINT)
    assert running.wait(60) != 0 and running.left(within_s=10) == []
    assert running.said().count(f"stopped by {signal.Signals(number).name}") == 1, running.said()
    for more in (("run.resume=true",), ("run.name=unbroken",)):
        again = Running(tmp_path, (*words, *more))
        assert again.wait() == 0, again.said()
    resumed, unbroken = (tmp_path / "runs" / name for name in ("long", "unbroken"))
    assert (resumed / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (resumed, unbroken)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


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
    assert _stopped(running, signal.SIGTERM) in (143, -signal.SIGTERM)


def _failed(running: Running, message: str = "RuntimeError: planted fault") -> str:
    """Standard error of a fit that failed, after checks that it ended soon after the message and left nothing."""
    running.until(lambda: message in running.err.read_text())
    assert running.wait(60) != 0
    assert running.left(within_s=10) == []
    return running.err.read_text()


def test_a_failure_on_one_rank_ends_all_with_its_message(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT.format(rank=1))
    assert _failed(Running(tmp_path, (script, *LONG, TWO))).count("RuntimeError: planted fault") == 1


@pytest.mark.slow
def test_a_failure_of_rank_zero_ends_all_with_its_message(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT.format(rank=0))
    _failed(Running(tmp_path, (script, *LONG, TWO, "wandb.mode=offline")))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_under_torchrun_ends_all_with_its_message(tmp_path: Path, rank: int) -> None:
    script = patched(tmp_path, FAULT.format(rank=rank))
    _failed(Running(tmp_path, (*TORCHRUN, script, *LONG)))


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [0, 1])
def test_a_rank_that_hangs_while_another_one_fails_is_ended(tmp_path: Path, deaf: int) -> None:
    patch = f"""
    def on_train_batch_start(self, trainer, module, batch, index):
        import signal, time
        if trainer.global_rank != {deaf}:
            raise RuntimeError("planted fault")
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # as deaf as in a collective call
        time.sleep(1000)
"""
    said = _failed(Running(tmp_path, (patched(tmp_path, patch), *LONG, TWO)))
    assert deaf or "[rank: 1] Child process with PID" in said  # rank zero says why it is ended


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), TORCHRUN])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_rank_ends_the_other(tmp_path: Path, rank: int, launcher: tuple[str, ...]) -> None:
    running = _started(tmp_path, *(() if launcher else (TWO,)), launcher=launcher)
    os.kill(running.rank(rank) if rank or launcher else running.process.pid, signal.SIGKILL)
    assert running.wait(60) != 0
    assert running.left(within_s=10) == []


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_one_line_from_two_processes(tmp_path: Path) -> None:
    patch = """
    def on_train_epoch_end(self, trainer, module):
        trainer.callback_metrics["train/loss"].fill_(float("nan"))
"""
    script = patched(tmp_path, patch)
    text = Path(script).read_text().replace("[*callbacks(*all), Patch()]", "[Patch(), *callbacks(*all)]")
    Path(script).write_text(text)
    running = Running(tmp_path, (script, *LONG, TWO))
    assert running.wait(240) == 2
    said = running.err.read_text()
    assert said.count("error: train/loss is nan") == 1 and running.left(within_s=10) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("data.root=nowhere", "error: nowhere"),
        ("optim.lr=fast", "optim.lr"),
        ("trainer.precision=17", "error: trainer.precision: must be one of 32-true"),
    ],
)
def test_a_mistake_is_one_line_under_torchrun_too(tmp_path: Path, word: str, line: str) -> None:
    running = Running(tmp_path, (*TORCHRUN, *FIT, *LONG, word))
    assert running.wait() == 1
    said = running.err.read_text()
    assert said.count("error: ") == 1 and line in said and running.left(within_s=10) == [], said
    assert not (tmp_path / "runs").exists()
