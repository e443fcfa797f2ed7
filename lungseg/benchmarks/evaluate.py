"""What an evaluation takes beside the forward passes: masks, maps, intervals, shortcut test, robustness, page.

The network is small and has learned nothing; the time inside it is measured apart, and the rest is what counts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lungseg.config import AugmentConfig, Config, DataConfig, ModelConfig, PhantomConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.data.index import load_index
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.data.sample import CLASSES, Sample
from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.target import EvaluationTarget
from lungseg.models.network import LungNetwork
from lungseg.reporting.evaluation_files import PictureWriter
from lungseg.reporting.report_run import write_report
from lungseg.runs.progress import cores
from lungseg.runs.run import Run

MODEL = ModelConfig(encoder="tu-mobilenetv3_small_050", encoder_depth=4, decoder_channels=[16, 16, 8, 8], map_stride=8)
TARGET_S = 60.0
"""Seconds that the rest is to stay below on two cores that do nothing else."""


@dataclass
class Stopwatch:
    """Seconds by the clock of each part, and those spent inside the network."""

    parts: dict[str, list[float]] = field(default_factory=dict)
    """By name: all, and in the network."""
    inside: float = 0.0
    _name: str = ""
    _since: tuple[float, float] = (0.0, 0.0)
    _entered: float = 0.0

    def say(self, line: str) -> None:
        """Close the part before and open the one that a line announces; an empty line only closes."""
        now = time.perf_counter(), self.inside
        if self._name:
            part = self.parts.setdefault(self._name, [0.0, 0.0])
            part[0] += now[0] - self._since[0]
            part[1] += now[1] - self._since[1]
        self._name, self._since = line, now

    def enter(self, *_: Any) -> None:
        """A forward pass begins."""
        self._entered = time.perf_counter()

    def leave(self, *_: Any) -> None:
        """It ends."""
        self.inside += time.perf_counter() - self._entered


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: seconds of each part without the network, their sum, and the memory."""
    images, size, distinct = (6, 64, 6) if quick else (1_200, 256, 60)
    options = Options(faithfulness=3, robustness=3, bootstraps=50) if quick else Options()
    yield f"{images} images of {size} px, {options.bootstraps} bootstraps, {cores()} cores, seconds by the clock:"
    with tempfile.TemporaryDirectory() as folder:
        watch = measure(Path(folder), images, size, distinct, options)
    for name, (whole, inside) in watch.parts.items():
        yield f"{name:<62}{whole - inside:7.1f} s{inside:9.1f} s in the network"
    rest = sum(whole - inside for whole, inside in watch.parts.values())
    import resource  # not on Windows, where the rest of this package can still be imported

    unit = 2**20 if sys.platform == "darwin" else 2**10
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    yield f"{'all but the network':<62}{rest:7.1f} s   (wanted: under {TARGET_S:.0f} s on 2 cores)"
    yield f"peak memory {memory:.0f} MiB"


def measure(folder: Path, images: int, size: int, distinct: int, options: Options) -> Stopwatch:
    """Evaluate phantoms, a few of them over and over, and write the page.

    Args:
        folder: Takes all files.
        images: In the split.
        size: Of an image, pixels.
        distinct: Phantoms that are drawn.
        options: How much is measured.
    """
    phantoms = PhantomConfig(train=3, val=max(6, distinct // 2), test=distinct, size_px=size, dir=str(folder))
    samples = _repeated(load_index(write_phantoms(phantoms)), images)
    data = LungDataModule(DataConfig(image_size=size, workers=0, cache=False), AugmentConfig(), 0, samples)
    data.setup("test")
    torch.manual_seed(0)
    network, watch = LungNetwork(MODEL, len(CLASSES)).eval(), Stopwatch()
    network.register_forward_pre_hook(watch.enter)
    network.register_forward_hook(watch.leave)
    run = Run(folder)
    run.best_checkpoint.parent.mkdir()
    torch.save(network.state_dict(), run.best_checkpoint)
    config = Config(data=data.config, model=MODEL)
    device = torch.device("cpu")
    target = EvaluationTarget(run, network, tuple(CLASSES), config, data, "test", device)
    pictures = PictureWriter(folder / "evaluation")
    evaluate(target, options, folder / "evaluation", pictures.add, watch.say)
    watch.say("page and figures")
    pictures.close()
    write_report(folder / "evaluation")
    watch.say("")
    return watch


def _repeated(samples: list[Sample], images: int) -> list[Sample]:
    """The samples with those of Test repeated under other ids until there are so many."""
    test = [sample for sample in samples if sample.split == "test"]
    more = [replace(test[n % len(test)], id=f"{n // len(test)}/{test[n % len(test)].id}") for n in range(images)]
    return [*(sample for sample in samples if sample.split != "test"), *more]
