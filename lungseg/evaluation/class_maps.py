"""Class maps of a split measured: evidence in the lungs before any crop, and localisation against the masks.

The map measured is the one that a user is shown: of the predicted class, or of the true one if that is asked for.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.cam.layers import layer_stride
from lungseg.cam.localize import (
    LARGE_ABOVE,
    LESION_SIZES,
    SMALL_BELOW,
    THRESHOLDS,
    LocalisationScores,
    are_finite,
    best_threshold,
    infected_share,
    measure_localisation,
)
from lungseg.cam.lung import Evidence, describe_evidence, resize_map
from lungseg.evaluation.classification import images_by_class, present
from lungseg.evaluation.outputs import BatchOutputs, CamMethod
from lungseg.evaluation.results import EvidenceSummary
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, means
from lungseg.evaluation.target import EvaluationTarget
from lungseg.runs.progress import cores

TARGETS = ("infection", "infection_in_lungs", "lungs")
"""What maps are measured against: the infection with the whole map and with the map cropped to the predicted lungs as
it is shown, and the lungs."""
EVIDENCE = ("evidence_in_lungs", "lung_area", "peak_in_lungs", "evidence_outside")
_LOCALISATION = ("hit", "iou_otsu", "energy", "average_precision", "iou_tuned")
MAP_COLUMNS = (*EVIDENCE, *(f"{mask}_{score}" for mask in TARGETS for score in _LOCALISATION))
"""Columns of `MapMeasurements.per_image` that are averaged; the last may be lacking."""
ReadMap = Callable[[BatchOutputs], Tensor]  # Gives raw maps (B, H, W) float32 at the images' size.
TOGETHER = 8  # Images whose pixels are sorted at a time: what that takes is many times the images themselves.


@dataclass
class MapMeasurements:
    """What was measured of one CAM method."""

    evidence: dict[str, EvidenceSummary]
    """For all images and each true class: mean share of evidence in the lungs, peaks in the lungs, counts."""
    localisation: dict[str, dict[str, dict[str, float | None]]]
    """For each of `TARGETS` the groups of `LocalisationScores.compute`."""
    per_image: dict[str, NDArray[Any]]  # Columns (N,) in the order of the split: of `Evidence`, and every score.
    threshold: dict[str, list[float]] = field(default_factory=dict)
    """For each of `TARGETS` the tuned threshold, a share of each map's maximum; two where the split is halved: that of
    the first half, tuned on the second, and the other way round."""
    broken: int = 0  # Maps that are not finite: they have no score.


def measure_maps(
    target: EvaluationTarget,
    method: CamMethod,
    outputs: Sequence[BatchOutputs],
    tuning: Sequence[BatchOutputs] | None,
    halves: Integers,
) -> MapMeasurements:
    """Measure one CAM method of those that the outputs of the split hold.

    The threshold of `iou_tuned` is tuned on the outputs of Val (`tuning`), or, where they are None, on each half of the
    split for the other; `halves` (N,) says which half, 0 or 1, an image is in.
    """
    stride = layer_stride(target.network, method.layer)

    def read(batch: BatchOutputs) -> Tensor:
        return resize_map(batch.maps[method], stride, batch.size)

    found, thresholds = _localise_split(target, TARGETS, read, outputs, tuning, halves)
    scores = {name: LocalisationScores(target.classes) for name in TARGETS}
    evidence: list[Evidence] = []
    broken = 0
    for batch, of_images in zip(outputs, found, strict=True):
        cam, lung = read(batch), batch.lung()
        share = infected_share(batch.mask("infection"), lung)
        for name in TARGETS:
            scores[name].update(of_images[name], torch.from_numpy(batch.single_label), share)
        evidence.append(describe_evidence(cam, lung, torch.from_numpy(batch.lung_known)))
        broken += int((~are_finite(cam)).sum())
    localisation = {
        name: {group: dict[str, float | None](values) for group, values in score.compute().items()}
        for name, score in scores.items()
    }
    label = np.concatenate([batch.label for batch in outputs])
    columns = dict(zip(Evidence._fields, map(torch.cat, zip(*evidence, strict=True)), strict=True))
    columns["infected_share"] = scores["infection"].per_image()["infected_share"]
    for name, score in scores.items():
        columns |= {
            f"{name}_{what}": v
            for what, v in score.per_image().items()
            if v.is_floating_point() and what != "infected_share"
        }
    per_image = {name: values.numpy() for name, values in columns.items()}
    summary = _evidence_summary(per_image, images_by_class(label, target.classes))
    return MapMeasurements(summary, localisation, per_image, thresholds, broken)


def measure_baselines(
    target: EvaluationTarget,
    outputs: Sequence[BatchOutputs],
    tuning: Sequence[BatchOutputs] | None,
    halves: Integers,
) -> dict[str, dict[str, Floats]]:
    """Score against the infection what needs no class map: the lungs as a map, and the predicted infection as one.

    Arguments as of `measure_maps`. The lungs are the true ones where they are known; of the infection, where the
    network predicts it, the probabilities are the map.

    Returns:
        By baseline, `lungs` and `predicted_infection`, the columns (N,) of `MAP_COLUMNS` that start with `infection`;
        empty if no image has infection.
    """
    reads: dict[str, ReadMap] = {"lungs": lambda batch: batch.lung().float()}
    if any("predicted_infection" in batch.packed for batch in outputs):
        reads["predicted_infection"] = BatchOutputs.infection_probs
    if not any(batch.mask("infection").any() for batch in outputs):
        return {}

    def measure(read: ReadMap) -> dict[str, Floats]:
        found, _ = _localise_split(target, TARGETS[:2], read, outputs, tuning, halves)
        columns = [(name, what) for name in TARGETS[:2] for what in _LOCALISATION if what in found[0][name]]
        return {
            f"{name}_{what}": torch.cat([of_images[name][what] for of_images in found]).double().numpy()
            for name, what in columns
        }

    return {name: measure(read) for name, read in reads.items()}


def map_statistic(results: MapMeasurements, label: Integers, classes: Sequence[str]) -> Statistic:
    """Means over all images, each true class and each size of lesion of what `per_image` holds of maps."""
    columns = {name: values.astype(np.float64) for name, values in results.per_image.items()}
    values = map_values({name: column for name, column in columns.items() if name in MAP_COLUMNS})
    return means(values, present(images_by_class(label, classes) | images_by_lesion(columns["infected_share"])))


def images_by_lesion(share: Floats) -> dict[str, Flags]:
    """Which images (N,) have a lesion of each size, from the infected share of the lungs; NaN: there is none."""
    sizes = (share >= SMALL_BELOW).astype(int) + (share > LARGE_ABOVE)
    return {f"lesion_{size}": (sizes == i) & ~np.isnan(share) for i, size in enumerate(LESION_SIZES)}


def map_values(columns: dict[str, Floats]) -> dict[str, Floats]:
    """Columns (N,) of `MapMeasurements.per_image` as they are averaged: without evidence a map has no peak."""
    empty = np.isnan(columns["evidence_in_lungs"])
    peaks = {name: np.where(empty, np.nan, columns[name]) for name in ("peak_in_lungs", "evidence_outside")}
    return {**columns, **peaks}


def _target_of(name: str, batch: BatchOutputs) -> tuple[Tensor, Tensor | None]:
    """Mask to measure against, and the lungs to crop the map to first."""
    if name == "lungs":
        return batch.lung(), None
    infection = batch.mask("infection")
    if name == "infection":
        return infection, None
    if "predicted_lung" not in batch.packed:  # nothing to crop to: undefined, as where there is no infection
        return torch.zeros_like(infection), None
    # cropped as a user sees it, to the lungs that the network predicts, whether or not the true ones are known
    return infection, batch.mask("predicted_lung")


def _localise_split(
    target: EvaluationTarget,
    names: Sequence[str],
    read: ReadMap,
    outputs: Sequence[BatchOutputs],
    tuning: Sequence[BatchOutputs] | None,
    halves: Integers,
) -> tuple[list[dict[str, dict[str, Tensor]]], dict[str, list[float]]]:
    """Score the maps of a split against masks, each batch by the names of these, and tune their thresholds.

    A threshold, and `iou_tuned` with it, are there for those of the `names` that every part that tunes has a mask of.
    """

    def of_batch(batch: BatchOutputs) -> dict[str, dict[str, Tensor]]:
        cam = read(batch)
        return {name: _localise(cam, *_target_of(name, batch)) for name in names}

    with ThreadPoolExecutor(cores()) as pool:
        done = target.track(pool.map(of_batch, outputs), len(outputs))
        found, of_val = ([_copied(part) for part in parts] for parts in (done, pool.map(of_batch, tuning or ())))
    thresholds: dict[str, list[float]] = {}
    for name in names:
        ious = torch.cat([of_images[name].pop("ious") for of_images in found])
        # No image may tune the threshold that it is scored at: of one split, each half tunes that of the other.
        parts = [torch.cat([of_images[name]["ious"] for of_images in of_val])] if of_val else []
        parts = parts or [ious[torch.from_numpy(halves != half)] for half in (0, 1)]
        best = [best_threshold(part) for part in parts]
        known = [threshold for threshold in best if threshold is not None]
        if len(known) < len(best):
            continue
        thresholds[name] = known
        chosen = torch.tensor([THRESHOLDS.index(threshold) for threshold in known])[halves % len(known)]
        tuned = ious.gather(1, chosen[:, None])[:, 0].float()
        for of_images, values in zip(found, torch.split(tuned, [len(batch.label) for batch in outputs]), strict=True):
            of_images[name]["iou_tuned"] = values
    return found, thresholds


def _copied(found: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Copies out of a thread's memory, which, small as they are among its large maps, they would hold."""
    return {name: {what: value.clone() for what, value in scores.items()} for name, scores in found.items()}


