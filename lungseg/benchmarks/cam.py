"""What class activation maps cost: over a forward pass, by other ways than the closed form, and as overlays.

All in one process and on one core, timed in turns, in CPU time, with random weights: other load on the machine touches
all alike, and time does not depend on the weights. Overlays and trackers, which wait for files and for a process of
W&B's, are timed by the clock.
"""

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import default_collate

from lungseg.benchmarks.timing import TINY, Tasks, medians, one_thread
from lungseg.cam.lung import evidence_in_lungs, mask_to_lung, resize_map
from lungseg.cam.methods import METHODS, class_map_of
from lungseg.config import Config, LossConfig, ModelConfig, OptimConfig, OverlayConfig, RunConfig, WandbConfig
from lungseg.data.phantom.generator import draw_phantom
from lungseg.models.encoders import LITES
from lungseg.models.metrics import score_names
from lungseg.models.network import LungNetwork
from lungseg.reporting.contact_sheet import draw_sheet
from lungseg.reporting.drawing import png
from lungseg.runs.progress import only_errors
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_whole
from lungseg.training.followed_samples import COLUMNS
from lungseg.training.loggers import build_loggers
from lungseg.training.module import LungModule
from lungseg.training.overlays import OverlayCallback, picture_of
from lungseg.training.trackers.guarded import GuardedTracker
from lungseg.training.trackers.wandb_tracker import finish_wandb

MODEL = ModelConfig(
    encoder=LITES["lite0"],
    encoder_weights=None,
    decoder_channels=[128, 64, 32, 32, 16],
    map_stride=8,
    dropout=0.4,
    infection=True,
)
LOSS = LossConfig(class_costs=["COVID-19=4", "Normal=0.5"], label_smoothing=0.1, localization_weight=2.0)
OPTIM = OptimConfig(lr=2e-3, encoder_lr_factor=0.075, final_lr_factor=0.3, weight_decay=0.02, average=0.999)
"""These three are `configs/covidqu_cpu.yaml`'s, without its pretrained weights."""
PACKAGE = "GradCAM of the package grad-cam"
TRAIN_SIZE_PX, TRAIN_BATCH, TRAIN_IMAGES = 160, 16, 3338
"""An epoch that overlays are measured against."""


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: milliseconds of each method and ratios, then seconds of a drawn sheet and of an epoch."""
    model = replace(TINY, head="conv", head_channels=8) if quick else MODEL  # fewer channels, fewer Score-CAM passes
    size_px, batch, repeats = (64, 2, 1) if quick else (256, 8, 9)
    network = LungNetwork(model, 3).eval()
    images = torch.rand(batch, 1, size_px, size_px)
    with one_thread():
        yield f"{size_px} px, batches of {batch}, 1 core, medians of {2 * repeats - 1}, and against the forward pass:"
        yield from _rows(_passes(network, images), 2 * repeats - 1)  # more often: the difference is small
        yield f"medians of {repeats}, maps at the images' size, and against the closed form:"
        methods = {name: _method(name, network, images) for name in METHODS if name != "score_cam"}
        try:
            methods[PACKAGE] = _package_maps(network, images)
        except ImportError:
            yield f"{PACKAGE}: not measured: pip install grad-cam"
        yield from _rows(methods, repeats)
        yield "Score-CAM, which takes a pass for each channel, on one image:"
        yield from _rows({name: _method(name, network, images[:1]) for name in ("cam", "score_cam")}, 1)
        yield from _overlays(model, quick)


def _rows(tasks: Tasks, repeats: int) -> Iterator[str]:
    for name, seconds, ratio in medians(tasks, repeats):
        yield f"{name:<52}{1000 * seconds:9.1f} ms{ratio:8.3f} x"


def _passes(network: LungNetwork, images: Tensor) -> Tasks:
    """A forward pass, alone and with all that is made of its class maps."""
    alone = torch.inference_mode()(lambda: network(images))

    @torch.inference_mode()
    def with_maps() -> None:
        output = network(images)
        lung = output.mask_logits[:, 0] > 0
        cam = class_map_of(output, output.class_logits.argmax(dim=1))
        cam = resize_map(cam, network.stride, (lung.shape[-2], lung.shape[-1]))
        evidence_in_lungs(cam, lung)
        mask_to_lung(cam, lung)

    return {"forward pass": alone, "with maps, resized, evidence share, in the lungs": with_maps}


def _method(name: str, network: LungNetwork, images: Tensor) -> Callable[[], Any]:
    target, size = torch.zeros(len(images), dtype=torch.int64), (images.shape[-2], images.shape[-1])
    return lambda: resize_map(METHODS[name](network, images, target), network.stride, size)


def _package_maps(network: LungNetwork, images: Tensor) -> Callable[[], Any]:
    """Grad-CAM of the package `grad-cam`, of the same features."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from lungseg.benchmarks.plain_predict import grad_cam

    # A copy, so that the methods timed after it have no hooks and gradients to carry.
    explain, targets = grad_cam(deepcopy(network)), [ClassifierOutputTarget(0)] * len(images)
    return lambda: explain(input_tensor=images, targets=targets)


