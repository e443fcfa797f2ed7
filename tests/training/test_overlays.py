from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from lungseg.cam.state import evaluating
from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig, OverlayConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.training.module import LungModule
from lungseg.training.overlays import OverlayCallback


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
    sheets = sorted(tmp_path.iterdir())
    assert [sheet.name for sheet in sheets] == ["epoch_000.png", "epoch_001.png", "epoch_002.png"]
    pictures = [np.asarray(Image.open(sheet)) for sheet in sheets]
    first_panel = [picture[60:300, 0:250] for picture in pictures]
    assert (first_panel[0] == first_panel[1]).all() and (pictures[0] != pictures[1]).any()


def test_sheets_are_bounded_and_the_last_epoch_is_kept(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=1, max_sheets=2), tmp_path)], epochs=5)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["epoch_000.png", "epoch_004.png"]


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


def test_wandb_gets_images_with_mask_layers_and_no_file_names(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    sent: list[tuple[str, list[Any], dict[str, Any]]] = []
    monkeypatch.setattr(WandbLogger, "log_image", lambda self, key, images, **rest: sent.append((key, images, rest)))
    monkeypatch.setattr(WandbLogger, "log_metrics", lambda self, metrics, step=None: None)
    monkeypatch.setattr(WandbLogger, "experiment", property(lambda _: None))
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=3), tmp_path / "o")], [logger])
    (overlays, lungs) = sent
    assert (overlays[0], lungs[0]) == ("overlays", "lungs") and len(overlays[1]) == 3
    layers = lungs[2]["masks"][0]
    assert set(layers) == {"predicted", "true"} and layers["true"]["mask_data"].dtype == np.uint8
    assert not any(word in str(overlays[2]["caption"]) for word in ("png", "covid_", "Train", "Val"))
    sent.clear()
    callback = OverlayCallback(OverlayConfig(samples=3), tmp_path / "p", send_images=False)
    _fit(tiny_model, _data(phantoms), [callback], [logger])
    assert not sent and (tmp_path / "p/epoch_000.png").is_file()


def test_tensorboard_gets_the_sheet(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tb", version="")
    _fit(tiny_model, _data(phantoms), [OverlayCallback(OverlayConfig(samples=1), tmp_path / "o")], [logger])
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert events.Tags()["images"] == ["overlays"]
