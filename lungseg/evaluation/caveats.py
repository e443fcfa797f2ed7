"""What a reader must know of an evaluation: what was left out or is undefined, and how to read a number."""

from __future__ import annotations

import numpy as np

from lungseg.evaluation.classification import class_notes, usable
from lungseg.evaluation.measure import Measured
from lungseg.evaluation.segmentation import mask_counts
from lungseg.evaluation.target import Subject
from lungseg.evaluation.tuning import Tuned

SMALL = 30
"""Images below which an interval by percentiles is too narrow to be trusted."""


def all_notes(subject: Subject, measured: Measured, tuned: Tuned, why_not_tuned: str) -> list[str]:
    """Every note but those of the shortcut report.

    Args:
        subject: What was measured.
        measured: What was found.
        tuned: What was chosen on Val.
        why_not_tuned: Why there is no temperature, where there is none.
    """
    return [
        *subject.notes,
        *_broken(measured),
        *_masks(subject, measured),
        *class_notes(measured.probs, measured.label, measured.classes),
        *_tuned(subject, tuned, why_not_tuned),
        *_maps(measured),
        *_intervals(measured),
        *_provenance(subject),
    ]


def _broken(measured: Measured) -> list[str]:
    """Of outputs that are not finite; those of the classes are in `class_notes`."""
    images, notes = len(measured.samples), []
    if measured.broken_masks:
        notes.append(
            f"{measured.broken_masks} of {images} images have mask outputs that are not finite: what is not above zero "
            "there counts as no lung; check the network"
        )
    maps = max(results.broken for results in measured.maps.values())
    if maps:
        notes.append(f"{maps} of {images} images have a class map that is not finite: left out of every score of maps")
    return notes


def _masks(subject: Subject, measured: Measured) -> list[str]:
    size, images = subject.config.data.image_size, len(measured.samples)
    notes = []
    for kind in ("lung", "infection"):
        result = measured.masks.get(kind)
        if result is None:
            why = f"no image has a {kind} mask"
            if kind == "infection" and not subject.config.model.infection:
                why = "the network predicts none"
            notes.append(f"{kind} masks are not measured: {why}")
            continue
        counts = mask_counts(result.found)
        if counts["images"] < images:
            notes.append(f"{images - counts['images']} of {images} images have no {kind} mask: not in its scores")
        touched = {name: count for name, count in counts.items() if count and name.startswith(("empty", "both"))}
        if touched:
            told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in touched.items())
            notes.append(
                f"empty {kind} masks: {told}; both empty scores 1, one empty 0, and outlines have no distance "
                f"({counts['surface_undefined']} images)"
            )
    if measured.masks:
        notes.append(f"masks are compared at the network's {size} x {size} pixels, bars of letterboxed images included")
        counts = mask_counts(next(iter(measured.masks.values())).found)
        if counts["spacing_unknown"]:
            notes.append(f"the size of a pixel is not known of {counts['spacing_unknown']} images: no distances in mm")
    return notes


def _tuned(subject: Subject, tuned: Tuned, why_not: str) -> list[str]:
    if not tuned.choices:
        return [f"no temperature and no operating points: {why_not}"]
    notes = [f"temperature and operating points were chosen on {tuned.on}"]
    if subject.split == "val" and subject.origin != "other":
        notes.append("Val also picked the epoch of this checkpoint: its numbers flatter, those of Test do not")
    lacking = int(np.isnan(tuned.temperature).sum())
    if lacking:
        notes.append(f"no temperature could be fitted for {lacking} images: too few labelled images to fit it on")
    return notes


def _maps(measured: Measured) -> list[str]:
    first = next(iter(measured.maps.values()))
    two = any(len(values) == 2 for values in first.threshold.values())
    notes = ["the map threshold of iou_tuned was tuned on each half of the images for the other"] if two else []
    empty = first.evidence["all"].no_evidence
    if empty:
        notes.append(f"{empty} images have a class map without positive evidence: no share in the lungs, no peak")
    return notes


def _intervals(measured: Measured) -> list[str]:
    known = [group for group in measured.groups if group is not None]
    unit = f"groups ({len(set(known))} known)" if known else "images"
    notes = [
        f"intervals: 95 %, percentile bootstrap over {unit}; they say how far other images of this kind would move a "
        "number, not how far another training would"
    ]
    if not known:
        notes.append("patients are not known: several images of one patient make the intervals too narrow")
    if usable(measured.probs, measured.label).any():
        notes.append("noise can only raise a calibration error: its interval lies high, the more so the fewer images")
    if len(measured.samples) < SMALL:
        notes.append(f"{len(measured.samples)} images are few: intervals of so few are too narrow")
    return notes


def _provenance(subject: Subject) -> list[str]:
    if subject.config.data.root is None:
        return ["phantoms are drawn by the computer: their numbers say nothing of X-rays"]
    if subject.origin == "own" and not subject.config.data.exclude_leaks:
        return ["copies of training images among these were not searched for (data.exclude_leaks, or the audit, does)"]
    return []
