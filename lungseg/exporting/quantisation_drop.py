"""What a smaller file loses: dice and accuracy on images it was not made with, beside those of the whole one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.data.decode import read_sample
from lungseg.data.phantom.generator import draw_phantom
from lungseg.data.sample import CLASSES
from lungseg.exporting.self_check import FileAtWork
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run

CALIBRATION_IMAGES = 64
"""Training images that set the ranges of int8."""
_PHANTOMS = 60


class Batch(NamedTuple):
    """Images as the network sees them, and what is true of them."""

    images: NDArray[np.uint8]
    """(B, S, S)."""
    lung: NDArray[np.bool_]
    """(B, S, S)."""
    has_lung: NDArray[np.bool_]
    """(B,)."""
    label: NDArray[np.int64]
    """(B,), -1 where unknown."""


@dataclass(frozen=True)
class Exam:
    """Images to measure on."""

    name: str
    """What they are, in words."""
    batches: Callable[[], Iterator[Batch]]
    calibration: Callable[[], list[NDArray[np.uint8]]]
    """Other images (S, S), for int8."""
    note: str = ""
    """Why they are not the run's own, if they are not."""


class Scores(NamedTuple):
    """Means over the images; NaN where none has the target."""

    images: int
    dice: float
    """Of each image by itself; 1 where both masks are empty."""
    pixel_accuracy: float
    accuracy: float


def find_exam(run: Run, info: ModelInfo) -> Exam:
    """Val of a run, with images of its Train for the calibration, or phantoms where the run's data are not there.

    Args:
        run: What is exported.
        info: Size and letterbox of the network.
    """
    from lungseg.evaluation.target import load_subject

    if run.kind != "checkpoint":
        return _phantoms(info, "the model is no run folder with data of its own")
    try:
        subject = load_subject(run.model, [], "val")
    except (ValueError, OSError) as error:
        return _phantoms(info, " ".join(str(error).split()))

    def batches() -> Iterator[Batch]:
        for batch in subject.batches():
            arrays = {name: batch[name].cpu().numpy() for name in ("image", "lung", "has_lung", "label", "has_label")}
            images = np.rint(arrays["image"][:, 0] * 255).astype(np.uint8)
            label = np.where(arrays["has_label"], arrays["label"], -1)
            yield Batch(images, arrays["lung"][:, 0] > 0.5, arrays["has_lung"], label)

    def calibration() -> list[NDArray[np.uint8]]:
        samples = subject.data.samples["train"]
        chosen = samples[:: max(1, len(samples) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
        return [read_sample(sample, info.image_size, info.keep_aspect)[0] for sample in chosen]

    return Exam(f"Val of {subject.data_name}", batches, calibration)


def compare(files: Mapping[str, FileAtWork], batches: Iterator[Batch]) -> dict[str, Scores]:
    """Measure files on the same images, in one pass."""
    dice: dict[str, list[Any]] = {name: [] for name in files}
    pixels: dict[str, list[Any]] = {name: [] for name in files}
    right: dict[str, list[Any]] = {name: [] for name in files}
    count = 0
    for batch in batches:
        count += len(batch.images)
        for name, run in files.items():
            found = run(batch.images.astype(np.uint16))
            mask, known = (found["mask_probs"] > 0.5)[batch.has_lung], batch.label >= 0
            lung = batch.lung[batch.has_lung]
            both, either = (mask & lung).sum(axis=(1, 2)), mask.sum(axis=(1, 2)) + lung.sum(axis=(1, 2))
            dice[name] += list(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0))
            pixels[name] += list((mask == lung).mean(axis=(1, 2)))
            right[name] += list((found["label"] == batch.label)[known])
    return {name: Scores(count, *(_mean(part[name]) for part in (dice, pixels, right))) for name in files}


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _phantoms(info: ModelInfo, reason: str) -> Exam:
    """Phantoms of the classes in turn; drawn at 256 pixels at least."""

    def draw(seed: int) -> Batch:
        found = draw_phantom(seed, seed % len(CLASSES), info.image_size)
        label = found.label if tuple(info.classes) == tuple(CLASSES) else -1
        return Batch(found.image[None], found.lung[None], np.array([True]), np.array([label]))

    def calibration() -> list[NDArray[np.uint8]]:
        return [draw(_PHANTOMS + number).images[0] for number in range(CALIBRATION_IMAGES)]

    return Exam(f"{_PHANTOMS} phantoms", lambda: map(draw, range(_PHANTOMS)), calibration, reason)
