"""An evaluation from a subject to files: metrics.json, per_image.csv, scores.csv, calibration.json beside the model."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.cam.layers import FEATURES
from lungseg.errors import UserError
from lungseg.evaluation.caveats import all_notes
from lungseg.evaluation.faithfulness_study import measure_trust
from lungseg.evaluation.intervals import REPLICATES
from lungseg.evaluation.measure import CAM, Measured, measure, run_network
from lungseg.evaluation.outputs import Picture, Target, Way
from lungseg.evaluation.rows import image_rows
from lungseg.evaluation.scoreboard import scoreboard
from lungseg.evaluation.sections import (
    calibration_section,
    classification_section,
    confusion_section,
    curves_section,
    map_numbers,
    operating_section,
    segmentation_section,
)
from lungseg.evaluation.segmentation import mask_counts
from lungseg.evaluation.tables import per_image_csv, scores_csv
from lungseg.evaluation.target import Subject
from lungseg.evaluation.tuning import Tuned, apply, choose, cross_fit, nothing
from lungseg.runs.calibration import read_calibration, write_calibration
from lungseg.runs.environment import environment
from lungseg.runs.progress import no_word
from lungseg.runs.whole_files import digest, without_nan, write_json, write_text

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    ways: tuple[Way, ...] = (CAM,)
    """Ways to class maps; `per_image.csv` and the pictures hold the first."""
    target: Target = "predicted"
    faithfulness: int = 60
    """Images for deletion, insertion and weight randomisation; 0 leaves them out."""
    bootstraps: int = REPLICATES
    sensitivity: float = 0.95
    """Of the operating points, in (0, 1]."""
    shortcuts: bool = True
    """Whether the network is also shown images with parts hidden."""
    shortcut_images: int = 1_000
    """Images that it is shown so, spread over the classes: `shortcut.PASSES` forward passes each."""
    robustness: int = 200
    """Images for the perturbations; 0 leaves them out."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, least in (("faithfulness", 0), ("robustness", 0), ("bootstraps", 1), ("shortcut_images", 1)):
            value = getattr(self, name)
            if value < least:
                raise UserError(
                    f"--{name.replace('shortcut_images', 'shortcuts')}: must be {least} or more, got {value}"
                )
        if not 0 < self.sensitivity <= 1:
            raise UserError(f"--sensitivity: must lie in (0, 1], got {self.sensitivity}")


def parse_way(text: str) -> Way:
    """`NAME` or `NAME@LAYER`."""
    method, _, layer = text.strip().partition("@")
    return method, layer or FEATURES


def name_of(way: Way) -> str:
    """The inverse of `parse_way`."""
    return way[0] if way[1] == FEATURES else f"{way[0]}@{way[1]}"


def evaluate(
    subject: Subject,
    options: Options,
    output: Path,
    show: Callable[[Picture], None] | None = None,
    say: Say = no_word,
) -> dict[str, Any]:
    """Measure everything and write it.

    Args:
        subject: Network and data.
        options: How much.
        output: Folder; files of an earlier evaluation there are replaced.
        show: Given every image while the network passes over them.
        say: Told what is being done.

    Returns:
        What metrics.json holds, None for what is undefined.

    Raises:
        ValueError: Unknown method or layer.
    """
    measured = measure(subject, options.ways, options.target, show, say)
    tuned, why = _tune(subject, measured, options)
    say("statistics")
    content = _sections(subject, measured, tuned, options)
    content["class_maps"] = {name_of(way): _map_section(subject, measured, way, options, say) for way in options.ways}
    content |= _beyond_the_image(subject, options, say)
    data = f"{subject.scope} of {subject.data_name}, {len(measured.samples)} images"
    content["scoreboard"] = scoreboard(content, data)
    content["notes"] = all_notes(subject, measured, tuned, why)
    plain: dict[str, Any] = without_nan(content)
    write_text(output / "per_image.csv", per_image_csv(image_rows(measured, options.ways[0], tuned)))
    write_text(output / "scores.csv", scores_csv(plain))
    write_json(output / "metrics.json", plain)
    return plain


def assist(subject: Subject, options: Options) -> None:
    """What a process other than rank zero does of `evaluate`: its share of the forward passes, in the same order."""
    from lungseg.evaluation.robustness import show_perturbed
    from lungseg.evaluation.shortcut.study import show_views

    run_network(subject, options.ways, options.target)
    if options.shortcuts:
        show_views(subject, images=options.shortcut_images)
    if options.robustness:
        show_perturbed(subject, images=options.robustness)


