"""20,000 damaged files: each is read whole or refused in one line, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydicom")


def _faults(seed: int, count: int) -> str:
    command = [sys.executable, str(Path(__file__).with_name("mutations.py")), str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_damaged_files_are_read_whole_or_refused() -> None:
    assert _faults(0, 400) == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_thousand_damaged_files_are_read_whole_or_refused(seed: int) -> None:
    assert _faults(seed, 10_000) == ""
