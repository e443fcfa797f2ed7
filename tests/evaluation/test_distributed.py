"""Two processes that share the forward passes of an evaluation give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.evaluation.distributed import ProcessGroup, join

REPOSITORY = Path(__file__).parents[2]
WORDS = ("--faithfulness", "0", "--robustness", "3", "--shortcuts", "4", "--bootstraps", "50")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def _evaluate(run: Path, output: Path, *launcher: str, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "lungseg.evaluate", "--checkpoint", str(run), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*command, *WORDS, *words], env=environment, capture_output=True, text=True, timeout=280, cwd=output.parent
    )


@pytest.mark.slow
def test_two_processes_write_what_one_writes(own_run: Path, tmp_path: Path) -> None:
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        result = _evaluate(own_run, tmp_path / name, *launcher)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("statistics") == 1
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    for content in (one, two):
        del content["what"]["date"], content["what"]["git_revision"]  # the latter may change under a developer
    assert one == two
    assert (tmp_path / "one/per_image.csv").read_text() == (tmp_path / "two/per_image.csv").read_text()
    pictures = [sorted(path.name for path in (tmp_path / name / "images").iterdir()) for name in ("one", "two")]
    assert pictures[0] == pictures[1] and (tmp_path / "two/report.html").is_file()


@pytest.mark.slow
def test_a_mistake_is_told_once(own_run: Path, tmp_path: Path) -> None:
    result = _evaluate(own_run, tmp_path / "none", *TORCHRUN, words=("data.split=vall",))
    assert result.returncode != 0
    assert result.stderr.count("data.split: must be 'val' or 'test'") == 1


def test_alone_a_team_is_one_and_shares_with_nobody() -> None:
    with join({}) as processes:
        assert processes == ProcessGroup() and processes.is_zero
        assert processes.share(lambda batch: batch["x"] + 1, [{"x": 1}, {"x": 2}]) == [2, 3]
        processes.wait_for_zero()


def test_processes_that_cannot_find_each_other_say_so() -> None:
    started = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    with pytest.raises(ValueError, match="MASTER_ADDR is not set"), join(started):
        pass
