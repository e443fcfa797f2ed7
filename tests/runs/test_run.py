from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.runs.environment import environment
from lungseg.runs.rank import is_rank_zero
from lungseg.runs.run import Run, check_free
from lungseg.runs.whole_files import write_json


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def test_unnamed_runs_count_up(tmp_path: Path) -> None:
    made = [Run.create(tmp_path, None, "demo").name for _ in range(3)]
    assert made == ["demo", "demo-2", "demo-3"]


def test_a_named_run_is_never_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path, "mine", "demo")
    with pytest.raises(FileExistsError, match=r"run.name: run folder '.*mine' exists; choose another run.name"):
        Run.create(tmp_path, "mine", "demo")


def test_resuming_needs_a_name_and_a_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.resume: needs run\.name"):
        Run.resume(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '.*last.ckpt' to continue from"):
        Run.resume(tmp_path, "gone")


@pytest.mark.parametrize(
    ("environment", "zero"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun inside of srun
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),  # Lightning's launcher inside of a Slurm job
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "0"}, True),
    ],
)
def test_rank_zero_is_known_from_the_environment(
    environment: dict[str, str], zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_rank_zero() is zero


def test_only_rank_zero_minds_that_a_run_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        check_free(tmp_path, "mine")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_free(tmp_path, "mine")


def test_no_half_written_file_stands_under_a_final_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "metrics.json", {"a": object()})
    assert not (tmp_path / "metrics.json").exists()


def test_environment_names_what_a_result_depends_on() -> None:
    values = environment("abc")
    assert values["data_fingerprint"] == "abc"
    assert {"torch", "lightning", "numpy"} <= set(values["packages"]) and values["devices"]
