"""What an evaluation takes beside the forward passes: masks, maps, intervals, shortcut test, robustness, page.

The network is small and has learned nothing; the time inside it is measured apart, and the rest is what counts.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from lungseg.benchmarks.timing import TINY
from lungseg.config import AugmentConfig, Config, DataConfig, PhantomConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.data.index import load_index
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.target import EvaluationTarget
from lungseg.models.network import LungNetwork
from lungseg.reporting.evaluation_files import PictureWriter
from lungseg.reporting.report_run import write_report
from lungseg.runs.progress import cores
from lungseg.runs.run import Run

TARGET_S = 60.0  # Seconds that the rest is to stay below on two cores that do nothing else.


class Stopwatch:
    """Seconds by the clock of each step of an evaluation, and those of it spent inside the network."""

    def __init__(self, network: nn.Module):
        self._marks: list[tuple[str, float, float]] = []
        self._inside = 0.0
        network.register_forward_pre_hook(lambda *_: self._pass(-1))
        network.register_forward_hook(lambda *_: self._pass(1))

    def say(self, line: str) -> None:
        """A step begins that the line announces, and the one before has ended."""
        self._marks.append((line, time.perf_counter(), self._inside))

    def steps(self) -> Iterator[tuple[str, float, float]]:
        """Name, seconds and seconds in the network of each but the last, which only ends the others."""
        for (name, start, before), (_, end, after) in pairwise(self._marks):
            yield name, end - start, after - before

    def _pass(self, sign: int) -> None:
        # Less the time of entering and plus that of leaving is what lies between.
        self._inside += sign * time.perf_counter()


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: seconds of each part without the network, their sum, and the memory."""
    images, size, distinct = (6, 64, 6) if quick else (1_200, 256, 60)
    options = Options(faithfulness=3, robustness=3, bootstraps=50) if quick else Options()
    yield f"{images} images of {size} px, {options.bootstraps} bootstraps, {cores()} cores, seconds by the clock:"
    with tempfile.TemporaryDirectory() as folder:
        stopwatch = _measure(Path(folder), images, size, distinct, options)
    for name, whole, inside in stopwatch.steps():
        yield f"{name:<62}{whole - inside:7.1f} s{inside:9.1f} s in the network"
    rest = sum(whole - inside for _, whole, inside in stopwatch.steps())
    import resource  # not on Windows, where the rest of this package can still be imported

    unit = 2**20 if sys.platform == "darwin" else 2**10
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    yield f"{'all but the network':<62}{rest:7.1f} s   (wanted: under {TARGET_S:.0f} s on 2 cores)"
    yield f"peak memory {memory:.0f} MiB"


def _measure(folder: Path, images: int, size: int, distinct: int, options: Options) -> Stopwatch:
    """Evaluate so many images, `distinct` phantoms of `size` pixels over and over, and write all files and the page."""
    phantoms = PhantomConfig(train=3, val=max(6, distinct // 2), test=distinct, size_px=size, dir=str(folder))
    drawn = load_index(write_phantoms(phantoms))
    test = [sample for sample in drawn if sample.split == "test"]
    samples = [sample for sample in drawn if sample.split != "test"]
    samples += [replace(test[n % len(test)], id=f"{n // len(test)}/{test[n % len(test)].id}") for n in range(images)]
    data = LungDataModule(
        DataConfig(image_size=size, workers=0, cache=False, classes=list(CLASSES)), AugmentConfig(), 0, samples
    )
    data.setup("test")
    torch.manual_seed(0)
    network = LungNetwork(TINY, len(CLASSES)).eval()
    stopwatch = Stopwatch(network)
    run = Run(folder)
    run.best_checkpoint.parent.mkdir()
    torch.save(network.state_dict(), run.best_checkpoint)
    config = Config(data=data.config, model=TINY)
    target = EvaluationTarget(run, network, tuple(CLASSES), config, data, "test", torch.device("cpu"))
    pictures = PictureWriter(folder / "evaluation")
    evaluate(target, options, folder / "evaluation", pictures.add, stopwatch.say)
    stopwatch.say("page and figures")
    pictures.close()
    write_report(folder / "evaluation")
    stopwatch.say("")
    return stopwatch
