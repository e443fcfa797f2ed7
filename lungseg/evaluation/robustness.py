"""How the network stands up to worse films: every perturbation at rising strengths, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.data.batch import Batch
from lungseg.evaluation.classification import class_scores
from lungseg.evaluation.perturbations import PERTURBATIONS
from lungseg.evaluation.statistics import Flags, Floats, Integers, means, score_set
from lungseg.evaluation.subset import batches_of, choose_images
from lungseg.evaluation.target import EvaluationTarget
from lungseg.models.network import LungOutput

SCORES = ("accuracy", "balanced_accuracy", "dice", "evidence_in_lungs", "flipped")
_UNCHANGED = ("", 0.0)
PASSES = 1 + sum(len(perturbation.strengths) for perturbation in PERTURBATIONS.values())
"""Forward passes an image."""


@dataclass(frozen=True)
class PointMeasurements:
    """What is left at one strength, over N images; rows in the order of `RobustnessMeasurements.ids`."""

    strength: float
    class_probs: Floats
    """(N, C) in [0, 1]."""
    dice: Floats
    """(N,) of the predicted lungs with the true ones, rotated with the image; NaN where these are not known."""
    evidence_in_lungs: Floats
    """(N,) share of the evidence for the class now predicted, in the lungs (true ones, else those predicted at strength
    0); NaN where there is none."""
    flipped: Flags
    """(N,): another class is predicted than at strength 0."""
    scores: dict[str, float]
    """`SCORES`; NaN where no image defines one. Accuracies are over the images with a label."""
    flipped_to: dict[str, int]
    """By class, how many predictions flipped to it."""


@dataclass(frozen=True)
class RobustnessMeasurements:
    """A curve a perturbation; every curve starts with the same point at strength 0."""

    classes: tuple[str, ...]
    ids: list[str]
    groups: list[str | None]
    label: Integers
    """(N,), -1 where unknown."""
    curves: dict[str, list[PointMeasurements]]
    """By the names of `PERTURBATIONS`."""
    left_out: int
    """Images whose class probabilities were not finite at some strength."""


def measure_robustness(
    target: EvaluationTarget, progress: Callable[[str], None] = lambda line: None, images: int | None = None
) -> RobustnessMeasurements:
    """Run the network on every perturbation of every image; `PASSES` forward passes an image.

    Args:
        target: Network and data.
        progress: Told what is being done.
        images: Take so many only, spread over the classes; None takes all of the split.
    """
    chosen, parts = show_perturbed(target, progress, images)
    found = {at: {name: np.concatenate([part[at][name] for part in parts]) for name in parts[0][at]} for at in parts[0]}
    finite = np.all([np.isfinite(rows["class_probs"]).all(axis=1) for rows in found.values()], axis=0)
    found = {at: {name: values[finite] for name, values in rows.items()} for at, rows in found.items()}
    samples = [target.samples[index] for index, use in zip(chosen, finite, strict=True) if use]
    label = np.array([-1 if sample.label is None else sample.label for sample in samples], np.int64)
    before = found[_UNCHANGED]["class_probs"].argmax(axis=1)
    points = {at: _point(at[1], rows, label, before, target.classes) for at, rows in found.items()}
    return RobustnessMeasurements(
        classes=target.classes,
        ids=[sample.id for sample in samples],
        groups=[sample.group for sample in samples],
        label=label,
        curves={
            name: [points[_UNCHANGED], *(points[name, strength] for strength in perturbation.strengths)]
            for name, perturbation in PERTURBATIONS.items()
        },
        left_out=int(np.count_nonzero(~finite)),
    )


def show_perturbed(
    target: EvaluationTarget, progress: Callable[[str], None] = lambda line: None, images: int | None = None
) -> tuple[list[int], list[dict[tuple[str, float], dict[str, NDArray[Any]]]]]:
    """The forward passes of `measure_robustness`, shared by the processes: places in the split, and rows a batch."""
    chosen = choose_images(target, images)
    progress(f"robustness on {len(chosen)} images of {target.split}, {PASSES} passes each")
    return chosen, target.processes.share(lambda batch: _measure(target, batch), batches_of(target, chosen))


def _measure(target: EvaluationTarget, batch: Batch) -> dict[tuple[str, float], dict[str, NDArray[Any]]]:
    """For each perturbation and strength, rows of a batch: `class_probs` (B, C), `dice`, `evidence_in_lungs` (B,)."""
    images, known = batch["image"], batch["has_lung"]
    with torch.no_grad():
        output = target.network(images)
        lung = torch.where(known.view(-1, 1, 1), batch["lung"][:, 0] > 0.5, output.mask_logits[:, 0] > 0)
        found = {_UNCHANGED: _rows(output, lung, known, target.network.stride)}
        for name, perturbation in PERTURBATIONS.items():
            for strength in perturbation.strengths:
                changed, moved = perturbation.apply(images, lung, strength, batch["id"])
                found[name, strength] = _rows(target.network(changed), moved, known, target.network.stride)
    return found


def _rows(output: LungOutput, lung: Tensor, known: Tensor, stride: int) -> dict[str, NDArray[Any]]:
    """What one pass says; lung (B, H, W) bool is the mask to hold it against, the true one where known (B,) bool."""
    predicted = output.mask_logits[:, 0] > 0
    overlap, total = (predicted & lung).sum((1, 2)).double(), (predicted.sum((1, 2)) + lung.sum((1, 2))).double()
    dice = torch.where(total > 0, 2 * overlap / total.clamp_min(1), 1.0).where(known, torch.nan)
    cam = resize_map(class_map_of(output, output.class_logits.argmax(1)), stride, (lung.shape[-2], lung.shape[-1]))
    rows = {
        "class_probs": output.class_logits.double().softmax(1),
        "dice": dice,
        "evidence_in_lungs": evidence_in_lungs(cam, lung).double(),
    }
    return {name: values.cpu().numpy() for name, values in rows.items()}


def _point(
    strength: float, rows: dict[str, NDArray[Any]], label: Integers, before: Integers, classes: tuple[str, ...]
) -> PointMeasurements:
    """A point of a curve from the rows of all images; before (N,) is the class predicted at strength 0."""
    now = rows["class_probs"].argmax(axis=1)
    flipped, counts = now != before, np.bincount(now[now != before], minlength=len(classes))
    statistics = (
        class_scores(rows["class_probs"], label, classes),
        means({"dice": rows["dice"], "evidence_in_lungs": rows["evidence_in_lungs"], "flipped": flipped}),
    )
    scores = {name: value for part in statistics for name, value in score_set(part, len(label)).items()}
    return PointMeasurements(
        strength=strength,
        flipped=flipped,
        scores={name: scores[name] for name in SCORES},
        flipped_to={name: int(count) for name, count in zip(classes, counts, strict=True)},
        **rows,
    )
