"""A run folder: made without overwriting another, opened by any of its files, and asked what it knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from lungseg.runs.run import BOXED, Run, check_free


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def test_unnamed_runs_count_up(tmp_path: Path) -> None:
    made = [Run.create(tmp_path, None, "demo").name for _ in range(3)]
    assert made == ["demo", "demo-2", "demo-3"]


def test_a_named_run_is_never_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path, "mine", "demo")
    with pytest.raises(FileExistsError, match=r"run.name: run folder '.*mine' exists; choose another run.name"):
        Run.create(tmp_path, "mine", "demo")


def test_resuming_needs_a_name_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.resume: needs run\.name"):
        Run.resume(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=r"no run folder '.*gone' to continue"):
        Run.resume(tmp_path, "gone")


def test_only_rank_zero_minds_that_a_run_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        check_free(tmp_path, "mine")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_free(tmp_path, "mine")


def _checkpoints(folder: Path, *names: str) -> None:
    (folder / "checkpoints").mkdir()
    for name in names:
        (folder / "checkpoints" / name).write_bytes(b"weights")


def test_a_run_is_opened_by_its_folder_at_its_best_checkpoint_else_the_last(tmp_path: Path) -> None:
    _checkpoints(tmp_path, "last.ckpt")
    assert Run.open(tmp_path).model == tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    run = Run.open(str(tmp_path))
    assert (run.model.name, run.kind, run.folder) == ("best.ckpt", "checkpoint", tmp_path)


def test_a_checkpoint_opened_by_name_knows_its_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkpoints(tmp_path, "best.ckpt", "last.ckpt")
    monkeypatch.chdir(tmp_path / "checkpoints")
    run = Run.open("last.ckpt")
    assert run.model.name == "last.ckpt"
    assert run.config_file == tmp_path.resolve() / "config.yaml"


@pytest.mark.parametrize(("name", "kind"), [("model.onnx", "onnx"), ("x.safetensors", "safetensors")])
def test_a_model_file_is_told_by_its_ending(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"")
    run = Run.open(tmp_path / name)
    assert (run.kind, run.model, run.folder) == (kind, tmp_path / name, tmp_path)


def test_a_folder_of_the_hub_is_its_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert Run.open(tmp_path).kind == "safetensors"


def test_without_a_path_it_is_the_model_that_comes_along() -> None:
    assert Run.open().model == BOXED


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model in .*neither checkpoints/best.ckpt"):
        Run.open(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model at .*gone"):
        Run.open(tmp_path / "gone")
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.pkl: not a model; give a run folder"):
        Run.open(tmp_path / "model.pkl")


def test_a_checkpoint_taken_out_of_its_folder_has_no_config(tmp_path: Path) -> None:
    _checkpoints(tmp_path, "best.ckpt")
    with pytest.raises(FileNotFoundError, match=r"config.yaml: not there; keep the checkpoint in its run folder"):
        Run.open(tmp_path).config()


def test_a_run_of_an_earlier_version_divides_its_data_by_the_seed_of_its_training(own_run: Path) -> None:
    file = Run(own_run).config_file
    plain = yaml.safe_load(file.read_text())
    plain["run"]["seed"] = 3
    assert plain["data"].pop("split_seed") == 0
    file.write_text(yaml.safe_dump(plain))
    assert Run(own_run).config().data.split_seed == 3
    assert Run(own_run).config(["data.split_seed=1"]).data.split_seed == 1


def test_config_takes_words_and_fingerprint_is_that_of_the_training(own_run: Path) -> None:
    run = Run.open(own_run)
    assert run.config(["data.batch_size=7"]).data.batch_size == 7
    assert run.fingerprint is None
    run.environment_file.write_text('{"data_fingerprint": "abc"}')
    assert run.fingerprint == "abc"
    shutil.rmtree(run.folder)
