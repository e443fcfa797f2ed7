"""How the network stands up to worse films: every perturbation at rising strengths, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.data.batch import Batch
from lungseg.data.sample import Sample
from lungseg.evaluation.classification import class_scores
from lungseg.evaluation.intervals import Numbers, bootstrap, numbers_of
from lungseg.evaluation.outputs import evidence_shares, lungs_of
from lungseg.evaluation.perturbations import PERTURBATIONS
from lungseg.evaluation.results import RobustnessCurve, RobustnessPoint, RobustnessResults
from lungseg.evaluation.statistics import Integers, means
from lungseg.evaluation.target import EvaluationTarget, batches_of, choose_images
from lungseg.models.metrics import mask_dice
from lungseg.models.network import LungOutput
from lungseg.runs.progress import no_word

SCORES = ("accuracy", "balanced_accuracy", "dice", "evidence_in_lungs", "flipped")
Rows = dict[str, NDArray[Any]]
"""Of N images at one strength: `class_probs` (N, C) in [0, 1], `dice` (N,) of the predicted lungs with the true ones,
rotated with the image, NaN where these are not known, and `evidence_in_lungs` (N,), the share of the evidence for the
class now predicted that lies in the lungs (true ones, else those predicted at strength 0), NaN where there is none."""
_UNCHANGED = ("", 0.0)
REPLICATES = 2_000
PASSES = 1 + sum(len(perturbation.strengths) for perturbation in PERTURBATIONS.values())
"""Forward passes an image."""


def measure_robustness(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> RobustnessResults:
    """Run the network on every perturbation of every image; `PASSES` forward passes an image.

    Images whose class probabilities are not finite at some strength are left out and counted. Accuracies are over the
    images with a label. Every curve starts with the same point at strength 0.

    Args:
        target: Network and data.
        say: Told what is being done.
        images: Take so many only, spread over the classes; None takes all of the split.
    """
    chosen, parts = show_perturbed(target, say, images)
    rows = {
        key: {name: np.concatenate([part[key][name] for part in parts]) for name in parts[0][key]} for key in parts[0]
    }
    finite = np.all([np.isfinite(row["class_probs"]).all(axis=1) for row in rows.values()], axis=0)
    rows = {key: {name: values[finite] for name, values in row.items()} for key, row in rows.items()}
    samples = [target.samples[index] for index, use in zip(chosen, finite, strict=True) if use]
    before = rows[_UNCHANGED]["class_probs"].argmax(axis=1)
    points = {key: _point(key[1], row, samples, before, target.classes) for key, row in rows.items()}
    curves = {
        name: RobustnessCurve(
            perturbation.unit, [points[_UNCHANGED], *(points[name, strength] for strength in perturbation.strengths)]
        )
        for name, perturbation in PERTURBATIONS.items()
    }
    return RobustnessResults(len(samples), int(np.count_nonzero(~finite)), curves)


def show_perturbed(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[list[int], list[dict[tuple[str, float], Rows]]]:
    """The forward passes of `measure_robustness`, shared by the processes: places in the split, and rows a batch."""
    chosen = choose_images(target, images)
    say(f"robustness on {len(chosen)} images of {target.split}, {PASSES} passes each")
    return chosen, target.processes.share(lambda batch: _measure(target, batch), batches_of(target, chosen))


def join_rows(parts: Sequence[dict[tuple[str, float], Rows]]) -> dict[tuple[str, float], Rows]:
    """The rows of all batches as one, by perturbation and strength."""
    return {
        key: {name: np.concatenate([part[key][name] for part in parts]) for name in rows}
        for key, rows in parts[0].items()
    }


def _measure(target: EvaluationTarget, batch: Batch) -> dict[tuple[str, float], Rows]:
    """For each perturbation and strength, rows of a batch: `class_probs` (B, C), `dice`, `evidence_in_lungs` (B,)."""
    images, known = batch["image"], batch["has_lung"]
    with torch.no_grad():
        output = target.network(images)
        lung = lungs_of(batch, output)
        found = {_UNCHANGED: _rows(output, lung, known, target.network.stride)}
        for name, perturbation in PERTURBATIONS.items():
            for strength in perturbation.strengths:
                changed, moved = perturbation.apply(images, lung, strength, batch["id"])
                found[name, strength] = _rows(target.network(changed), moved, known, target.network.stride)
    return found


def _rows(output: LungOutput, lung: Tensor, known: Tensor, stride: int) -> Rows:
    """What one pass says; lung (B, H, W) bool is the mask to hold it against, the true one where known (B,) bool."""
    rows = {
        "class_probs": output.class_logits.double().softmax(1),
        "dice": mask_dice(output.mask_logits[:, 0] > 0, lung).where(known, torch.nan),
        "evidence_in_lungs": evidence_shares(output, lung, stride),
    }
    return {name: values.cpu().numpy() for name, values in rows.items()}


def _point(
    strength: float, rows: Rows, samples: Sequence[Sample], before: Integers, classes: tuple[str, ...]
) -> RobustnessPoint:
    """A point of a curve from the rows of all images; before (N,) is the class predicted at strength 0."""
    now = rows["class_probs"].argmax(axis=1)
    flipped = now != before
    counts = np.bincount(now[flipped], minlength=len(classes))
    scores: Numbers = {}
    if samples:
        label = np.array([-1 if sample.label is None else sample.label for sample in samples], np.int64)
        values = {"dice": rows["dice"], "evidence_in_lungs": rows["evidence_in_lungs"], "flipped": flipped}
        statistics = class_scores(rows["class_probs"], label, classes), means(values)
        intervals = bootstrap(statistics, len(samples), [sample.group for sample in samples], REPLICATES)
        scores = numbers_of({name: intervals[name] for name in SCORES})
    return RobustnessPoint(strength, scores, dict(zip(classes, counts.tolist(), strict=True)))
