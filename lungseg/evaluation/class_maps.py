"""Class maps of a split measured: evidence in the lungs before any crop, and localisation against the masks.

The map measured is the one that a user is shown: of the predicted class, or of the true one if that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lungseg.cam.evidence import Evidence, describe_evidence
from lungseg.cam.layers import layer_stride
from lungseg.cam.localize import LocalisationScores, ThresholdTuner, infected_share, measure_localisation
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import METHODS, class_activation_map
from lungseg.evaluation.subject import Subject

Target = Literal["predicted", "label"]
Way = tuple[str, str]
"""A method of `METHODS` and a layer."""
TARGETS = ("infection", "infection_in_lungs", "lungs")
"""What maps are measured against: the infection with the whole map and with the map cropped to the predicted lungs as
it is shown, and the lungs."""


@dataclass
class MapResults:
    """What was measured of one way to class maps."""

    evidence: dict[str, dict[str, float]]
    """For all images and each true class: mean share of evidence in the lungs, peaks in the lungs, counts."""
    localisation: dict[str, dict[str, dict[str, float]]]
    """For each of `TARGETS` the groups of `LocalisationScores.compute`."""
    per_image: list[dict[str, Any]]
    """One row an image, in the order of the split."""
    threshold: dict[str, list[float]] = field(default_factory=dict)
    """For each of `TARGETS` the tuned threshold, a share of each map's maximum; two where Val itself is measured."""


@dataclass
class _Batch:
    """What one pass leaves of a batch; masks as packed bits."""

    maps: dict[Way, Tensor]
    size: tuple[int, int]
    masks: dict[str, np.ndarray[Any, Any]]
    label: Tensor
    rows: list[dict[str, Any]]

    def mask(self, name: str) -> Tensor:
        """(B, H, W) bool."""
        bits = np.unpackbits(self.masks[name], count=len(self.label) * self.size[0] * self.size[1])
        return torch.from_numpy(bits).view(len(self.label), *self.size).bool()


def measure_class_maps(
    subject: Subject,
    ways: Sequence[Way] = (("cam", "features"),),
    target: Target = "predicted",
    progress: Callable[[str], None] = lambda line: None,
) -> dict[Way, MapResults]:
    """Measure ways to class maps on the split of a subject.

    The threshold of `iou_tuned` is tuned on Val; if Val itself is measured, on each half of it for the other half.

    Args:
        subject: Network and data.
        ways: Methods and the layers they are applied at.
        target: Whose map: the predicted class's, as a user sees it, or the true class's where it is known.
        progress: Told what is being done.

    Raises:
        ValueError: Unknown method or layer.
    """
    for method, layer in ways:
        if method not in METHODS:
            raise ValueError(f"method: unknown method {method!r}; choose from {', '.join(METHODS)}")
        layer_stride(subject.network, layer)
    progress(f"maps of {len(subject.samples)} images of {subject.split}")
    records = [_record(subject, batch, ways, target) for batch in subject.batches()]
    if subject.split == "val" or not subject.data.samples["val"]:
        tuning, folds = records, 2
    else:
        progress("maps of Val, to tune the threshold")
        subject.data.setup("validate")
        tuning, folds = [_record(subject, batch, ways, target) for batch in subject.batches("val")], 1
    return {way: _results(subject, way, records, tuning, folds) for way in ways}


def _record(subject: Subject, batch: dict[str, Any], ways: Sequence[Way], target: Target) -> _Batch:
    """Run the network and every method on a batch."""
    network, images = subject.network, batch["image"]
    with torch.no_grad():
        output = network(images)
    probs = output.class_logits.softmax(1)
    predicted, lung = probs.argmax(1), output.mask_logits[:, 0] > 0
    classes = torch.where(batch["has_label"], batch["label"], predicted) if target == "label" else predicted
    maps = {way: class_activation_map(network, images, classes, *way).cpu() for way in ways}
    truth, known = batch["lung"][:, 0] > 0.5, batch["has_lung"]
    masks = {"predicted": lung, "lung": torch.where(known.view(-1, 1, 1), truth, lung)}
    masks["infection"] = (batch["infection"][:, 0] > 0.5) & batch["has_infection"].view(-1, 1, 1)
    overlap, total = (lung & truth).sum((1, 2)).double(), (lung.sum((1, 2)) + truth.sum((1, 2))).double()
    dice = torch.where(total > 0, 2 * overlap / total.clamp_min(1), 1.0).where(known, torch.nan)
    rows = [
        {
            "id": batch["id"][i],
            "label": subject.classes[int(batch["label"][i])] if batch["has_label"][i] else "",
            "predicted": subject.classes[int(predicted[i])],
            **{f"prob_{name}": float(probs[i, c]) for c, name in enumerate(subject.classes)},
            "dice": float(dice[i]),
            "has_infection_mask": bool(batch["has_infection"][i]),
        }
        for i in range(len(images))
    ]
    packed = {name: np.packbits(mask.cpu().numpy()) for name, mask in masks.items()}
    label = torch.where(batch["has_label"], batch["label"], -1).cpu()
    return _Batch(maps, (lung.shape[-2], lung.shape[-1]), packed, label, rows)


