"""The commands printed start as many agents as the GPUs allow, each seeing those of its own runs only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lungseg.errors import SweepError
from lungseg.sweeping.checking import load_sweep
from lungseg.sweeping.launch import devices_a_run, gpu_commands, slurm_commands
from lungseg.sweeping.spec import Sweep

COMMAND = ["${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "base.yaml", "${args_no_hyphens}"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("trainer: {max_epochs: 9}\n")
    Path("slurm").mkdir()
    Path("slurm/agents.sbatch").touch()


def _sweep(*words: str, parameters: dict[str, Any] | None = None, **tree: Any) -> Sweep:
    whole: dict[str, Any] = {"method": "grid", "project": "lungs", "command": [*COMMAND, *words]}
    whole["parameters"] = {"run.seed": {"values": [0, 1, 2]}} | (parameters or {})
    Path("s.yaml").write_text(yaml.safe_dump(whole | tree))
    return load_sweep(Path("s.yaml"))


def _started(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("#")]


def test_one_agent_a_gpu() -> None:
    assert _started(gpu_commands(_sweep(), 2)) == [
        "wandb sweep s.yaml",
        "sweep=ENTITY/lungs/ID  # as the line above ends: wandb agent ENTITY/PROJECT/ID",
        'CUDA_VISIBLE_DEVICES=0 wandb agent "$sweep" &',
        'CUDA_VISIBLE_DEVICES=1 wandb agent "$sweep" &',
        "wait",
    ]


def test_one_agent_over_the_gpus_of_a_run() -> None:
    lines = gpu_commands(_sweep("trainer.devices=3"), 8, agent="me/lungs/abc")
    assert lines[0] == "# 2 runs at a time, 3 GPUs each" and "# GPUs 6, 7 stay idle" in lines
    assert _started(lines) == [
        "sweep=me/lungs/abc",
        'CUDA_VISIBLE_DEVICES=0,1,2 wandb agent "$sweep" &',
        'CUDA_VISIBLE_DEVICES=3,4,5 wandb agent "$sweep" &',
        "wait",
    ]


def test_the_lines_are_shell_that_starts_the_agents(tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*" >> calls\n')
    (tmp_path / "wandb").chmod(0o755)
    text = "\n".join(gpu_commands(_sweep("trainer.devices=2"), 4, agent="me/lung s/abc"))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-eu"], input=text, text=True, env=environment, check=True, timeout=60)
    assert sorted(Path("calls").read_text().splitlines()) == ["0,1 agent me/lung s/abc", "2,3 agent me/lung s/abc"]


@pytest.mark.parametrize(
    ("devices", "count"), [("auto", 1), ("-1", 1), ("1", 1), ("4", 4), ("[0,1]", 2), ("[2,3]", 4), ('"0,3"', 4)]
)
def test_gpus_a_run_takes(devices: str, count: int) -> None:
    assert devices_a_run(_sweep(f"trainer.devices={devices}")) == count


def test_the_largest_run_of_a_sweep_over_devices_counts() -> None:
    assert devices_a_run(_sweep(parameters={"trainer.devices": {"values": [2, 8, 4]}})) == 8


def test_mistakes_name_the_key_and_what_to_do() -> None:
    with pytest.raises(SweepError, match=r"^s\.yaml: trainer\.devices: a run takes 4 GPUs, and --gpus gives 2$"):
        gpu_commands(_sweep("trainer.devices=4"), 2)
    with pytest.raises(
        SweepError, match=r"trainer\.accelerator: is 'cpu', so no run would use a GPU; add trainer\.acc"
    ):
        gpu_commands(_sweep("trainer.accelerator=cpu"), 2)
    with pytest.raises(SweepError, match=r"--gpus: must be >= 1, got 0"):
        gpu_commands(_sweep(), 0)
    with pytest.raises(SweepError, match=r"trainer\.num_nodes: an agent runs on one node; .*fit\.sbatch"):
        slurm_commands(_sweep("trainer.num_nodes=2"))


def test_slurm_array_has_a_task_for_every_run() -> None:
    lines = slurm_commands(_sweep("trainer.devices=4"))
    assert lines[0] == "# 3 runs, 4 GPUs each; --array=1-3%4 would keep it to 4 at a time"
    script = "sbatch --array=1-3 --gpus-per-node=4 --cpus-per-task=32 slurm/agents.sbatch"
    assert _started(lines)[-1] == f'{script} "$sweep"'
    assert lines[-1] == f"# {script} s.yaml --count 3"


def test_slurm_array_on_cpus_asks_for_no_gpu() -> None:
    lines = slurm_commands(_sweep("trainer.accelerator=cpu"), agent="me/lungs/abc")
    assert _started(lines) == [
        "sweep=me/lungs/abc",
        'sbatch --array=1-3 --cpus-per-task=8 slurm/agents.sbatch "$sweep"',
    ]


@pytest.mark.parametrize(
    ("tree", "count", "runs"),
    [({}, None, 3), ({}, 2, 2), ({"run_cap": 2}, None, 2), ({"method": "random"}, 7, 7),
     ({"method": "random", "run_cap": 5}, 7, 5)],
)  # fmt: skip
def test_runs_are_those_of_the_grid_the_cap_or_the_count(tree: dict[str, Any], count: int | None, runs: int) -> None:
    assert f"--array=1-{runs} " in "\n".join(slurm_commands(_sweep(**tree), count))


def test_a_sweep_without_end_needs_a_count() -> None:
    with pytest.raises(SweepError, match=r"run_cap: missing, and a random sweep has no end; say --count N"):
        slurm_commands(_sweep(method="random"))


def test_missing_script_says_where_it_was_looked_for() -> None:
    Path("slurm/agents.sbatch").unlink()
    with pytest.raises(
        SweepError, match=r"no slurm/agents\.sbatch \(looked for slurm/agents\.sbatch and sweeps/slurm/"
    ):
        slurm_commands(_sweep())


def test_project_and_entity_come_from_the_base_config_where_the_sweep_has_none() -> None:
    named = _sweep("wandb.project=other", "wandb.entity=lab", entity="team")
    assert _started(gpu_commands(named, 1))[:2] == [
        "wandb sweep s.yaml",
        "sweep=team/lungs/ID  # as the line above ends: wandb agent ENTITY/PROJECT/ID",
    ]
    Path("s.yaml").write_text(Path("s.yaml").read_text().replace("project: lungs\n", "").replace("entity: team\n", ""))
    assert _started(gpu_commands(load_sweep(Path("s.yaml")), 1))[:2] == [
        "wandb sweep --project other --entity lab s.yaml",
        "sweep=lab/other/ID  # as the line above ends: wandb agent ENTITY/PROJECT/ID",
    ]
