"""The command's training loop against a bare torch loop: same network, losses, optimiser and clipping, in turns.

The bare loop has its batches in memory. So all that the command adds is in the ratio: loading and augmentation,
callbacks, logging, Lightning. One epoch of phantoms each, but for its first step, which allocates and chooses kernels;
seconds by the clock, for loaders are processes of their own. On a GPU in float32 and bf16, each as it is and compiled.
"""

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import product
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from torch import nn

from lungseg.benchmarks.timing import TINY
from lungseg.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    OverlayConfig,
    PhantomConfig,
    RunConfig,
    TrainerConfig,
    WandbConfig,
)
from lungseg.data.batch import Batch, unpack
from lungseg.data.datamodule import LungDataModule
from lungseg.runs.progress import only_errors
from lungseg.training.fitting import Training
from lungseg.training.module import LungModule
from lungseg.training.signals import SignalHandler

WAITS = 0.05  # Share of the time above which waiting for data is worth a word.


class Scale(NamedTuple):
    """What is trained."""

    name: str
    size_px: int
    images: int
    model: ModelConfig
    loss: LossConfig = LossConfig()
    average: float | None = None


DEMO = Scale("demo", 128, 240, ModelConfig("Unet", "resnet18", 3, None, [64, 32, 16], pooling="lung"))
_LITE = ModelConfig("Unet", "tu-tf_efficientnet_lite0", 5, None, [128, 64, 32, 32, 16], map_stride=8, infection=True)
COVIDQU_CPU = Scale("covidqu_cpu", 160, 160, _LITE, LossConfig(localization_weight=2, label_smoothing=0.1), 0.999)
"""As the shipped configs of these names, but for random weights."""


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: images a second of the bare loop, of the command's and of the loader alone, and what limits."""
    scales, repeats = ([Scale("tiny", 64, 8, TINY)], 1) if quick else ([DEMO, COVIDQU_CPU], 3)
    on_gpu = torch.cuda.is_available()
    for scale in scales:
        for precision, compiled in (
            product(("32-true", "bf16-mixed"), (False, True)) if on_gpu else [("32-true", False)]
        ):
            with TemporaryDirectory() as folder, only_errors("lungseg"):
                yield from _lines(_config(scale, precision, compiled, folder), scale, repeats)


def _lines(config: Config, scale: Scale, repeats: int) -> Iterator[str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = f"{scale.size_px} px, batches of {config.data.batch_size}, {config.trainer.precision} on the {device.type}"
    about += ", compiled" * config.trainer.compile
    yield f"{scale.name}: {about}; images a second, medians of {repeats}:"
    bare, command, loader, waiting = [], [], [], []
    for turn in range(repeats + 1):
        speeds = _bare(config, device), _command(config), _loader(config)
        if turn > 0:  # the first turn draws the phantoms, fills caches and compiles kernels
            bare.append(speeds[0])
            command.append(speeds[1][0])
            waiting.append(speeds[1][1])
            loader.append(speeds[2])
    yardstick = median(bare)
    rows = {"bare torch loop, batches in memory": bare, "training loop of fit": command, "its loader alone": loader}
    for name, speeds_of in rows.items():
        yield f"  {name:<36}{median(speeds_of):8.1f}{median(speeds_of) / yardstick:8.2f} x"
    share = median(waiting)
    limit = "the loader limits it: data.workers, fewer transforms" if share > WAITS else "the network limits it"
    yield f"  waiting for data {share:.1%} of the time: {limit}"


def _config(scale: Scale, precision: str, compiled: bool, folder: str) -> Config:
    phantoms = PhantomConfig(train=scale.images, val=3, test=3, size_px=scale.size_px, dir=folder)
    size = 4 if scale.size_px == 64 else 16
    return Config(
        run=RunConfig(dir=folder, report=False),
        data=DataConfig(image_size=scale.size_px, batch_size=size, cache_dir=folder, phantom=phantoms),
        model=scale.model,
        loss=scale.loss,
        optim=OptimConfig(average=scale.average),
        trainer=TrainerConfig(max_epochs=1, precision=precision, devices=1, num_sanity_val_steps=0, compile=compiled),
        overlays=OverlayConfig(samples=1),
        wandb=WandbConfig(mode="disabled"),
    )


class _Clock(Callback):
    """Takes the time at the end of each training step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Take the time, of the device too."""
        self.tick()

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def steps_per_second(self) -> float:
        return (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])


def _command(config: Config) -> tuple[float, float]:
    """Images a second of an epoch as `fit` trains it, and the share of the time that it waits for its loader."""
    clock = _Clock()
    with redirect_stdout(io.StringIO()), SignalHandler() as signals:
        training = Training.prepare(config, "bench", signals)
        training.trainer.callbacks.append(clock)  # type: ignore[attr-defined]  # Lightning does not declare them
        training.trainer.fit(training.module, datamodule=training.data)
    return clock.steps_per_second() * config.data.batch_size, training.lines.speed["share_waiting"]


def _bare(config: Config, device: torch.device) -> float:
    """Images a second of the loop that everyone writes first."""
    data = _data(config)
    batches = [_on(device, unpack(batch)) for batch in data.train_dataloader()]
    module = LungModule(config.model, config.loss, config.optim, data.classes).to(device)
    network, weights, precise = module.network.train(), module.weights(), config.trainer.precision == "32-true"
    run = torch.compile(network.forward, dynamic=False) if config.trainer.compile else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.optim.lr, fused=device.type == "cuda" or None)
    clock = _Clock()
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=not precise):
            terms = module.terms(run(batch["image"]), batch)
        loss = torch.stack([weights[name.removeprefix("infection_")] * t.mean() for name, t in terms.items()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), config.trainer.gradient_clip_val or 1.0)
        optimizer.step()
        clock.tick()
    return clock.steps_per_second() * config.data.batch_size


def _loader(config: Config) -> float:
    """Images a second of the loader with nothing to wait for, from its first batch on."""
    images, start = 0, 0.0
    for batch in _data(config).train_dataloader():
        images += len(batch["image"]) if start else 0
        start = start or time.perf_counter()
    return images / (time.perf_counter() - start)


def _data(config: Config) -> LungDataModule:
    data = LungDataModule(config.data, config.augment, config.run.seed)
    with redirect_stdout(io.StringIO()):
        data.prepare_data()
        data.setup("fit")
    return data


def _on(device: torch.device, batch: Batch) -> Batch:
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
