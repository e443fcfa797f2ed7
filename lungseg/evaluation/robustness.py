"""How the network stands up to worse films: every perturbation at rising strengths, image by image."""

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
from lungseg.evaluation.target import EvaluationTarget, show_images
from lungseg.models.metrics import mask_dice
from lungseg.models.network import LungOutput
from lungseg.runs.progress import no_word

SCORES = ("accuracy", "balanced_accuracy", "dice", "evidence_in_lungs", "flipped")
Rows = dict[tuple[str, float, str], NDArray[Any]]
"""By perturbation, strength and what is measured of N images: `class_probs` (N, C) in [0, 1], `dice` (N,) of the
predicted lungs with the true ones, rotated with the image, NaN where these are not known, and `evidence_in_lungs` (N,),
the share of the evidence for the class now predicted that lies in the lungs (true ones, else those predicted at
strength 0), NaN where there is none."""
_MEASURED = ("class_probs", "dice", "evidence_in_lungs")
_UNCHANGED = ("", 0.0)
REPLICATES = 2_000
PASSES = 1 + sum(len(perturbation.strengths) for perturbation in PERTURBATIONS.values())  # Forward passes an image.


def measure_robustness(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> RobustnessResults:
    """Run the network on every perturbation of every image.

    Images whose class probabilities are not finite at some strength are left out and counted. Accuracies are over the
    images with a label. Every curve starts with the same point at strength 0.
    """
    samples, rows = show_perturbed(target, say, images)
    # One set of images for all points: a curve must not change because other images are behind its next point.
    finite = np.all([np.isfinite(v).all(axis=1) for (*_, what), v in rows.items() if what == "class_probs"], axis=0)
    samples = [sample for sample, use in zip(samples, finite, strict=True) if use]
    before = rows[*_UNCHANGED, "class_probs"][finite].argmax(axis=1)

    def point(name: str, strength: float) -> RobustnessPoint:
        measured = {what: rows[name, strength, what][finite] for what in _MEASURED}
        return _point(strength, measured, samples, before, target.classes)

    unchanged = point(*_UNCHANGED)
    curves = {
        name: RobustnessCurve(perturbation.unit, [unchanged, *(point(name, s) for s in perturbation.strengths)])
        for name, perturbation in PERTURBATIONS.items()
    }
    return RobustnessResults(len(samples), int(np.count_nonzero(~finite)), curves)


def show_perturbed(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[list[Sample], Rows]:
    """The `PASSES` forward passes an image; arguments and result as of `show_images`."""
    study = f"robustness on {{}}, {PASSES} passes each"
    return show_images(target, lambda batch: _measure(target, batch), study, say, images)


def _measure(target: EvaluationTarget, batch: Batch) -> dict[tuple[str, float, str], Tensor]:
    images, known = batch["image"], batch["has_lung"]
    with torch.no_grad():
        output = target.network(images)
        # Lungs predicted on a changed image would hide that the map has left them: those of strength 0 hold for all.
        lung = lungs_of(batch, output)
        rows = _rows(_UNCHANGED, output, lung, known, target.network.stride)
        for name, perturbation in PERTURBATIONS.items():
            for strength in perturbation.strengths:
                changed, moved = perturbation.change(images, lung, strength, batch["id"])
                rows |= _rows((name, strength), target.network(changed), moved, known, target.network.stride)
    return rows


def _rows(
    key: tuple[str, float], output: LungOutput, lung: Tensor, known: Tensor, stride: int
) -> dict[tuple[str, float, str], Tensor]:
    """Of one pass; lung (B, H, W) bool is the mask to hold it against, the true one where known (B,) bool."""
    dice = mask_dice(output.mask_logits[:, 0] > 0, lung).where(known, torch.nan)
    values = output.class_logits.double().softmax(1), dice, evidence_shares(output, lung, stride)
    return {(*key, what): value for what, value in zip(_MEASURED, values, strict=True)}


def _point(
    strength: float,
    rows: dict[str, NDArray[Any]],
    samples: Sequence[Sample],
    before: Integers,
    classes: tuple[str, ...],
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
