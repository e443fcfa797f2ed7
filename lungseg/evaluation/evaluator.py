"""An evaluation from a target to files: metrics.json, per_image.csv, scores.csv, calibration.json beside the model."""

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.data.covidqu import CLASSES
from lungseg.data.sample import Sample
from lungseg.errors import check
from lungseg.evaluation.caveats import list_caveats
from lungseg.evaluation.classification import confusion_matrix
from lungseg.evaluation.intervals import REPLICATES
from lungseg.evaluation.measure import Measured, image_columns, measure, run_network
from lungseg.evaluation.outputs import CLOSED_FORM, CamMethod, MapClass, Picture
from lungseg.evaluation.results import ClassMapResults, EvaluationResults, EvaluationSetup, MaskCounts
from lungseg.evaluation.saved import from_plain, to_plain
from lungseg.evaluation.scoreboard import scoreboard
from lungseg.evaluation.sections import (
    abstention_section,
    baseline_numbers,
    calibration_section,
    classification_section,
    curves_section,
    map_numbers,
    measure_faithfulness,
    operating_section,
    segmentation_section,
)
from lungseg.evaluation.segmentation import mask_counts
from lungseg.evaluation.target import EvaluationTarget
from lungseg.evaluation.temperature import Tuned, apply, choose, cross_fit, nothing
from lungseg.models.ensemble import members_of
from lungseg.runs.calibration import read_calibration, write_calibration
from lungseg.runs.environment import environment
from lungseg.runs.progress import no_word
from lungseg.runs.run import METRICS_FILE, ROWS_FILE
from lungseg.runs.whole_files import digest, to_csv, without_nan, write_json, write_text

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    cam_methods: tuple[CamMethod, ...] = (CLOSED_FORM,)  # CAM methods; `per_image.csv` and the pictures hold the first.
    map_class: MapClass = "predicted"
    faithfulness: int = 60  # Images for deletion, insertion and weight randomisation; 0 leaves them out.
    bootstraps: int = REPLICATES
    sensitivity: float | None = None
    """Of the operating points, in (0, 1]; None: 0.95, or the highest F1 where an image may have several classes."""
    shortcuts: int = 1_000
    """Images of which it is also shown parts, spread over the classes: `shortcut.PASSES` forward passes each; or 0."""
    robustness: int = 200  # Images for the perturbations; 0 leaves them out.

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("faithfulness", "shortcuts", "robustness"):
            check(getattr(self, name) >= 0, f"--{name}", "0 or more", getattr(self, name))
        check(self.bootstraps >= 1, "--bootstraps", "1 or more", self.bootstraps)
        check(self.sensitivity is None or 0 < self.sensitivity <= 1, "--sensitivity", "in (0, 1]", self.sensitivity)

    def possible(self, target: EvaluationTarget) -> "Options":
        """What of it this network can be asked: without classes no maps, without one class an image no shortcuts."""
        sensitivity = self.sensitivity
        if sensitivity is None and not target.network.multi_label:
            sensitivity = 0.95
        methods = self.cam_methods if target.classes else ()
        # The test asks how well one class is told from the others with the lungs hidden, so it needs both.
        testable = target.classes and target.network.has_lung and not target.network.multi_label
        shortcuts = self.shortcuts if testable else 0
        return replace(self, sensitivity=sensitivity, cam_methods=methods, shortcuts=shortcuts)


def evaluate(
    target: EvaluationTarget,
    options: Options,
    output: Path,
    show: Callable[[Picture], None] | None = None,
    say: Say = no_word,
) -> EvaluationResults:
    """Measure everything and write it to a folder; files of an earlier evaluation there are replaced.

    `show` gets every image while the network passes over them, `say` what is being done, in words.

    Returns:
        What `read_results` gives of the folder.

    Raises:
        UserError: Unknown method or layer.
    """
    options = options.possible(target)
    measured = measure(target, options.cam_methods, options.map_class, show, say)
    tuned, why = _tune(target, measured, options)
    say("statistics")
    results = _sections(target, measured, tuned, options)
    maps = {method.name: _map_section(target, measured, method, options, say) for method in options.cam_methods}
    studies = _studies(target, options, say)
    results = replace(results, class_maps=maps, caveats=list_caveats(target, measured, tuned, why), **studies)
    # JSON has no NaN: what is undefined becomes None, in memory as in the file
    plain = without_nan(to_plain(results))
    columns = image_columns(measured, options.cam_methods[0] if options.cam_methods else None, tuned)
    write_text(output / ROWS_FILE, to_csv([columns, *zip(*columns.values(), strict=True)]))
    ends = ("value", "low", "high", "undefined", "images")
    numbers = ([section, name, *map(number.get, ends)] for section, name, number in _walk_numbers(plain, ""))
    write_text(output / "scores.csv", to_csv([["section", "name", *ends], *numbers]))
    write_json(output / METRICS_FILE, plain)
    return from_plain(plain)


def assist(target: EvaluationTarget, options: Options) -> None:
    """What a process other than rank zero does of `evaluate`: its share of the forward passes, in the same order."""
    from lungseg.evaluation.robustness import show_perturbed
    from lungseg.evaluation.shortcut_study import show_views

    options = options.possible(target)
    run_network(target, options.cam_methods, options.map_class)
    if options.shortcuts:
        show_views(target, images=options.shortcuts)
    if options.robustness:
        show_perturbed(target, images=options.robustness)


