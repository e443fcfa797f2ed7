"""Class maps of a split measured: evidence in the lungs before any crop, and localisation against the masks.

The map measured is the one that a user is shown: of the predicted class, or of the true one if that is asked for.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.cam.layers import layer_stride
from lungseg.cam.localize import (
    LARGE_ABOVE,
    LESION_SIZES,
    SMALL_BELOW,
    LocalisationScores,
    ThresholdTuner,
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
TOGETHER = 8  # Images whose pixels are sorted at a time: what that takes is many times the images themselves.


@dataclass
class MapMeasurements:
    """What was measured of one CAM method."""

    evidence: dict[str, EvidenceSummary]
    """For all images and each true class: mean share of evidence in the lungs, peaks in the lungs, counts."""
    localisation: dict[str, dict[str, dict[str, float | None]]]
    """For each of `TARGETS` the groups of `LocalisationScores.compute`."""
    per_image: list[dict[str, Any]]  # One row an image, in the order of the split.
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
    # No image may tune the threshold that it is scored at: of one split, each half tunes that of the other.
    chosen = (
        [[part != half for part in _parted(halves, outputs)] for half in (0, 1)]
        if tuning is None
        else [[np.ones(len(batch.label), np.bool_) for batch in tuning]]
    )
    thresholds: dict[str, list[float]] = {}
    for name in TARGETS:
        best = [_tune(name, method, stride, outputs if tuning is None else tuning, flags) for flags in chosen]
        if known := [threshold for threshold in best if threshold is not None]:
            thresholds |= {name: known} if len(known) == len(best) else {}
    scores = {name: LocalisationScores(target.classes) for name in TARGETS}
    per_image: list[dict[str, Any]] = []
    broken = 0

    def of_batch(batch: BatchOutputs, half: Integers) -> tuple[dict[str, dict[str, Tensor]], Evidence, Tensor, int]:
        cam, lung = resize_map(batch.maps[method], stride, batch.size), batch.lung()
        found = {}
        for name in TARGETS:
            chosen = thresholds.get(name)
            limits = None if chosen is None else np.array(chosen)[half % len(chosen)]
            found[name] = _localise(cam, *_target_of(name, batch), limits)
        share = infected_share(batch.mask("infection"), lung)
        return found, describe_evidence(cam, lung), share, int((~cam.isfinite().flatten(1).all(1)).sum())

    with ThreadPoolExecutor(cores()) as pool:
        done = pool.map(of_batch, outputs, _parted(halves, outputs))
        for batch, (found, evidence_of, share, bad) in zip(outputs, target.track(done, len(outputs)), strict=True):
            for name in TARGETS:
                scores[name].update(found[name], torch.from_numpy(batch.label), share)
            per_image += _rows(evidence_of, found, share)
            broken += bad
    localisation = {
        name: {group: dict[str, float | None](values) for group, values in score.compute().items()}
        for name, score in scores.items()
    }
    label = np.concatenate([batch.label for batch in outputs])
    evidence = _evidence_summary(per_image, images_by_class(label, target.classes))
    return MapMeasurements(evidence, localisation, per_image, thresholds, broken)


def map_statistic(results: MapMeasurements, label: Integers, classes: Sequence[str]) -> Statistic:
    """Means over all images, each true class and each size of lesion of what `per_image` holds of maps."""
    columns = [name for name in results.per_image[0] if name in MAP_COLUMNS]
    values = map_values({n: np.array([row[n] for row in results.per_image], np.float64) for n in columns})
    share = np.array([row["infected_share"] for row in results.per_image])
    sizes = (share >= SMALL_BELOW).astype(int) + (share > LARGE_ABOVE)
    lesions = {f"lesion_{size}": (sizes == i) & ~np.isnan(share) for i, size in enumerate(LESION_SIZES)}
    return means(values, present(images_by_class(label, classes) | lesions))


def map_values(columns: dict[str, Floats]) -> dict[str, Floats]:
    """Columns (N,) of `MapMeasurements.per_image` as they are averaged: without evidence a map has no peak."""
    empty = np.isnan(columns["evidence_in_lungs"])
    peaks = {name: np.where(empty, np.nan, columns[name]) for name in ("peak_in_lungs", "evidence_outside")}
    return {**columns, **peaks}


def _parted(values: Integers, outputs: Sequence[BatchOutputs]) -> list[Integers]:
    """The values (N,) of each batch's images."""
    return np.split(values, np.cumsum([len(batch.label) for batch in outputs])[:-1])


