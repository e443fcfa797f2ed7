from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from PIL import Image

from lungseg.cam.state import evaluating
from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig, OverlayConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.training.followed_samples import COLUMNS, add_epoch
from lungseg.training.module import LungModule
from lungseg.training.overlays import OverlayCallback
from lungseg.training.trackers.tensorboard_tracker import TensorBoardTracker
from lungseg.training.trackers.tracker import Picture


def _data(phantoms: Path) -> LungDataModule:
    config = DataConfig(root=str(phantoms), image_size=64, batch_size=6, workers=0)
    return LungDataModule(config, AugmentConfig(), seed=0)


def _fit(
    tiny: ModelConfig, data: LungDataModule, callbacks: list[Any], loggers: list[Logger] | bool = False, epochs: int = 1
) -> tuple[Trainer, LungModule]:
    seed_everything(0, verbose=False)
    module = LungModule(tiny, LossConfig(), OptimConfig(), list(CLASSES), [1.0] * 3)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=loggers,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data)
    return trainer, module


def test_one_sheet_an_epoch_of_the_same_samples(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=3), tmp_path)], epochs=3)
    sheets = sorted(tmp_path.glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["epoch_000.png", "epoch_001.png", "epoch_002.png"]
    pictures = [np.asarray(Image.open(sheet)) for sheet in sheets]
    first_panel = [picture[60:300, 0:250] for picture in pictures]
    assert (first_panel[0] == first_panel[1]).all() and (pictures[0] != pictures[1]).any()


def test_sheets_are_bounded_and_the_last_epoch_is_kept(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=1, max_sheets=2), tmp_path)], epochs=5)
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["epoch_000.png", "epoch_004.png"]


def test_training_with_and_without_the_callback_gives_identical_weights(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_model, dropout=0.3)
    _, plain = _fit(config, _data(phantoms), [], epochs=2)
    _, drawn = _fit(config, _data(phantoms), [OverlayCallback(OverlayConfig(), tmp_path)], epochs=2)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[name]), name


def test_modes_of_every_layer_are_restored() -> None:
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2)).train()
    network[1].eval()
    with pytest.raises(RuntimeError, match="inside"), evaluating(network):
        assert not network[0].training
        raise RuntimeError("inside")
    assert network[0].training and not network[1].training


