from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungseg.config import AugmentConfig, DataConfig
from lungseg.data import leaks
from lungseg.data.datamodule import LungDataModule
from lungseg.data.index import load_index


@pytest.fixture
def leaking(phantoms: Path, tmp_path: Path) -> Path:
    """The phantom set's lung tree with one Val image copied into Train, mask and all."""
    root = tmp_path / "set"
    shutil.copytree(next(phantoms.glob("Lung*")), root)
    image = sorted(root.rglob("Val/Normal/images/*.png"))[0]
    for kind in ("images", "lung masks"):
        source = image.parents[1] / kind / image.name
        shutil.copy(source, Path(str(source.parent).replace("Val", "Train")) / "Normal (999).png")
    return root


def test_the_training_copy_goes_and_the_scored_image_stays(leaking: Path, tmp_path: Path) -> None:
    samples = load_index(leaking)
    kept = leaks.without_training_copies(samples, tmp_path / "cache")
    (gone,) = {sample.id for sample in samples} - {sample.id for sample in kept}
    assert gone.endswith("Train/Normal/images/Normal (999).png")


def test_the_search_is_made_once_and_again_when_a_file_changes(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    genuine = leaks.training_copies
    monkeypatch.setattr(leaks, "training_copies", lambda samples: calls.append(1) or genuine(samples))
    for _ in range(2):
        leaks.without_training_copies(load_index(leaking), tmp_path / "cache")
    assert len(calls) == 1
    image = sorted(leaking.rglob("Train/Normal/images/*.png"))[0]
    image.write_bytes(image.read_bytes() + b"\0")
    leaks.without_training_copies(load_index(leaking), tmp_path / "cache")
    assert len(calls) == 2


def test_datamodule_leaves_copies_out_and_counts_them(leaking: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(leaking), image_size=64, exclude_leaks=True, cache_dir=str(tmp_path / "cache"))
    module = LungDataModule(config, AugmentConfig(), seed=0)
    module.find_samples()
    assert module.excluded == 1 and len(module.samples["train"]) == 12


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
    assert {sample.label for samples in module.samples.values() for sample in samples} <= {1, 2}