def _results(subject: Subject, way: Way, records: list[_Batch], tuning: list[_Batch], folds: int) -> MapResults:
    """Everything measured of one way, from what the passes left."""
    stride = layer_stride(subject.network, way[1])
    tuned = {name: [_tune(name, way, stride, tuning, folds, fold) for fold in range(folds)] for name in TARGETS}
    tuned = {name: thresholds for name, thresholds in tuned.items() if None not in thresholds}
    scores = {name: LocalisationScores(subject.classes) for name in TARGETS}
    per_image: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        cam = resize_map(record.maps[way], stride, record.size)
        lung, infection = record.mask("lung"), record.mask("infection")
        share = infected_share(infection, lung)
        found = {}
        for name in TARGETS:
            mask, crop = _target_of(name, record)
            threshold = tuned[name][(number + 1) % folds] if name in tuned else None  # of two halves, the other one's
            found[name] = measure_localisation(cam, mask, crop, threshold)
            scores[name].update(found[name], record.label, share)
        per_image += _rows(record, describe_evidence(cam, lung), found, share)
    thresholds = {name: [t for t in both if t is not None] for name, both in tuned.items()}
    localisation = {name: score.compute() for name, score in scores.items()}
    return MapResults(_evidence_summary(per_image, subject.classes), localisation, per_image, thresholds)


def _target_of(name: str, record: _Batch) -> tuple[Tensor, Tensor | None]:
    """Mask to measure against, and the lungs to crop the map to first."""
    if name == "lungs":
        return record.mask("lung"), None
    return record.mask("infection"), record.mask("predicted") if name == "infection_in_lungs" else None


def _tune(name: str, way: Way, stride: int, tuning: list[_Batch], folds: int, fold: int) -> float | None:
    """Best threshold on every `folds`-th batch from `fold`; None where no image has such a mask."""
    tuner = ThresholdTuner()
    for record in tuning[fold::folds]:
        mask, crop = _target_of(name, record)
        tuner.update(resize_map(record.maps[way], stride, record.size), mask, crop)
    return tuner.best() if tuner.images else None


def _rows(
    record: _Batch, evidence: Evidence, found: dict[str, dict[str, Tensor]], share: Tensor
) -> list[dict[str, Any]]:
    """What is known of each image of a batch."""
    rows = []
    for i, row in enumerate(record.rows):
        row = row | {
            "evidence_in_lungs": float(evidence.share_in_lungs[i]),
            "evidence_outside": bool(evidence.outside[i]),
            "lung_area": float(evidence.lung_area[i]),
            "peak_row_px": float(evidence.peak_row_px[i]),
            "peak_column_px": float(evidence.peak_column_px[i]),
            "peak_in_lungs": bool(evidence.peak_in_lungs[i]),
            "evidence_image_left": float(evidence.image_left[i]),
            "evidence_image_right": float(evidence.image_right[i]),
            "infected_share": float(share[i]),
        }
        for name, values in found.items():
            row |= {f"{name}_{score}": float(v[i]) for score, v in values.items() if v.is_floating_point()}
        rows.append(row)
    return rows


def _evidence_summary(per_image: list[dict[str, Any]], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means over the images whose map holds evidence, for all and each true class."""
    groups = {"all": per_image} | {name: [row for row in per_image if row["label"] == name] for name in classes}
    summary = {}
    for group, rows in groups.items():
        shown = [row for row in rows if not math.isnan(row["evidence_in_lungs"])]
        means = {
            name: float(np.mean([row[name] for row in shown])) if shown else math.nan
            for name in ("evidence_in_lungs", "lung_area", "peak_in_lungs")
        }
        summary[group] = means | {
            "outside": sum(row["evidence_outside"] for row in rows),
            "n": len(shown),
            "no_evidence": len(rows) - len(shown),
        }
    return summary
