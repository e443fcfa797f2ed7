"""Images a second of an exported ONNX file against eager PyTorch, and `predict` against what most people write.

Forward passes are timed in one process, in turns: on one core in CPU time, and on all cores by the clock. Commands are
timed by the clock from start to end, as a user waits for them, with the model that comes along. Weights of the
passes are random: time does not depend on them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.benchmarks.cam import MODEL
from lungseg.benchmarks.timing import TINY, medians, one_thread
from lungseg.config import ModelConfig
from lungseg.data.phantom.generator import draw_phantom
from lungseg.exporting.export_model import export
from lungseg.exporting.precision import to_int8
from lungseg.inference.backend import Backend
from lungseg.inference.onnx_backend import load_onnx
from lungseg.inference.predictor import load_backend
from lungseg.models.model_file import write_model_file
from lungseg.models.network import LungNetwork
from lungseg.reporting.drawing import png
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.progress import cores
from lungseg.runs.run import BOXED
from lungseg.runs.whole_files import write_whole


class _Scale(NamedTuple):
    model: ModelConfig
    size_px: int
    batches: tuple[int, ...]
    repeats: int
    images: int


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: milliseconds an image of each backend, then seconds of the commands, and ratios."""
    scale = _Scale(TINY, 64, (1, 2), 1, 2) if quick else _Scale(MODEL, 256, (1, 16), 7, 200)
    if find_spec("onnxscript") is None:
        yield "not measured: pip install 'lungseg[onnx]'"
        return
    import onnx

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = _write_model(folder / "plain.safetensors", scale)
        list(export(trained, folder / "model.onnx"))
        few = _phantoms(4, scale)  # they set the ranges of int8, which take no time
        onnx.save(to_int8(onnx.load(folder / "model.onnx"), few), folder / "int8.onnx")
        yield f"{scale.size_px} px, 1 core, CPU time an image, medians of {scale.repeats}, and against eager PyTorch:"
        with one_thread():
            yield from _passes(trained, folder, scale, 1, time.process_time)
        if cores() > 1:
            yield f"the same on {cores()} cores, by the clock:"
            yield from _passes(trained, folder, scale, cores(), time.perf_counter)
        yield f"commands from start to end, by the clock (and CPU time), {scale.images} PNGs of {scale.size_px} px:"
        yield from _commands(folder, scale)


def _passes(trained: Path, folder: Path, scale: _Scale, threads: int, clock: Callable[[], float]) -> Iterator[str]:
    """The same outputs by eager PyTorch and by the ONNX files."""
    backends: dict[str, Backend] = {
        "eager PyTorch, channels last": load_backend(trained, "cpu"),
        "ONNX, onnxruntime": load_onnx(folder / "model.onnx", threads=threads),
        "ONNX in int8, onnxruntime": load_onnx(folder / "int8.onnx", threads=threads),
    }
    if find_spec("openvino") is not None:
        backends["ONNX, OpenVINO"] = load_onnx(folder / "model.onnx", "openvino", threads)
    for batch in scale.batches:
        images = np.stack(_phantoms(batch, scale))
        tasks = {f"batch {batch:>2}  {name}": partial(run, images) for name, run in backends.items()}
        for row, seconds, ratio in medians(tasks, scale.repeats, clock):
            yield f"{row:<52}{1000 * seconds / batch:9.1f} ms{1 / ratio:8.2f} x"


def _commands(folder: Path, scale: _Scale) -> Iterator[str]:
    """The plain script and `predict` on the same images, then `predict` on one."""
    pictures = folder / "pictures"
    for number, image in enumerate(_phantoms(scale.images, scale)):
        write_whole(pictures / f"{number:04d}.png", png(image))
    predict = ("predict", "--output")
    runs = {
        "plain script with the package grad-cam": ("benchmarks.plain_predict", BOXED, pictures, scale.size_px),
        "predict": (*predict, folder / "all", pictures),
        "predict, one image": (*predict, folder / "one", pictures / "0000.png"),
    }
    if find_spec("pytorch_grad_cam") is None:
        del runs["plain script with the package grad-cam"]
        yield "plain script with the package grad-cam: not measured: pip install grad-cam"
    yardstick = 0.0
    for name, (module, *words) in runs.items():
        wall, spent = _time([sys.executable, "-m", f"lungseg.{module}", *map(str, words)])
        yardstick = yardstick or wall
        ratio = "" if "one image" in name else f"{yardstick / wall:8.2f} x"
        yield f"{name:<52}{wall:9.2f} s ({spent:.2f} s){ratio}"
    written = (folder / "all" / "predictions.csv").read_text().count("\n") - 1
    if written != scale.images:  # a command that skips images would look fast
        raise RuntimeError(f"predict wrote {written} of {scale.images} rows")


def _time(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU time."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def _phantoms(count: int, scale: _Scale) -> list[NDArray[np.uint8]]:
    return [draw_phantom(seed, size_px=scale.size_px).image for seed in range(count)]


def _write_model(path: Path, scale: _Scale) -> Path:
    """A network that has learned nothing."""
    network = LungNetwork(scale.model, 3)
    description = {"model": asdict(scale.model)}
    info = ModelInfo(("a", "b", "c"), scale.size_px, True, network.stride, description=description)
    write_model_file(path, network, info)
    return path
