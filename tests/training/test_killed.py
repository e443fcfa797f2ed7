"""`kill -9` at random moments of a fit whose run folder lies on another file system than the temporary folder."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from launching import CONFIG

from lungseg import fit
from lungseg.command import run_command
from lungseg.training import fitting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
assert fitting  # imported once, here, and not by each of the hundred processes below
OTHER = Path("/dev/shm")
KILLS = 50


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For run folders, on another file system."""
    if not OTHER.is_dir() or OTHER.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs another file system")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    with tempfile.TemporaryDirectory(dir=OTHER) as folder:
        yield Path(folder)


def _start(folder: Path, name: str, log: Path) -> int:
    """Fit in a process of its own, or continue what is there: its id."""
    words = [f"run.dir={folder}", f"run.name={name}", "trainer.max_epochs=3"]
    if (folder / name).exists():
        words.append("run.resume=true")
    pid = os.fork()
    if pid == 0:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 1
        try:
            code = run_command(fit.main, fit._parser(), ["--config", "tiny.yaml", *words])
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    start = time.monotonic()
    assert os.waitpid(_start(folder, "whole", log), 0)[1] == 0, log.read_text()
    took_s = time.monotonic() - start
    whole = torch.load(folder / "whole" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    chance, left = random.Random(0), 0
    for kill in range(KILLS):
        name = f"killed-{kill}"
        pid = _start(folder, name, log)
        time.sleep(chance.uniform(0, took_s))
        os.kill(pid, signal.SIGKILL)
        killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
        left += killed and (folder / name / "checkpoints" / "last.ckpt").exists()
        assert os.waitpid(_start(folder, name, log), 0)[1] == 0, log.read_text()
        resumed = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(resumed[key], value) for key, value in whole.items()), name
        assert (folder / name / "metrics.csv").read_bytes() == (folder / "whole" / "metrics.csv").read_bytes(), name
        assert not list((folder / name).rglob("*.part*"))
    assert left > KILLS // 4  # runs that had something to continue
