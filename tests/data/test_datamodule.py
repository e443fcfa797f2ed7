from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from lungseg.config import AugmentConfig, DataConfig, PhantomConfig
from lungseg.data.batch import Batch
from lungseg.data.datamodule import LungDataModule, default_workers
from lungseg.errors import DataError


def _config(root: Path | None, **changes: object) -> DataConfig:
    return dataclasses.replace(
        DataConfig(root=str(root) if root else None, image_size=64, batch_size=4, workers=0), **changes
    )


def _module(config: DataConfig) -> LungDataModule:
    module = LungDataModule(config, AugmentConfig(), seed=0)
    module.prepare_data()
    module.setup()
    return module


def _batches(module: LungDataModule, split: str) -> list[Batch]:
    return [module.on_after_batch_transfer(batch, 0) for batch in getattr(module, f"{split}_dataloader")()]


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_are_the_same_with_and_without_a_cache(phantoms: Path, workers: int, tmp_path: Path) -> None:
    decoded = _batches(_module(_config(phantoms, cache=False)), "train")
    cached = _batches(_module(_config(phantoms, cache_dir=str(tmp_path / "c"), workers=workers)), "train")
    assert len(list((tmp_path / "c").glob("*.cache"))) == 3
    for one, other in zip(decoded, cached, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("image", "lung", "infection", "label"))


def test_a_stage_builds_the_caches_it_needs(phantoms: Path, tmp_path: Path) -> None:
    module = LungDataModule(_config(phantoms, cache_dir=str(tmp_path / "c")), AugmentConfig(), seed=0)
    module.setup("test")
    assert set(module.caches) == {"test"}
    module.setup("fit")
    assert set(module.caches) == {"train", "val", "test"}


def test_only_the_splits_named_are_cached_and_their_size_is_said_before(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = _module(_config(phantoms, cache=["val", "test"], cache_dir=str(tmp_path / "c")))
    assert set(module.caches) == {"val", "test"} and len(list((tmp_path / "c").glob("*.cache"))) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(
        f"cache: 12 images will be decoded into {tmp_path / 'c'}: 0.1 MB (val 0.0 MB, test 0.0 MB), "
    )
    _module(_config(phantoms, cache=["val", "test"], cache_dir=str(tmp_path / "c")))
    assert "cache" not in capsys.readouterr().err  # all there


def test_caches_that_do_not_fit_together_are_refused_before_any_is_written(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)  # the largest of the three would fit
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    rule = r"c: the cache takes 0\.1 MB \(train 0\.1 MB, .*0\.1 MB are free there; set data\.cache_dir .*\[val,test\]"
    with pytest.raises(DataError, match=rule):
        _module(_config(phantoms, cache_dir=str(tmp_path / "c")))
    assert not (tmp_path / "c").exists()


def test_without_a_root_phantoms_are_written_and_used(tmp_path: Path) -> None:
    phantom = PhantomConfig(train=3, val=3, test=3, size_px=64, dir=str(tmp_path))
    module = _module(_config(None, phantom=phantom))
    assert {split: len(samples) for split, samples in module.samples.items()} == {"train": 3, "val": 3, "test": 3}
    assert len(list(tmp_path.rglob("images/*.png"))) == 18  # both trees


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_are_the_same_with_any_number_of_workers(phantoms: Path, workers: int) -> None:
    batches = [_batches(_module(_config(phantoms, workers=count)), "train") for count in (0, workers)]
    for one, other in zip(*batches, strict=True):
        assert one["id"] == other["id"]
        assert all(torch.equal(one[name], other[name]) for name in ("image", "lung", "infection", "label"))


def test_batch_follows_the_contract(phantoms: Path) -> None:
    batch = _batches(_module(_config(phantoms)), "val")[0]
    assert batch["image"].shape == batch["lung"].shape == (4, 1, 64, 64) and batch["label"].dtype == torch.int64
    assert batch["has_lung"].dtype == torch.bool and len(batch["id"]) == 4


def test_evaluation_visits_each_sample_once_in_order(phantoms: Path) -> None:
    module = _module(_config(phantoms))
    ids = [name for batch in module.val_dataloader() for name in batch["id"]]
    assert ids == [sample.id for sample in module.samples["val"]]


def test_a_split_that_is_not_there_has_no_loader(phantoms: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(phantoms, root)
    for test in root.rglob("Test"):
        shutil.rmtree(test)
    assert _module(_config(root)).test_dataloader() == []
    carved = _module(_config(root, test_fraction=0.4))
    assert carved.samples["test"] and len(carved.samples["train"]) + len(carved.samples["test"]) == 12


def test_balanced_class_weights_are_inverse_shares(phantoms: Path) -> None:
    module = _module(_config(phantoms))
    labels = [s.label for s in module.samples["train"]]
    extra = [s for s in module.samples["train"] if s.label == 0]
    module.samples["train"] = module.samples["train"] + extra  # 8, 4, 4
    assert labels.count(0) == 4
    assert module.balanced_class_weights() == pytest.approx([16 / 24, 16 / 12, 16 / 12])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), r"set"),
        (lambda root: [shutil.rmtree(p) for p in root.iterdir()], r"set"),
        (lambda root: [p.unlink() for p in root.rglob("Train/Normal/images/*.png")], r"Normal"),
        (lambda root: next(iter(sorted(root.rglob("Train/Normal/lung masks/*.png")))).unlink(), r"Normal \(\d+\)\.png"),
    ],
)
def test_faulty_data_ends_in_one_line_naming_it(phantoms: Path, tmp_path: Path, damage, message: str) -> None:
    root = tmp_path / "set"
    shutil.copytree(phantoms, root)
    for tree in list(root.glob("Infection*")):
        shutil.rmtree(tree)
    damage(root)
    with pytest.raises((DataError, FileNotFoundError), match=message) as caught:
        _module(_config(root))
    assert "\n" not in str(caught.value)