def _tune(subject: Subject, measured: Measured, options: Options) -> tuple[Tuned, str]:
    """What is chosen on Val, kept with the model if the data are its own; and why not, where there is nothing."""
    images, classes = measured.logits.shape
    if subject.origin == "other":
        choice, told = read_calibration(subject.run, measured.classes, options.sensitivity)
        return (nothing(images, classes), told) if choice is None else (apply(choice, images, told), "")
    if subject.split == "val":
        tuned = cross_fit(measured.logits, measured.label, measured.halves, options.sensitivity)
    elif measured.val_logits is None or measured.val_label is None:
        return nothing(images, classes), "there is no Val split to choose them on"
    else:
        choice = choose(measured.val_logits, measured.val_label, options.sensitivity)
        tuned = apply(choice, images, "val")
    if tuned.stored is None or np.isnan(tuned.stored.temperature):
        return nothing(images, classes), "no image of Val has both a label and finite class outputs"
    if subject.origin == "own":
        write_calibration(subject.run, tuned.stored, measured.classes, _about_choice(subject, options))
    return tuned, ""


def _about_choice(subject: Subject, options: Options) -> dict[str, Any]:
    return {
        "sensitivity": options.sensitivity,
        "split": "val",
        "images": len(subject.data.samples["val"]),
        "data_fingerprint": subject.data.fingerprint,
    }


def _sections(subject: Subject, measured: Measured, tuned: Tuned, options: Options) -> dict[str, Any]:
    """What follows from the pass over the split, but for the maps."""
    draws = options.bootstraps
    return {
        "what": _what(subject, options),
        "segmentation": segmentation_section(measured, draws),
        "mask_counts": {kind: mask_counts(result.found) for kind, result in measured.masks.items()},
        "classification": classification_section(measured, draws),
        "calibration": calibration_section(measured, tuned, draws),
        "confusion": confusion_section(measured),
        "curves": curves_section(measured),
        "operating_points": operating_section(measured, tuned, options.sensitivity, draws),
    }


def _what(subject: Subject, options: Options) -> dict[str, Any]:
    """What was evaluated, on what, with what; no path of an image."""
    model, found = subject.config.model, environment(subject.data.fingerprint)
    return {
        "checkpoint": str(subject.run.model),
        "checkpoint_digest": digest(subject.run.model),
        "split": subject.scope,
        "images": len(subject.samples),
        "data_name": subject.data_name,
        "origin": subject.origin,
        "data": dataclasses.asdict(subject.config.data),
        "data_fingerprint": subject.data.fingerprint,
        "classes": list(subject.classes),
        "class_images": {
            name: sum(sample.label == index for sample in subject.samples) for index, name in enumerate(subject.classes)
        },
        "network": dataclasses.asdict(model) | {"parameters": sum(p.numel() for p in subject.network.parameters())},
        "target": options.target,
        "bootstraps": options.bootstraps,
        "versions": {"python": found["python"], **found["packages"]},
        "devices": found["devices"],
        "git_revision": found["git_revision"],
        "lungseg": found["lungseg"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _map_section(subject: Subject, measured: Measured, way: Way, options: Options, say: Say) -> dict[str, Any]:
    """Everything of one way to class maps."""
    results = measured.maps[way]
    trust = None
    if options.faithfulness and not results.broken:
        say(f"faithfulness of {name_of(way)}")
        trust = measure_trust(subject, way, options.faithfulness)
    return {
        "evidence": results.evidence,
        "localisation": results.localisation,
        "tuned_threshold": results.threshold,
        "intervals": map_numbers(measured, way, options.bootstraps),
        "faithfulness": trust,
    }


def _beyond_the_image(subject: Subject, options: Options, say: Say) -> dict[str, Any]:
    """The shortcut report and the robustness curves; None for what is left out."""
    from lungseg.evaluation.robustness import measure_robustness
    from lungseg.evaluation.shortcut.section import robustness_section, shortcut_section, verdict_section
    from lungseg.evaluation.shortcut.study import measure_shortcuts
    from lungseg.evaluation.shortcut.verdict import verdict

    found: dict[str, Any] = {"shortcuts": None, "robustness": None, "verdict": None}
    if options.shortcuts:
        results = measure_shortcuts(subject, say, options.shortcut_images)
        found |= {"shortcuts": shortcut_section(results), "verdict": verdict_section(verdict(results))}
    if options.robustness:
        found["robustness"] = robustness_section(measure_robustness(subject, say, options.robustness))
    return found