def test_works_without_a_validation_set_from_training_images(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    data = _data(phantoms)
    data.prepare_data()
    data.setup()
    data.samples["val"] = []
    _fit(tiny_model, data, [OverlayCallback(OverlayConfig(), tmp_path)])
    assert (tmp_path / "epoch_000.png").is_file()


def test_an_empty_predicted_lung_and_one_sample_are_drawn(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    callback = OverlayCallback(OverlayConfig(samples=1), tmp_path)
    trainer, module = _fit(tiny_model, _data(phantoms), [callback])
    with torch.no_grad():
        module.network.segmenter.segmentation_head[0].bias.fill_(-100)
    (tile,) = callback.tiles(trainer, module, callback._batch)
    assert not tile.predicted_lung.any() and "dice 0.000" in tile.caption


def test_caption_gives_the_share_before_the_crop_and_a_warning_where_it_is_low(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    callback = OverlayCallback(OverlayConfig(samples=3), tmp_path)
    trainer, module = _fit(tiny_model, _data(phantoms), [callback])
    for tile in callback.tiles(trainer, module, callback._batch):
        positive = np.maximum(tile.cam, 0)
        assert tile.true_lung is not None
        share = positive[tile.true_lung].sum() / positive.sum()
        assert f"evidence in lungs before crop {share:.0%}" in tile.caption
        assert bool(tile.warning) == (share < 0.5)
        assert ".png" not in tile.caption


def test_drawing_is_on_rank_zero_only(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    callback = OverlayCallback(OverlayConfig(), tmp_path)

    class OtherRank:
        is_global_zero = False

    callback.on_train_epoch_end(OtherRank(), None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


class Taking(Logger):
    """A tracker as another package may bring one: it keeps what it is given."""

    name, version = "taking", ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path()
        self.given: list[tuple[str, list[Picture], int]] = []

    def log_hyperparams(self, params: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_images(self, name: str, pictures: list[Picture], epoch: int) -> None:
        assert (self.folder / f"epoch_{epoch:03d}.png").is_file(), "the file comes first"
        self.given.append((name, pictures, epoch))

    def log_result(self, numbers: Any) -> None: ...

    def log_evaluation(self, reported: Any) -> None: ...


def test_a_tracker_gets_the_sheet_with_layers_on_its_x_rays_and_no_file_names(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    tracker = Taking()
    tracker.folder = tmp_path
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=3), tmp_path)], [tracker], epochs=2)
    assert [(name, epoch) for name, _, epoch in tracker.given] == [("overlays", 0), ("overlays", 1)]
    (picture,) = tracker.given[1][1]
    assert (picture.pixels == np.asarray(Image.open(tmp_path / "epoch_001.png"))).all()
    assert set(picture.layers) == {"predicted", "true", "class map"} and picture.caption.count("\n") == 2
    for layer in picture.layers.values():
        assert layer.labels.shape == picture.pixels.shape[:2] and not layer.labels[:, 256:].any()
    assert not any(word in picture.caption for word in ("png", "covid_", "Train", "Val"))


def test_what_captions_say_is_kept_by_sample_and_epoch_and_handed_on(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    tracker = Taking()
    tracker.folder = tmp_path
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=3), tmp_path)], [tracker], epochs=2)
    columns, rows = tracker.given[1][1][0].table
    assert [row[:2] for row in rows] == [[epoch, sample] for epoch in (0, 1) for sample in (1, 2, 3)]
    assert rows[:3] == tracker.given[0][1][0].table[1]
    lines = tracker.given[1][1][0].caption.split("\n")
    for row, line in zip(rows[3:], lines, strict=True):
        said = dict(zip(columns, row, strict=True))
        assert said["predicted"] in CLASSES and f"true {said['true']}  predicted {said['predicted']}" in line
        assert f"({said['probability']:.2f})" in line and f"dice {said['dice']:.3f}" in line
        assert f"crop {said['evidence_in_lungs']:.0%}" in line and bool(said["peak_in_lungs"]) == ("inside" in line)
    facts = [dict.fromkeys(COLUMNS[1:]) | {"sample": number, "true": "=1+1"} for number in (1, 2, 3)]
    again = add_epoch(tmp_path / "samples.csv", 1, facts)
    assert again[:3] == rows[:3] and len(again) == 6, "epoch 1 is drawn anew"
    assert again[3] == [1, 1, "=1+1", None, None, None, None, None]
    assert "'=1+1" in (tmp_path / "samples.csv").read_text()
    assert len(add_epoch(tmp_path / "samples.csv", 2, facts[:2])) == 2, "others are followed now"


def test_layers_hold_lungs_infection_and_the_map_in_quarters_of_its_lung_maximum(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    tracker, callback = Taking(), OverlayCallback(OverlayConfig(samples=3), tmp_path)
    tracker.folder = tmp_path
    model = dataclasses.replace(tiny_model, infection=True)
    trainer, module = _fit(model, _data(phantoms), [callback], [tracker])
    layers = tracker.given[0][1][0].layers
    assert layers["true"].names == layers["predicted"].names == {1: "lung", 2: "infection"}
    first, *_ = callback.tiles(trainer, module, callback._batch)
    shown = {name: layer.labels[54 : 54 + 256 : 4, 0:256:4] for name, layer in layers.items()}
    true = np.where(first.true_infection, 2, first.true_lung)
    assert first.true_infection.any() and (shown["true"] == true).all()
    assert (shown["predicted"] == np.where(first.predicted_infection, 2, first.predicted_lung)).all()
    share = np.maximum(first.cam, 0) / np.maximum(first.cam, 0)[first.predicted_lung].max()
    quarters = shown["class map"]
    assert list(layers["class map"].names) == [1, 2, 3, 4] and ((quarters == 0) == (share == 0)).all()
    assert ((quarters >= 3) == (share > 0.5)).all() and ((quarters == 4) == (share > 0.75)).all()


def test_tensorboard_gets_the_sheet(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardTracker({}, save_dir=tmp_path, name="tb", version="")
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=1), tmp_path / "o")], [logger])
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert events.Tags()["images"] == ["overlays"]
