"""What a reader must know of an evaluation: what was left out or is undefined, and how to read a number."""

import numpy as np

from lungseg.evaluation.classification import class_caveats, usable
from lungseg.evaluation.measure import Measured
from lungseg.evaluation.segmentation import mask_counts
from lungseg.evaluation.target import EvaluationTarget
from lungseg.evaluation.temperature import Tuned

SMALL = 30  # Images below which an interval by percentiles is too narrow to be trusted.


def list_caveats(target: EvaluationTarget, measured: Measured, tuned: Tuned, why_not_tuned: str) -> list[str]:
    """Every caveat but those of the verdict; `why_not_tuned` says why there is no temperature, where there is none."""
    return [
        *target.caveats,
        *_broken(measured),
        *_masks(target, measured),
        *class_caveats(measured.probs, measured.label, measured.classes),
        *_tuned(target, tuned, why_not_tuned),
        *_maps(target, measured),
        *_intervals(measured),
        *_provenance(target),
    ]


def _broken(measured: Measured) -> list[str]:
    """Of outputs that are not finite; those of the classes are in `class_caveats`."""
    images, caveats = len(measured.samples), []
    if measured.broken_masks:
        caveats.append(
            f"{measured.broken_masks} of {images} images have mask outputs that are not finite: what is not above zero "
            "there counts as no lung; check the network"
        )
    maps = max((results.broken for results in measured.maps.values()), default=0)
    if maps:
        caveats.append(
            f"{maps} of {images} images have a class map that is not finite: left out of every score of maps"
        )
    return caveats


def _masks(target: EvaluationTarget, measured: Measured) -> list[str]:
    size, images = target.config.data.image_size, len(measured.samples)
    caveats = []
    for kind in ("lung", "infection"):
        result = measured.masks.get(kind)
        if result is None:
            why = f"no image has a {kind} mask"
            if not (target.config.model.infection if kind == "infection" else target.network.has_lung):
                why = "the network predicts none"
            caveats.append(f"{kind} masks are not measured: {why}")
            continue
        counts = mask_counts(result.scores)
        if counts["images"] < images:
            caveats.append(f"{images - counts['images']} of {images} images have no {kind} mask: not in its scores")
        unknown = sum(sample.infection is not None for sample in measured.samples) - counts["images"]
        if kind == "infection" and unknown:
            classes = ", ".join(target.config.data.infection_unknown or ())
            caveats.append(
                f"of these, {unknown} have an empty one that says nothing, because nobody drew infections of {classes} "
                "(data.infection_unknown): what is predicted there is an extrapolation, and is not measured"
            )
        touched = {name: count for name, count in counts.items() if count and name.startswith(("empty", "both"))}
        if touched:
            cases = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in touched.items())
            caveats.append(
                f"empty {kind} masks: {cases}; both empty scores 1, one empty 0, and outlines have no distance "
                f"({counts['surface_undefined']} images)"
            )
        if kind == "infection":
            caveats.append(
                "infection_dice and infection_iou count two empty masks as 1; those that end in _infected or "
                "_lesion_SIZE are over images with infection alone: compare each with its own kind only"
            )
    if measured.masks:
        # the lungs' where both kinds are measured: of an image, the size of a pixel is the same for both
        counts = mask_counts(next(iter(measured.masks.values())).scores)
        caveats.append(
            f"masks are compared at the network's {size} x {size} pixels, bars of letterboxed images included"
        )
        if counts["spacing_unknown"]:
            caveats.append(
                f"the size of a pixel is not known of {counts['spacing_unknown']} images: no distances in mm"
            )
    return caveats


def _tuned(target: EvaluationTarget, tuned: Tuned, why_not: str) -> list[str]:
    if not tuned.choices:
        return [f"no temperature and no operating points: {why_not}"]
    caveats = [f"temperature and operating points were chosen on {tuned.on}"]
    if target.split == "val" and target.data_origin != "other":
        caveats.append("Val also picked the epoch of this checkpoint: its numbers flatter, those of Test do not")
    lacking = int(np.isnan(tuned.temperature).sum())
    if lacking:
        caveats.append(f"no temperature could be fitted for {lacking} images: too few labelled images to fit it on")
    return caveats


def _maps(target: EvaluationTarget, measured: Measured) -> list[str]:
    first = next(iter(measured.maps.values()), None)
    if first is None:
        return []
    two = any(len(values) == 2 for values in first.threshold.values())
    caveats = ["the map threshold of iou_tuned was tuned on each half of the images for the other"] if two else []
    if measured.multi_label:
        caveats.append(
            "class maps are of the likeliest finding of each image; they show evidence for it against its absence, "
            "whatever else is there, and are not centred over the classes; shortcuts are not tested for"
        )
    empty = first.evidence["all"].no_evidence
    if empty:
        why = "a class map without positive evidence"
        why = why if target.network.has_lung else f"no lungs that are known, or {why}"
        caveats.append(f"{empty} images have {why}: no share in the lungs, no peak")
    return caveats


def _intervals(measured: Measured) -> list[str]:
    known = [group for group in measured.groups if group is not None]
    unit = f"groups ({len(set(known))} known)" if known else "images"
    caveats = [
        f"intervals: 95 %, percentile bootstrap over {unit}; they say how far other images of this kind would move a "
        "number, not how far another training would"
    ]
    if not known:
        caveats.append("patients are not known: several images of one patient make the intervals too narrow")
    if usable(measured.probs, measured.label).any():
        caveats.append("noise can only raise a calibration error: its interval lies high, the more so the fewer images")
    if len(measured.samples) < SMALL:
        caveats.append(f"{len(measured.samples)} images are few: intervals of so few are too narrow")
    return caveats


def _provenance(target: EvaluationTarget) -> list[str]:
    if target.config.data.root is None:
        return ["phantoms are drawn by the computer: their numbers say nothing of X-rays"]
    if target.data_origin == "own" and not target.config.data.exclude_leaks:
        return ["copies of training images among these were not searched for (data.exclude_leaks, or the audit, does)"]
    return []
