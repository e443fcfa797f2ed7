"""The command: each action calls what it should with its own options, and a mistake is one line and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lungseg import sweep as command
from lungseg.command import run_command

COMMAND = ["${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "base.yaml", "${args_no_hyphens}"]
SWEEP = {
    "method": "grid",
    "program": "lungseg/fit.py",
    "parameters": {"run.seed": {"values": [0, 1]}},
    "command": COMMAND,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("trainer: {max_epochs: 9}\n")
    Path("s.yaml").write_text(yaml.safe_dump(SWEEP))
    Path("slurm").mkdir()
    Path("slurm/agents.sbatch").touch()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the actions `run` and `status` are called with; `run` gives exit code 5."""
    calls: list[tuple[Any, ...]] = []
    local, status = ModuleType("lungseg.sweeping.local"), ModuleType("lungseg.sweeping.status")
    local.run_sweep = lambda *arguments: calls.append(arguments) or 5  # type: ignore[attr-defined,func-returns-value]
    status.show_status = lambda *arguments: calls.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lungseg.sweeping.local", local)
    monkeypatch.setitem(sys.modules, "lungseg.sweeping.status", status)
    return calls


def _run(*argv: str) -> int:
    return run_command(command.main, command._parser(), argv)


def test_check_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", "s.yaml") == 0
    assert capsys.readouterr().out.startswith("s.yaml: good\n  method    grid, 2 runs\n")


@pytest.mark.parametrize(("options", "expected"), [([], (None, 1)), (["--count", "3", "--workers", "2"], (3, 2))])
def test_run_hands_over_the_sweep_count_and_workers_and_returns_the_code(
    called: list[tuple[Any, ...]], options: list[str], expected: tuple[Any, ...]
) -> None:
    assert _run("run", "s.yaml", *options) == 5
    assert called[0][0].name == "s" and called[0][1:] == expected


@pytest.mark.parametrize(("options", "page"), [([], None), (["--page", "p.html"], Path("p.html"))])
def test_status_hands_over_the_page(called: list[tuple[Any, ...]], options: list[str], page: Path | None) -> None:
    assert _run("status", "s.yaml", *options) == 0
    assert called[0][0].method == "grid" and called[0][1] == page


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--gpus", "1"], 'CUDA_VISIBLE_DEVICES=0 wandb agent "$sweep" &\n'),
        (["--slurm", "--count", "1"], "sbatch --array=1-1 --gpus-per-node=1 --cpus-per-task=8 slurm/agents.sbatch"),
        (["--slurm", "--id", "me/lungs/abc"], "sweep=me/lungs/abc\n"),
    ],
)
def test_launch_prints_the_commands(capsys: pytest.CaptureFixture[str], options: list[str], line: str) -> None:
    assert _run("launch", "s.yaml", *options) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["chek", "s.yaml"], "ACTION must be one of check, run, status, launch, got 'chek'; did you mean 'check'?"),
        (["check", "s2.yaml"], "s2.yaml: no such file; did you mean 's.yaml'?"),
        (["check", "s.yaml", "--count", "2"], "--count: belongs to run and launch, not to check"),
        (["run", "s.yaml", "--slurm"], "--slurm: belongs to launch, not to run"),
        (["status", "s.yaml", "--workers", "2"], "--workers: belongs to run, not to status"),
        (["run", "s.yaml", "--page", "x"], "--page: belongs to status, not to run"),
        (["run", "s.yaml", "--count", "0"], "--count: must be >= 1, got 0"),
        (["run", "s.yaml", "--workers", "0"], "--workers: must be >= 1, got 0"),
        (["launch", "s.yaml"], "launch: say either --gpus N, for this machine, or --slurm"),
        (["launch", "s.yaml", "--gpus", "2", "--slurm"], "launch: say either --gpus N, for this machine, or --slurm"),
        (
            ["launch", "s.yaml", "--gpus", "2", "--count", "2"],
            "--count: belongs to --slurm; agents on GPUs go on until",
        ),
        (["check"], "the following arguments are required: FILE"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], called: list[tuple[Any, ...]], argv: list[str], line: str
) -> None:
    assert _run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {line}") and err.count("\n") == 1 and called == []
