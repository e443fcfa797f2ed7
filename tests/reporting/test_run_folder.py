from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.reporting.run_folder import environment, run_folder
from lungseg.reporting.whole_files import write_json


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "LUNGSEG_RUN_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LUNGSEG_RUN_FOLDER", "")  # so that what run_folder sets is undone


def test_unnamed_runs_count_up(tmp_path: Path) -> None:
    made = [run_folder(tmp_path, None, "demo", resume=False).name for _ in range(3)]
    assert made == ["demo", "demo-2", "demo-3"]


def test_a_named_run_is_never_overwritten(tmp_path: Path) -> None:
    run_folder(tmp_path, "mine", "demo", resume=False)
    with pytest.raises(FileExistsError, match=r"run.name: run folder '.*mine' exists; choose another run.name"):
        run_folder(tmp_path, "mine", "demo", resume=False)


def test_resuming_needs_a_name_and_a_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.resume: needs run\.name"):
        run_folder(tmp_path, None, "demo", resume=True)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '.*last.ckpt' to continue from"):
        run_folder(tmp_path, "gone", "demo", resume=True)


def test_other_ranks_make_nothing_and_find_the_folder_of_rank_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_folder(tmp_path, None, "demo", resume=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_folder(tmp_path, None, "demo", resume=False) == made
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_no_half_written_file_stands_under_a_final_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "metrics.json", {"a": object()})
    assert not (tmp_path / "metrics.json").exists()


def test_environment_names_what_a_result_depends_on() -> None:
    values = environment("abc")
    assert values["data_fingerprint"] == "abc"
    assert {"torch", "lightning", "numpy"} <= set(values["packages"]) and values["devices"]