def test_workers_fit_the_machine() -> None:
    assert default_workers(on_gpu=False, world_size=1) in (0, 1)
    assert 1 <= default_workers(on_gpu=True, world_size=1) <= 8


def test_workers_are_shared_by_the_processes_of_a_node_not_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungseg.data.datamodule.cores", lambda: 24)
    assert [default_workers(True, world, nodes) for world, nodes in ((1, 1), (4, 1), (8, 2), (8, 1))] == [8, 6, 6, 3]


def test_datamodule_leaves_copies_out_and_counts_them(leaking: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(leaking), image_size=64, exclude_leaks=True, cache_dir=str(tmp_path / "cache"))
    module = LungDataModule(config, AugmentConfig(), seed=0)
    module.find_samples()
    assert module.excluded == 1 and len(module.samples["train"]) == 12


def test_the_splits_move_with_their_own_seed_alone(phantoms: Path) -> None:
    def val(seed: int, split_seed: int) -> list[str]:
        config = DataConfig(root=str(phantoms), fold=0, folds=2, split_seed=split_seed)
        module = LungDataModule(config, AugmentConfig(), seed=seed)
        module.find_samples()
        return [sample.id for sample in module.samples["val"]]

    assert val(0, 0) == val(7, 0) != val(0, 1)


def test_fold_and_label_map_reach_the_index(phantoms: Path, tmp_path: Path) -> None:
    def ids(fold: int) -> set[str]:
        module = LungDataModule(DataConfig(root=str(phantoms), fold=fold, folds=2), AugmentConfig(), seed=0)
        module.find_samples()
        return {sample.id for sample in module.samples["val"]}

    assert not ids(0) & ids(1) and len(ids(0) | ids(1)) == 18
    root = tmp_path / "plain"
    for number, image in enumerate(sorted(phantoms.rglob("Lung*/Train/*/images/*.png"))):
        folder = root / ("sick", "well")[number % 2] / "images"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / f"{number}.png")
    config = DataConfig(root=str(root), label_map=["sick=Non-COVID", "well=Normal"])
    module = LungDataModule(config, AugmentConfig(), seed=0)
    module.find_samples()
    assert {sample.label for samples in module.samples.values() for sample in samples} <= {0, 1}
