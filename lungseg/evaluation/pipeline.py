"""An evaluation from a target to files: metrics.json, per_image.csv, scores.csv, calibration.json beside the model."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from lungseg.evaluation.plain_data import from_plain, to_plain
from lungseg.evaluation.results import METRICS_FILE, EvaluationResults, EvaluationSetup, MaskCounts
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
from lungseg.evaluation.study_results import ClassMapResults
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
) -> EvaluationResults:
    """Measure everything and write it.

    Args:
        subject: Network and data.
        options: How much.
        output: Folder; files of an earlier evaluation there are replaced.
        show: Given every image while the network passes over them.
        say: Told what is being done.

    Returns:
        What `read_results` gives of the folder.

    Raises:
        ValueError: Unknown method or layer.
    """
    measured = measure(subject, options.ways, options.target, show, say)
    tuned, why = _tune(subject, measured, options)
    say("statistics")
    results = _sections(subject, measured, tuned, options)
    maps = {name_of(way): _map_section(subject, measured, way, options, say) for way in options.ways}
    results = replace(results, class_maps=maps, caveats=all_notes(subject, measured, tuned, why))
    results = _with_studies(results, subject, options, say)
    # JSON has no NaN: what is undefined becomes None, in memory as in the file
    plain = without_nan(to_plain(results))
    write_text(output / "per_image.csv", per_image_csv(image_rows(measured, options.ways[0], tuned)))
    write_text(output / "scores.csv", scores_csv(plain))
    write_json(output / METRICS_FILE, plain)
    return from_plain(EvaluationResults, plain)


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


def _sections(subject: Subject, measured: Measured, tuned: Tuned, options: Options) -> EvaluationResults:
    """What follows from the pass over the split, but for the maps."""
    draws = options.bootstraps
    segmentation = segmentation_section(measured, draws)
    classification = classification_section(measured, draws)
    data = f"{subject.scope} of {subject.data_name}, {len(measured.samples)} images"
    return EvaluationResults(
        setup=_setup(subject, options),
        segmentation=segmentation,
        mask_counts={kind: MaskCounts(**mask_counts(result.found)) for kind, result in measured.masks.items()},
        classification=classification,
        calibration=calibration_section(measured, tuned, draws),
        confusion=confusion_section(measured),
        curves=curves_section(measured),
        operating_points=operating_section(measured, tuned, options.sensitivity, draws),
        scoreboard=scoreboard(segmentation, classification, data),
    )


def _setup(subject: Subject, options: Options) -> EvaluationSetup:
    found = environment(subject.data.fingerprint)
    labels = [sample.label for sample in subject.samples]
    parameters = sum(parameter.numel() for parameter in subject.network.parameters())
    return EvaluationSetup(
        checkpoint=str(subject.run.model),
        checkpoint_digest=digest(subject.run.model),
        split=subject.scope,
        images=len(subject.samples),
        data_name=subject.data_name,
        origin=subject.origin,
        data=dataclasses.asdict(subject.config.data),
        data_fingerprint=subject.data.fingerprint,
        classes=list(subject.classes),
        class_images={name: labels.count(index) for index, name in enumerate(subject.classes)},
        network=dataclasses.asdict(subject.config.model) | {"parameters": parameters},
        target=options.target,
        bootstraps=options.bootstraps,
        versions={"python": found["python"], **found["packages"]},
        devices=found["devices"],
        git_revision=found["git_revision"],
        lungseg=found["lungseg"],
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _map_section(subject: Subject, measured: Measured, way: Way, options: Options, say: Say) -> ClassMapResults:
    """Everything of one way to class maps."""
    maps, faithfulness = measured.maps[way], None
    if options.faithfulness and not maps.broken:
        say(f"faithfulness of {name_of(way)}")
        faithfulness = measure_trust(subject, way, options.faithfulness)
    intervals = map_numbers(measured, way, options.bootstraps)
    return ClassMapResults(maps.evidence, maps.localisation, maps.threshold, intervals, faithfulness)


def _with_studies(results: EvaluationResults, subject: Subject, options: Options, say: Say) -> EvaluationResults:
    """The shortcut report and the robustness curves, which show the network changed images."""
    from lungseg.evaluation.robustness import measure_robustness
    from lungseg.evaluation.shortcut.section import robustness_section, shortcut_section
    from lungseg.evaluation.shortcut.study import measure_shortcuts
    from lungseg.evaluation.shortcut.verdict import verdict

    if options.shortcuts:
        shown = measure_shortcuts(subject, say, options.shortcut_images)
        results = replace(results, shortcuts=shortcut_section(shown), verdict=verdict(shown))
    if options.robustness:
        perturbed = measure_robustness(subject, say, options.robustness)
        results = replace(results, robustness=robustness_section(perturbed))
    return results
