"""On GPUs: nccl, bf16, synchronised BatchNorm. Run with `pytest -m gpu`; two GPUs for the tests of two processes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import FIT, TORCHRUN, Running, numbers, patched, rows
from lightning.pytorch import Callback, LightningModule, Trainer

from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.models.network import LungNetwork
from lungseg.training.callbacks import AveragedWeights
from lungseg.training.distillation import Teacher
from lungseg.training.module import LungModule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

WORDS = ("--config", "tiny.yaml", "trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "data.workers=2")
FAULT = """
    def on_train_batch_start(self, trainer, module, batch, index):
        import torch.distributed as dist
        assert dist.get_backend() == "nccl"
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            raise RuntimeError("planted fault")
"""


def _fit(folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> Path:
    running = Running(folder, (*launcher, *FIT, *WORDS, *words))
    assert running.wait() == 0, running.said()
    assert running.left(within_s=5) == [] and "Traceback" not in running.said()
    (name,) = [word.removeprefix("run.name=") for word in words if word.startswith("run.name=")]
    return folder / "runs" / name


def _losses(run: Path) -> list[float]:
    return [float(row["train/loss"]) for row in rows(run) if row["train/loss"]]


def test_one_gpu_trains_in_bf16_through_nccl(tmp_path: Path) -> None:
    script = patched(tmp_path, FAULT)
    words = ("run.name=one", "trainer.devices=1", "trainer.strategy=ddp", "trainer.max_epochs=3")
    running = Running(tmp_path, (script, *WORDS, *words))
    assert running.wait() == 0, running.said()
    losses = _losses(tmp_path / "runs/one")
    assert len(losses) == 3 and all(map(math.isfinite, losses))
    assert {"test/dice", "test/auroc", "test/evidence_in_lungs"} <= set(numbers(tmp_path / "runs/one/metrics.json"))


@two_gpus
def test_two_gpus_with_synchronised_batchnorm_follow_one_with_the_same_global_batch(tmp_path: Path) -> None:
    one = _fit(tmp_path, "run.name=one", "trainer.devices=1", "data.batch_size=4", "trainer.precision=32-true")
    two = ("trainer.devices=2", "data.batch_size=2", "trainer.precision=32-true", "trainer.sync_batchnorm=true")
    both = _fit(tmp_path, "run.name=two", *two)
    assert _losses(both) == pytest.approx(_losses(one), rel=1e-3)  # TF32 and the order of sums


@two_gpus
@pytest.mark.parametrize("launcher", [(), TORCHRUN])
def test_two_gpus_train_in_bf16_and_make_one_run(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    devices = () if launcher else ("trainer.devices=2",)
    run = _fit(tmp_path, "run.name=two", "wandb.mode=offline", *devices, launcher=launcher)
    assert len(_losses(run)) == 2 and all(map(math.isfinite, _losses(run)))
    assert len(list(tmp_path.rglob("offline-run-*"))) == 1
    assert numbers(run / "environment.json")["processes"] == 2


@two_gpus
def test_a_failure_on_one_gpu_ends_both_although_nccl_would_wait(tmp_path: Path) -> None:
    running = Running(tmp_path, (patched(tmp_path, FAULT), *WORDS, "trainer.devices=2"))
    assert running.wait() == 1
    assert running.left(within_s=1) == []
    assert running.err.read_text().count("RuntimeError: planted fault") == 1


class NoWaiting(Callback):
    """Makes every operation that waits for the device an error, but in the first batch and at the ends of epochs."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if index else "default")

    def on_validation_start(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if index else "default")

    def on_validation_epoch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def test_no_step_waits_for_the_device(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    data = LungDataModule(
        DataConfig(root=str(phantoms), image_size=64, batch_size=2, workers=0), AugmentConfig(mixup=0.4, views=2)
    )
    loss = LossConfig(evidence_weight=1, localization_weight=1, contrastive_weight=1)
    model = dataclasses.replace(tiny_model, infection=True, pooling="lung")
    module = LungModule(model, loss, OptimConfig(), ["COVID-19", "Non-COVID", "Normal"])
    module.teacher = Teacher(LungNetwork(tiny_model, 3))  # which follows the module to its device
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="gpu",
        devices=1,
        max_epochs=1,
        log_every_n_steps=1000,
        callbacks=[NoWaiting(), AveragedWeights(0.9)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    try:
        trainer.fit(module, datamodule=data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 6
