from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig, OverlayConfig
from lungseg.data import datamodule
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.data.dataset import LungDataset
from lungseg.training import callbacks, overlays
from lungseg.training.callbacks import AveragedWeights, EpochLines
from lungseg.training.module import LungModule
from lungseg.training.overlays import OverlayCallback

DECAY = 0.6
WEIGHT = "network.classifier.project.weight"


class Watch(Callback):
    """Keeps the weight after every step, and the one that validation and drawing see."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.steps.append(pl_module.state_dict()[WEIGHT].clone())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated.append(pl_module.state_dict()[WEIGHT].clone())


def _fit(
    tiny: ModelConfig, phantoms: Path, folder: Path, epochs: int, last: Path | None = None
) -> tuple[Trainer, LungModule, Watch]:
    seed_everything(0, verbose=False)
    module = LungModule(tiny, LossConfig(), OptimConfig(lr=1e-2), list(CLASSES), [1.0] * 3)
    data = LungDataModule(DataConfig(root=str(phantoms), image_size=64, batch_size=4, workers=0), AugmentConfig(), 0)
    watch = Watch()
    overlays = OverlayCallback(OverlayConfig(samples=1), folder)
    saved = ModelCheckpoint(folder, filename="best", monitor="val/loss", save_last=True)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[watch, overlays, AveragedWeights(DECAY), saved],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True if last else None)
    return trainer, module, watch


def test_validation_sees_the_average_and_training_goes_on_without_it(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    _, _, watch = _fit(tiny_model, phantoms, tmp_path, epochs=2)
    average = watch.steps[0]
    expected = []
    for n, step in enumerate(watch.steps):
        if n:
            keep = min(DECAY, (1 + n) / (10 + n))
            average = keep * average + (1 - keep) * step
        if n % 3 == 2:  # 12 images, 4 a batch
            expected.append(average)
    for seen, wanted in zip(watch.validated, expected, strict=True):
        torch.testing.assert_close(seen, wanted)
    assert not torch.allclose(watch.steps[2], watch.validated[0])


def test_the_average_is_saved_and_tested(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    trainer, module, watch = _fit(tiny_model, phantoms, tmp_path, epochs=1)
    stored = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"][WEIGHT]
    torch.testing.assert_close(stored, watch.validated[-1])
    with torch.no_grad():
        module.network.classifier.project.weight.zero_()
    trainer.test(module, datamodule=trainer.datamodule, ckpt_path=tmp_path / "best.ckpt", verbose=False)  # type: ignore[attr-defined]
    torch.testing.assert_close(module.state_dict()[WEIGHT], stored)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path
) -> None:
    last = tmp_path / "first" / "last.ckpt"
    _fit(tiny_model, phantoms, tmp_path / "first", epochs=1)
    state = torch.load(last, weights_only=True)
    assert not torch.allclose(state["state_dict"][WEIGHT], state["current_model_state"][WEIGHT])
    _, _, watch = _fit(tiny_model, phantoms, tmp_path / "second", epochs=2, last=last)
    keep = min(DECAY, 4 / 13)
    wanted = keep * state["state_dict"][WEIGHT] + (1 - keep) * watch.steps[0]
    for n, step in enumerate(watch.steps[1:], start=4):
        keep = min(DECAY, (1 + n) / (10 + n))
        wanted = keep * wanted + (1 - keep) * step
    torch.testing.assert_close(watch.validated[-1], wanted)


@pytest.mark.parametrize(("batches_between", "validations"), [(None, 2), (1, 6)])
def test_time_is_shared_out_between_waiting_validating_and_drawing(
    tiny_model: ModelConfig,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches_between: int | None,
    validations: int,
) -> None:
    """On a clock that each image loaded moves by 1 s, a step by 2 s, a validation by 10 s, a sheet by 100 s."""
    clock = 5.0
    for module in (callbacks, datamodule, overlays):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock))

    def slower(owner: type, name: str, seconds: float) -> None:
        plain = getattr(owner, name)

        def wrapped(self: Any, *arguments: Any) -> Any:
            nonlocal clock
            clock += seconds if getattr(self, "augmentation", True) else 0  # of the data sets, that of Train
            return plain(self, *arguments)

        monkeypatch.setattr(owner, name, wrapped)

    for owner, name, seconds in (
        *((LungDataset, "__getitem__", 1), (LungModule, "training_step", 2)),
        *((LungModule, "on_validation_epoch_end", 10), (OverlayCallback, "tiles", 100)),
    ):
        slower(owner, name, seconds)
    lines = EpochLines(time.perf_counter())
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        val_check_interval=batches_between,
        logger=False,
        callbacks=[OverlayCallback(OverlayConfig(samples=1), tmp_path), lines],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = LungDataModule(root=str(phantoms), image_size=64, batch_size=4, workers=0, cache=False)
    trainer.fit(LungModule(tiny_model, LossConfig(), OptimConfig(), list(CLASSES)), datamodule=data)
    # 6 batches of 4 images in 2 epochs; neither the loading of the first nor the sanity check counts.
    training, waiting = 6 * 2 + 5 * 4, 5 * 4
    total = training + validations * (10 + 100)
    assert lines.speed == {
        "images_per_second": pytest.approx(24 / training),
        "share_waiting": pytest.approx(waiting / total),
        "share_validating": pytest.approx(validations * 10 / total),
        "share_drawing": pytest.approx(validations * 100 / total),
    }


def test_the_time_of_a_resumed_run_includes_what_it_took_before() -> None:
    lines, checkpoint = EpochLines(time.perf_counter() - 10.0, earlier_s=100.0), {}
    lines.on_save_checkpoint(SimpleNamespace(callback_metrics={}), LightningModule(), checkpoint)  # type: ignore[arg-type]
    assert 110.0 <= checkpoint["fit_seconds"] < 130.0