def _measurable(cam: Tensor, mask: Tensor) -> Tensor:
    """(B,) bool: there is a mask, and the map is finite."""
    return mask.any(dim=2).any(dim=1) & are_finite(cam)


def _localise(cam: Tensor, mask: Tensor, crop: Tensor | None) -> dict[str, Tensor]:
    """`measure_localisation` at `THRESHOLDS` of the images that can be measured; the rest is undefined.

    cam is (B, H, W) float32, mask and crop are (B, H, W) bool.
    """
    used = _measurable(cam, mask)
    found = {name: torch.full((len(cam),), torch.nan) for name in _LOCALISATION[:-1]}
    found["ious"] = torch.full((len(cam), len(THRESHOLDS)), torch.nan, dtype=torch.float64)
    found |= {"undefined": ~used, "no_evidence": torch.zeros_like(used)}
    for places in filter(len, torch.split(used.nonzero()[:, 0], TOGETHER)):
        inside = None if crop is None else crop[places]
        for name, values in measure_localisation(cam[places], mask[places], inside, THRESHOLDS).items():
            found[name][places] = values
    return found


def _evidence_summary(columns: dict[str, NDArray[Any]], classes: dict[str, Flags]) -> dict[str, EvidenceSummary]:
    """Means over the images whose map holds evidence, for all and each true class."""
    names = ("evidence_in_lungs", "lung_area", "peak_in_lungs")
    values = np.stack([columns[name] for name in names]).astype(np.float64)
    empty = np.isnan(values[0])
    summary = {}
    for group, members in ({"all": np.ones_like(empty)} | classes).items():
        shown, none = members & ~empty, int(np.count_nonzero(members & empty))
        share, area, peak = (float(column[shown].mean()) if shown.any() else math.nan for column in values)
        outside = int(np.count_nonzero(columns["evidence_outside"][members]))
        summary[group] = EvidenceSummary(share, area, peak, outside, int(np.count_nonzero(shown)), none)
    return summary
