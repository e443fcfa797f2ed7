"""Fits in processes of their own: started like a user's, watched for what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
data: {image_size: 64, batch_size: 2, workers: 0, phantom: {train: 12, val: 7, test: 7, size_px: 64}}
model: {encoder: tu-mobilenetv3_small_050, encoder_depth: 4, decoder_channels: [16, 16, 8, 8], dropout: 0.0}
trainer: {max_epochs: 2, accelerator: cpu}
overlays: {samples: 3}
wandb: {mode: disabled}
run: {report: false}
"""
FIT = ("-m", "lungseg.fit")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
FOREIGN = ("WANDB_", "SLURM_", "TORCHELASTIC_", "LUNGSEG_RUN", "LUNGSEG_SWEEP", "PL_GLOBAL_SEED")
RANKS = {"RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
RANKS |= {"MASTER_ADDR", "MASTER_PORT"}
PATCHED = """
import os, sys
import lungseg.training.fitting as run
from lightning.pytorch import Callback
from lungseg import fit
from lungseg.command import run_command

class Patch(Callback):
    '''What a test adds; `rank` is this process's.'''
{patch}
if __name__ == "__main__":
    callbacks = run.run_callbacks
    run.run_callbacks = lambda *all: [*callbacks(*all), Patch()]
    raise SystemExit(run_command(fit.main, fit._parser()))
"""


@dataclass
class Running:
    """A command at work in a folder, and all processes it has started."""

    folder: Path
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        """Start it."""
        if not (self.folder / "tiny.yaml").exists():
            (self.folder / "tiny.yaml").write_text(CONFIG)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN) and k not in RANKS}
        own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "LUNGSEG_TEST": self.marker, **self.environment}
        self.out, self.err = self.folder / f"{self.marker}.out", self.folder / f"{self.marker}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=self.folder,
                env=inherited | own,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )

    def wait(self, seconds: float = 240) -> int:
        """Exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.said()}") from None

    def until(self, holds: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until something holds while it runs."""
        end = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"ended, or waited {seconds} s for nothing:\n{self.said()}")
            time.sleep(0.05)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the first process, or to all, as a terminal does."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def said(self) -> str:
        """Standard output and standard error so far."""
        return self.out.read_text() + self.err.read_text()

    def left(self, within_s: float = 0.0) -> list[str]:
        """`pid command` of what still lives after a time of grace."""
        end = time.monotonic() + within_s
        while (found := list(self.alive())) and time.monotonic() < end:
            time.sleep(0.1)
        return [f"{pid} {command}" for pid, command in found]

    def alive(self) -> Iterator[tuple[int, str]]:
        """Processes that this one or its descendants have started, itself included."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (folder / "environ").read_bytes().split(b"\0")
                if f"LUNGSEG_TEST={self.marker}".encode() in variables:
                    yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()

    def rank(self, local_rank: int) -> int:
        """Process id of a rank that Lightning's launcher or torchrun has started; loaders come after it."""
        found = []
        for pid, _ in self.alive():
            with suppress(OSError):
                if f"LOCAL_RANK={local_rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return min(found)

    def kill(self) -> None:
        """End what is left, after a failed test."""
        for pid, _ in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _heed_signals() -> None:
    """Undo what `&` in a script does to a test session and all that it starts: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def patched(folder: Path, patch: str) -> str:
    """Write the command with a callback's methods in it; give the script's path."""
    script = folder / "patched.py"
    script.write_text(PATCHED.replace("{patch}", patch))
    return str(script)


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of a run's `metrics.csv`."""
    if not (run / "metrics.csv").is_file():
        return []
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(path: Path) -> dict[str, Any]:
    """A JSON file."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def check_one_run(run: Path, said: str, epochs: int) -> None:
    """Check that two processes made one run, all of it, and said everything once."""
    assert len(list(run.parents[1].rglob("offline-run-*"))) == 1
    assert [row["epoch"] for row in rows(run) if row["train/loss"]] == [str(n) for n in range(epochs)]
    assert {"val/auroc", "test/auroc", "test/evidence_in_lungs"} <= set(numbers(run / "metrics.json"))
    assert numbers(run / "environment.json")["processes"] == 2
    assert [sheet.name for sheet in sorted((run / "overlays").glob("*.png"))] == [
        f"epoch_00{n}.png" for n in range(epochs)
    ]
    for line in ("data: phantoms", "2 processes x batch 2", f"epoch 1 (2/{epochs})", "not a medical device"):
        assert said.count(line) == 1, line
    assert "Traceback" not in said and "Warning" not in said and "sync_dist" not in said