def _target_of(name: str, batch: BatchOutputs) -> tuple[Tensor, Tensor | None]:
    """Mask to measure against, and the lungs to crop the map to first."""
    if name == "lungs":
        return batch.lung(), None
    # cropped as a user sees it, to the lungs that the network predicts, whether or not the true ones are known
    return batch.mask("infection"), batch.mask("predicted_lung") if name == "infection_in_lungs" else None


def _tune(
    name: str, method: CamMethod, stride: int, outputs: Sequence[BatchOutputs], chosen: Sequence[Flags]
) -> float | None:
    """Best threshold on the images chosen of each batch, (B,); None where none of them has such a mask."""
    tuner = ThresholdTuner()
    for batch, flags in zip(outputs, chosen, strict=True):
        mask, crop = _target_of(name, batch)
        cam = resize_map(batch.maps[method], stride, batch.size)
        used = torch.from_numpy(flags) & _measurable(cam, mask)
        if used.any():
            tuner.update(cam[used], mask[used], None if crop is None else crop[used])
    return tuner.best() if tuner.images else None


def _measurable(cam: Tensor, mask: Tensor) -> Tensor:
    """(B,) bool: there is a mask, and the map is finite."""
    return mask.flatten(1).any(1) & cam.isfinite().flatten(1).all(1)


def _localise(cam: Tensor, mask: Tensor, crop: Tensor | None, limits: Any) -> dict[str, Tensor]:
    """`measure_localisation` of the images that can be measured, each by its own threshold; the rest is undefined.

    cam is (B, H, W) float32, mask and crop are (B, H, W) bool, limits (B,) float64.
    """
    used = _measurable(cam, mask)
    names = ["hit", "iou_otsu", "energy", "average_precision"] + ([] if limits is None else ["iou_tuned"])
    found = {name: torch.full((len(cam),), torch.nan) for name in names}
    found |= {"undefined": ~used, "no_evidence": torch.zeros_like(used)}
    for members, limit in _alike(used, limits):
        inside = None if crop is None else crop[members]
        for name, values in measure_localisation(cam[members], mask[members], inside, limit).items():
            found[name][members] = values
    return found


def _alike(used: Tensor, limits: Any) -> Iterator[tuple[Tensor, float | None]]:
    """Places of the images used, `TOGETHER` at most and all of one threshold, with that threshold."""
    for limit in [None] if limits is None else np.unique(limits):
        members = used if limit is None else used & torch.from_numpy(limits == limit)
        for places in torch.split(members.nonzero()[:, 0], TOGETHER):
            if len(places):
                yield places, None if limit is None else float(limit)


def _rows(evidence: Evidence, found: dict[str, dict[str, Tensor]], share: Tensor) -> list[dict[str, Any]]:
    """What is known of each map of a batch."""
    columns = {
        "evidence_in_lungs": evidence.share_in_lungs,
        "evidence_outside": evidence.outside,
        "lung_area": evidence.lung_area,
        "peak_row_px": evidence.peak_row_px,
        "peak_column_px": evidence.peak_column_px,
        "peak_in_lungs": evidence.peak_in_lungs,
        "evidence_image_left": evidence.image_left,
        "evidence_image_right": evidence.image_right,
        "infected_share": share,
    }
    for name, scores in found.items():
        columns |= {f"{name}_{score}": values for score, values in scores.items() if values.is_floating_point()}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _evidence_summary(per_image: list[dict[str, Any]], classes: dict[str, Flags]) -> dict[str, EvidenceSummary]:
    """Means over the images whose map holds evidence, for all and each true class."""
    everyone = np.ones(len(per_image), np.bool_)
    summary = {}
    for group, members in ({"all": everyone} | classes).items():
        rows = [row for row, member in zip(per_image, members, strict=True) if member]
        shown = [row for row in rows if not math.isnan(row["evidence_in_lungs"])]
        share, area, peak = (
            float(np.mean([row[name] for row in shown])) if shown else math.nan
            for name in ("evidence_in_lungs", "lung_area", "peak_in_lungs")
        )
        outside = sum(row["evidence_outside"] for row in rows)
        summary[group] = EvidenceSummary(share, area, peak, outside, len(shown), len(rows) - len(shown))
    return summary
