"""No step asks a device for a value, which would make the host wait for it; counted on the CPU, on any device alike."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.models.network import LungNetwork
from lungseg.training.callbacks import AveragedWeights, EpochLines, SeedEachEpoch
from lungseg.training.distillation import Teacher
from lungseg.training.module import LungModule

_READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2"}
_ON_HOST = ("torch/optim/", "lungseg/data/batch.py")
"""Where counters are read that always lie in the host's memory, or only where that is the device."""


class HostReads(TorchDispatchMode):
    """Counts the operations that give a value of a tensor to Python, by the phase of the training and the place."""

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.found = "", Counter[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.phase and self._reads(func.overloadpacket.__name__, args):
            stack = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
            if not any(place in line for place in _ON_HOST for line in stack):
                self.found[self.phase, _nearest(stack)] += 1
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _reads(name: str, args: Any) -> bool:
        if name in ("index", "index_put", "index_put_"):  # by a mask: how many there are must be known
            return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        return name in _READS


def _nearest(stack: list[str]) -> str:
    return next((line for line in reversed(stack) if "/lungseg/" in line or "/lightning/" in line), stack[-1])


class Phases(Callback):
    """Tells what is being done; the ends of epochs, where everything is read once, are none of it."""

    def __init__(self, reads: HostReads):
        self.reads = reads

    def on_train_batch_start(self, *_: Any) -> None:
        self.reads.phase = "train"

    def on_validation_start(self, *_: Any) -> None:
        self.reads.phase = ""

    def on_validation_batch_start(self, *_: Any) -> None:
        self.reads.phase = "val"

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.reads.phase = ""


@pytest.mark.parametrize("several", [False, True])
def test_an_epoch_reads_nothing_between_its_log_steps(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path, several: bool
) -> None:
    guided = 0.0 if several else 1.0
    loss = LossConfig(evidence_weight=1, localization_weight=guided, class_weights="balanced", label_smoothing=0.1)
    loss = dataclasses.replace(loss, contrastive_weight=1)
    data = LungDataModule(
        DataConfig(root=str(phantoms), image_size=64, batch_size=2, workers=0, multi_label=several),
        AugmentConfig(mixup=0.4, views=2),
    )
    data.find_samples()
    model = dataclasses.replace(tiny_model, infection=True, pooling="lung", dropout=0.1)
    module = LungModule(model, loss, OptimConfig(frozen_encoder_epochs=0), data.classes, multi_label=several)
    module.teacher = Teacher(LungNetwork(tiny_model, len(data.classes), several))
    reads = HostReads()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        log_every_n_steps=1000,
        callbacks=[Phases(reads), SeedEachEpoch(0), EpochLines(time.perf_counter()), AveragedWeights(0.9)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    with reads:
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 12
    assert not reads.found, "\n".join(f"{count} in {phase}: {place}" for (phase, place), count in reads.found.items())


def test_a_read_is_counted() -> None:
    with HostReads() as reads:
        reads.phase = "train"
        tensor = torch.arange(3.0)
        assert float(tensor[0]) == 0
        assert tensor[tensor > 0].shape == (2,)
    assert sum(reads.found.values()) == 2
