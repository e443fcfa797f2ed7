"""Every shipped sweep is good, does what its comment says, and may be given to W&B and to `lungseg.sweep run` alike."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml

from lungseg.config.fields import field_types
from lungseg.sweeping.checking import check_report
from lungseg.sweeping.checking import load_sweep as load
from lungseg.sweeping.launch import devices_a_run, slurm_commands

REPOSITORY = Path(__file__).parents[1]
load_sweep = functools.cache(load)  # each once
SWEEPS = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_the_four_promised_sweeps_are_there() -> None:
    assert {"grid.yaml", "random.yaml", "bayes.yaml", "multi_gpu.yaml"} <= {path.name for path in SWEEPS}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_shipped_sweep_passes_check_and_can_be_launched(path: Path) -> None:
    sweep = load_sweep(path.relative_to(REPOSITORY))
    assert check_report(sweep)[0] == f"{sweep.path}: good"
    assert sweep.program is not None and sweep.command[:2] == ("${env}", "${interpreter}")
    assert sweep.run_cap is not None or sweep.method == "grid"
    assert "sweeps/slurm/agents.sbatch" in "\n".join(slurm_commands(sweep))


def test_grid_is_heads_by_poolings_over_seeds() -> None:
    sweep = load_sweep(Path("sweeps/grid.yaml"))
    assert sweep.method == "grid" and sweep.grid_size() == 12
    assert {(run["model.head"], run["model.pooling"]) for run in sweep.grid()} == {
        (head, pooling) for head in ("linear", "conv") for pooling in ("average", "lung")
    }


def test_bayes_searches_what_matters_and_stops_where_its_comment_says() -> None:
    sweep = load_sweep(Path("sweeps/bayes.yaml"))
    assert {"optim.lr", "loss.dice", "loss.cross_entropy", "model.encoder", "augment.rotate"} <= set(sweep.parameters)
    assert sweep.early_terminate is not None
    brackets = sweep.early_terminate.brackets(sweep.config({}).trainer.max_epochs)
    assert f"brackets after {', '.join(map(str, brackets[:-1]))} and {brackets[-1]} of 60" in sweep.path.read_text()


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_multi_gpu_takes_any_number_of_devices_from_two_to_eight(tmp_path: Path, devices: int) -> None:
    tree = yaml.safe_load((REPOSITORY / "sweeps/multi_gpu.yaml").read_text())
    assert 2 <= tree["parameters"]["trainer.devices"]["value"] <= 8
    tree["parameters"]["trainer.devices"]["value"] = devices
    path = tmp_path / "multi_gpu.yaml"
    path.write_text(yaml.safe_dump(tree))
    sweep = load_sweep(path)
    assert devices_a_run(sweep) == devices
    values = {name: parameter.samples()[0] for name, parameter in sweep.parameters.items()}
    assert f"trainer.devices={devices}" in sweep.run_arguments(values)


def test_readme_of_sweeps_names_files_and_keys_that_are_there() -> None:
    text = (REPOSITORY / "sweeps/README.md").read_text()
    for name in re.findall(r"(?:sweeps|configs)/[\w/]+\.(?:yaml|sbatch|md)", text):
        assert name == "sweeps/x.yaml" or (REPOSITORY / name).is_file(), name  # x.yaml: the example of a mistake
    sections = {key.split(".")[0] for key in field_types()}
    for key in re.findall(r"`((?:\w+\.)+\w+)(?:=[^`]*)?`", text):
        assert key.split(".")[0] not in sections or key in field_types(), key
    assert {path.name for path in SWEEPS} <= set(re.findall(r"[\w]+\.yaml", text))
