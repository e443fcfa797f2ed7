"""A run goes on only as what it was begun as: `lungseg.training.resuming`."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lungseg.config import Config
from lungseg.config.loading import dump_config, load_config
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import UserError
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_json
from lungseg.training.resuming import check_continues, keep_config, last_row
from lungseg.training.trainer import WholeCheckpoints


@pytest.fixture
def begun(tmp_path: Path, phantoms: Path) -> tuple[Run, Config, LungDataModule]:
    """A run on phantoms, the config it has, and its data."""
    config = load_config(None, [f"data.root={phantoms}", "data.folds=3", "data.fold=0"])
    run = Run(tmp_path / "mine")
    (run.folder / "checkpoints").mkdir(parents=True)
    run.config_file.write_text(dump_config(config))
    data = _data(config)
    write_json(run.environment_file, {"data_fingerprint": data.fingerprint})
    return run, config, data


def _data(config: Config) -> LungDataModule:
    data = LungDataModule(config.data, config.augment, config.run.seed)
    data.find_samples()
    return data


def _with(config: Config, key: str, value: Any) -> Config:
    section, _, name = key.partition(".")
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: value})})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("optim.lr", 0.1), ("optim.weight_decay", 0.5), ("optim.encoder_lr_factor", 0.5), ("optim.average", 0.9)),
        *(("loss.dice", 2.0), ("loss.class_costs", ["Normal=2"]), ("augment.rotate", 1.0), ("model.head", "conv")),
        *(("loss.teacher", "runs/other"), ("loss.teacher_weight", 0.5)),
        *(("data.fold", 1), ("data.test_fraction", 0.5), ("data.image_size", 64), ("data.exclude_leaks", True)),
        *(("run.seed", 1), ("run.init", "runs/other"), ("run.monitor", "val/dice"), ("run.patience", 3)),
    ],
)
def test_what_is_learned_or_chosen_by_cannot_change(
    begun: tuple[Run, Config, LungDataModule], key: str, value: Any
) -> None:
    run, config, data = begun
    with pytest.raises(
        UserError,
        match=rf"^run\.resume: {key} is .* and .* here; "
        r"go on with --config .*config.yaml run.name=mine run.resume=true, or start a new run",
    ):
        check_continues(run, _with(config, key, value), data, 1)
    check_continues(run, _with(config, key, value), data, 0)  # nothing has been learned


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("trainer.max_epochs", 99), ("trainer.devices", 2), ("overlays.samples", 1), ("wandb.mode", "disabled")),
        *(("data.workers", 2), ("data.cache_dir", "elsewhere"), ("run.report", False), ("run.resume", True)),
    ],
)
def test_where_and_how_long_it_runs_can(begun: tuple[Run, Config, LungDataModule], key: str, value: Any) -> None:
    run, config, data = begun
    check_continues(run, _with(config, key, value), data, 1)


def test_a_data_set_that_was_moved_is_the_same_and_one_that_has_changed_is_not(
    begun: tuple[Run, Config, LungDataModule], phantoms: Path, tmp_path: Path
) -> None:
    run, config, _ = begun
    moved = _with(config, "data.root", str(shutil.copytree(phantoms, tmp_path / "moved")))
    check_continues(run, moved, _data(moved), 1)
    for path in sorted((tmp_path / "moved").rglob("Train/Normal/images/*.png"))[:1]:
        for twin in (tmp_path / "moved").rglob(f"Train/Normal/*/{path.name}"):
            twin.unlink()
    with pytest.raises(UserError, match=r"run\.resume: images, labels or their division are not those that .*mine was"):
        check_continues(run, moved, _data(moved), 1)


def test_fewer_epochs_than_are_done(begun: tuple[Run, Config, LungDataModule]) -> None:
    run, config, data = begun
    check_continues(run, _with(config, "trainer.max_epochs", 3), data, 3)  # for its report, say
    with pytest.raises(UserError, match=r"trainer\.max_epochs: 3 epochs of .*mine are done, got 2"):
        check_continues(run, _with(config, "trainer.max_epochs", 2), data, 3)


def test_the_config_of_the_first_epochs_is_kept(begun: tuple[Run, Config, LungDataModule]) -> None:
    run, config, _ = begun
    first, longer = run.config_file.read_text(), _with(config, "trainer.max_epochs", 99)
    for same, done in ((_with(config, "run.resume", True), 2), (longer, 0)):  # nothing new; nothing learned by the old
        keep_config(run, same, done)
        assert run.config_file.read_text() == first and len(list(run.folder.glob("config*"))) == 1
    keep_config(run, longer, 2)
    assert (run.folder / "config.epoch-1.yaml").read_text() == first


def test_a_broken_last_checkpoint_offers_the_best(begun: tuple[Run, Config, LungDataModule]) -> None:
    run = begun[0]
    assert last_row(run) == {}
    torch.save({"lungseg": {}, "epoch": 4, "state_dict": {}}, run.last_checkpoint)
    assert last_row(run)["epoch"] == 4
    run.last_checkpoint.write_bytes(run.last_checkpoint.read_bytes()[:100])
    with pytest.raises(UserError, match=r"last.ckpt: not a readable checkpoint \(\w+\); is the file whole\?$"):
        last_row(run)
    torch.save({"lungseg": {}, "epoch": 3, "state_dict": {}}, run.best_checkpoint)
    with pytest.raises(UserError, match=r"is the file whole\?; to go on from the best epoch, copy .*best.ckpt over it"):
        last_row(run)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path) == {"epoch": 1} and list(path.parent.iterdir()) == [path]