def _tune(target: EvaluationTarget, measured: Measured, options: Options) -> tuple[Tuned, str]:
    """What is chosen on Val, kept with the model if the data are its own; and why not, where there is nothing."""
    images, classes = measured.logits.shape
    if target.data_origin == "other":
        # What a user gets on such images is the temperature kept with the model, so that is what is measured.
        choice, words = read_calibration(target.run, measured.classes)
        if choice is None:
            return nothing(images, classes), words
        if choice.sensitivity != options.sensitivity:
            choice = choice._replace(thresholds=np.full(classes, np.nan))
        return apply(choice, images, words), ""
    if target.split == "val":
        tuned = cross_fit(measured.logits, measured.label, measured.halves, options.sensitivity)
    elif measured.val_logits is None or measured.val_label is None:
        why = "members have learned from Val" if target.val_is_learned else "there is no Val split to choose them on"
        return nothing(images, classes), why
    else:
        choice = choose(measured.val_logits, measured.val_label, options.sensitivity)
        tuned = apply(choice, images, "val")
    if tuned.stored is None or np.isnan(tuned.stored.temperature):
        return nothing(images, classes), "no image of Val has both a label and finite class outputs"
    if target.data_origin == "own":
        about = {
            "split": "val",
            "images": len(target.data.samples["val"]),
            "data_fingerprint": target.data.fingerprint,
        }
        write_calibration(target.run, tuned.stored, measured.classes, about)
    return tuned, ""


def _sections(target: EvaluationTarget, measured: Measured, tuned: Tuned, options: Options) -> EvaluationResults:
    """What follows from the pass over the split, but for the maps."""
    draws = options.bootstraps
    segmentation = segmentation_section(measured, draws)
    classification = classification_section(measured, draws)
    operating = operating_section(measured, tuned, options.sensitivity, draws)
    if operating and measured.multi_label:  # what a finding is called by
        ends = {name: number for name, number in operating.scores.items() if "_at_threshold" in name}
        classification |= {name.replace("_at_threshold", ""): number for name, number in ends.items()}
    data = f"{target.split_name} of {target.data_name}, {len(measured.samples)} images"
    return EvaluationResults(
        setup=_setup(target, options),
        segmentation=segmentation,
        mask_counts={kind: MaskCounts(**mask_counts(result.scores)) for kind, result in measured.masks.items()},
        classification=classification,
        calibration=calibration_section(measured, tuned, draws),
        confusion=confusion_matrix(measured.probs, measured.label).tolist(),
        curves=curves_section(measured),
        operating_points=operating,
        abstention=abstention_section(measured, tuned, draws),
        map_baselines=baseline_numbers(measured, draws),
        scoreboard=scoreboard(segmentation, classification, data) if target.classes == CLASSES else [],
    )


def _setup(target: EvaluationTarget, options: Options) -> EvaluationSetup:
    found = environment(target.data.fingerprint)
    about: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in target.network.parameters())}
    if (members := len(members_of(target.network))) > 1:
        about["ensemble"] = f"{members} members, of which this is the first"
    return EvaluationSetup(
        checkpoint=str(target.run.model),
        checkpoint_digest=digest(target.run.model),
        split=target.split_name,
        images=len(target.samples),
        data_name=target.data_name,
        data_origin=target.data_origin,
        data=dataclasses.asdict(target.config.data),
        data_fingerprint=target.data.fingerprint,
        classes=list(target.classes),
        class_images={name: _count(target.samples, index) for index, name in enumerate(target.classes)},
        network=dataclasses.asdict(target.config.model) | about,
        map_class=options.map_class,
        bootstraps=options.bootstraps,
        versions={"python": found["python"], **found["packages"]},
        devices=found["devices"],
        git_revision=found["git_revision"],
        lungseg=found["lungseg"],
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _count(samples: Sequence[Sample], index: int) -> int:
    """Images of a class, or with a finding."""
    return sum(s.label == index if s.findings is None else s.findings[index] == 1 for s in samples)


def _map_section(
    target: EvaluationTarget, measured: Measured, method: CamMethod, options: Options, say: Say
) -> ClassMapResults:
    """Everything of one CAM method."""
    maps, faithfulness = measured.maps[method], None
    if options.faithfulness and not maps.broken:
        say(f"faithfulness of {method.name}")
        faithfulness = measure_faithfulness(target, method, options.faithfulness)
    intervals = map_numbers(measured, method, options.bootstraps)
    return ClassMapResults(maps.evidence, maps.localisation, maps.threshold, intervals, faithfulness)


def _studies(target: EvaluationTarget, options: Options, say: Say) -> dict[str, Any]:
    """The shortcut report and the robustness curves, which show the network changed images, by field of the results."""
    from lungseg.evaluation.robustness import measure_robustness
    from lungseg.evaluation.shortcut_study import measure_shortcuts, verdict

    found: dict[str, Any] = {}
    if options.shortcuts:
        found["shortcuts"], shown = measure_shortcuts(target, say, options.shortcuts)
        found["verdict"] = verdict(shown)
    if options.robustness:
        found["robustness"] = measure_robustness(target, say, options.robustness)
    return found


def _walk_numbers(content: Mapping[str, Any], section: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Section, name and number, in the order of the content."""
    for name, inner in content.items():
        if isinstance(inner, Mapping) and {"value", "low", "high", "undefined"} <= inner.keys():
            yield section, name, inner
        elif isinstance(inner, Mapping):
            yield from _walk_numbers(inner, f"{section}/{name}" if section else name)