def _overlays(model: ModelConfig, quick: bool) -> Iterator[str]:
    """The share of an epoch that drawing its contact sheet takes, and handing that and its scores to all trackers."""
    size_px, batch, repeats = (64, 2, 1) if quick else (TRAIN_SIZE_PX, TRAIN_BATCH, 5)
    module = LungModule(model, LOSS, OPTIM, ["a", "b", "c"])
    optimizer = torch.optim.AdamW(module.parameters())
    samples = [_sample(number, size_px) for number in range(OverlayConfig().samples)]
    seen, shown = default_collate([samples[i % len(samples)] for i in range(batch)]), default_collate(samples)

    def train() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(module.training_step(seen, 0))
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    def draw() -> None:
        write_whole(Path(folder) / "sheet.png", png(draw_sheet(overlays.tiles(trainer, module, shown), "epoch 0")))

    def follow(tracker: Any) -> None:
        epoch = next(epochs)
        picture = picture_of(tiles, drawn, [[epoch, *(tile.facts[name] for name in COLUMNS[1:])] for tile in tiles])
        tracker.log_images("overlays", [picture], epoch)
        for stage in ("val", "train"):
            tracker.log_metrics({f"{stage}/{name}": 0.5 for name in names} | {"epoch": epoch}, epoch)

    with tempfile.TemporaryDirectory() as folder, only_errors("lightning.pytorch"):
        overlays, trainer = OverlayCallback(OverlayConfig(), Path(folder)), Trainer(accelerator="cpu", logger=False)
        tiles = overlays.tiles(trainer, module, shown)
        drawn, epochs = draw_sheet(tiles, "epoch 0"), itertools.count()
        names = score_names(module.classes, infection=True)
        loggers = build_loggers(_followed(Path(folder)), Run(Path(folder)))
        trackers = [logger for logger in loggers if isinstance(logger, GuardedTracker)]  # and not metrics.csv
        tasks = {"training": train, f"overlays of {len(samples)} samples, drawn and written": draw}
        handed = [f"they and {2 * len(names)} scores handed to {tracker.title}" for tracker in trackers]
        tasks |= {name: partial(follow, tracker) for name, tracker in zip(handed, trackers, strict=True)}
        (_, step, _), *shares = medians(tasks, repeats, time.perf_counter)
        finish_wandb(0)
    failed = {name for name, tracker in zip(handed, trackers, strict=True) if tracker.failed}
    epoch = step * math.ceil(TRAIN_IMAGES / batch)
    yield f"an epoch of {TRAIN_IMAGES} images of {size_px} px in batches of {batch}, and a contact sheet's share of it:"
    yield f"{'training':<52}{epoch:9.1f} s"
    for name, seconds, _ in shares:
        spent = "   not measured: it failed" if name in failed else f"{seconds:9.2f} s {100 * seconds / epoch:8.2f} %"
        yield f"{name:<52}{spent}"


def _followed(folder: Path) -> Config:
    """A config with every tracker that is installed, W&B offline."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # what is measured here is nobody's run
    tensorboard, mlflow = (find_spec(name) is not None for name in ("tensorboard", "mlflow"))
    run = RunConfig(dir=str(folder), tensorboard=tensorboard, mlflow=mlflow)
    return Config(run=run, wandb=WandbConfig(mode="offline"))


def _sample(number: int, size_px: int) -> dict[str, Any]:
    """A phantom as a dataset gives it."""
    phantom = draw_phantom(number, size_px=size_px)
    image = torch.from_numpy(phantom.image)[None].float() / 255
    masks = {name: torch.from_numpy(getattr(phantom, name))[None].float() for name in ("lung", "infection")}
    return {
        "image": image,
        "label": phantom.label,
        "has_label": True,
        **masks,
        **{f"has_{name}": True for name in masks},
    }
