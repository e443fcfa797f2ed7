"""What a smaller file loses: dice and accuracy on images it was not made with, beside those of the full one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.data.batch import Batch
from lungseg.data.decode import read_sample
from lungseg.data.phantom.generator import Phantom, draw_phantom
from lungseg.data.sample import CLASSES
from lungseg.exporting.self_check import ExportedModel
from lungseg.models.metrics import MaskScores
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run

CALIBRATION_IMAGES = 64
"""Training images that set the ranges of int8."""
_PHANTOMS = 60


class DropImages(NamedTuple):
    """Images to measure the drop on."""

    name: str
    batches: Callable[[], Iterator[Batch]]
    calibration: Callable[[], list[NDArray[np.uint8]]]
    """Other images (S, S), for int8."""
    caveat: str = ""
    """Why they are not the run's own, if they are not."""


class DropScores(NamedTuple):
    """Means over the images; NaN where none has the target."""

    images: int
    dice: float
    """Of each image by itself; 1 where both masks are empty."""
    pixel_accuracy: float
    accuracy: float


def find_images(run: Run, info: ModelInfo) -> DropImages:
    """Val of a run, with images of its Train for the calibration, or phantoms where the run's data are not there."""
    from lungseg.evaluation.target import load_target

    if run.kind != "checkpoint":
        return _phantoms(info, "the model is no run folder with data of its own")
    # A run may outlive its data, or have come from another machine: phantoms are better than no number.
    try:
        target = load_target(run.model, [], "val")
    except (ValueError, OSError) as error:
        return _phantoms(info, " ".join(str(error).split()))

    def calibration() -> list[NDArray[np.uint8]]:
        samples = target.data.samples["train"]
        chosen = samples[:: max(1, len(samples) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
        return [read_sample(sample, info.image_size, info.keep_aspect)[0] for sample in chosen]

    return DropImages(f"Val of {target.data_name}", target.batches, calibration)


def compare(models: Mapping[str, ExportedModel], batches: Iterable[Batch]) -> dict[str, DropScores]:
    """Measure models on the same images, in one pass."""
    masks = {name: MaskScores() for name in models}
    right: dict[str, list[bool]] = {name: [] for name in models}
    count = 0
    for batch in batches:
        batch = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        images = np.rint(batch["image"][:, 0].numpy() * 255).astype(np.uint16)
        count += len(images)
        for name, model in models.items():
            outputs = {output: torch.from_numpy(values) for output, values in model(images).items()}
            with_lung = batch["has_lung"]
            masks[name].update((outputs["mask_probs"] > 0.5)[with_lung], batch["lung"][with_lung, 0] > 0.5)
            right[name] += (outputs["label"] == batch["label"])[batch["has_label"]].tolist()
    scores = {}
    for name in models:
        found = masks[name].compute() if masks[name].images else {}  # torchmetrics warns of one without an update
        dice, pixel_accuracy = (float(found.get(score, np.nan)) for score in ("dice", "pixel_accuracy"))
        scores[name] = DropScores(count, dice, pixel_accuracy, float(np.mean(right[name])) if right[name] else np.nan)
    return scores


def _phantoms(info: ModelInfo, reason: str) -> DropImages:
    """Phantoms of the classes in turn; drawn at 256 pixels at least."""

    def draw(seed: int) -> Phantom:
        return draw_phantom(seed, seed % len(CLASSES), info.image_size)

    def batch(phantom: Phantom) -> Batch:
        return {
            "image": torch.from_numpy(phantom.image)[None, None].float() / 255,
            "lung": torch.from_numpy(phantom.lung)[None, None].float(),
            "label": torch.tensor([phantom.label]),
            "has_lung": torch.tensor([True]),
            "has_label": torch.tensor([tuple(info.classes) == tuple(CLASSES)]),
        }

    return DropImages(
        f"{_PHANTOMS} phantoms",
        lambda: (batch(draw(seed)) for seed in range(_PHANTOMS)),
        lambda: [draw(_PHANTOMS + number).image for number in range(CALIBRATION_IMAGES)],
        reason,
    )
