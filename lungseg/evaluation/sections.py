"""The sections of `results.EvaluationResults` on masks, classes and class maps: every number with its interval.

`measure_faithfulness` alone runs the network: on images spread over the classes, some pixels of them hidden.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from lungseg.cam.faithfulness import faithfulness, randomisation_check
from lungseg.cam.layers import layer_stride
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import class_activation_map
from lungseg.data.sample import spread_over_classes
from lungseg.evaluation.class_maps import images_by_lesion, map_statistic
from lungseg.evaluation.class_sets import answered_curve, selective_scores, set_scores
from lungseg.evaluation.classification import (
    class_scores,
    images_by_class,
    operating_scores,
    present,
    ranking_curves,
    ranking_scores,
    truth_of,
    usable,
)
from lungseg.evaluation.infection_scores import correlations
from lungseg.evaluation.intervals import Numbers, bootstrap, numbers_of
from lungseg.evaluation.measure import MaskResults, Measured
from lungseg.evaluation.outputs import CamMethod
from lungseg.evaluation.results import (
    AbstentionResults,
    CalibrationResults,
    Curves,
    FaithfulnessResults,
    OperatingPoints,
)
from lungseg.evaluation.segmentation import global_scores
from lungseg.evaluation.statistics import Flags, Statistic, count_defined, means
from lungseg.evaluation.target import EvaluationTarget
from lungseg.evaluation.temperature import Tuned, calibration_scores, reliability, to_probabilities
from lungseg.runs.calibration import COVERAGE


def segmentation_section(measured: Measured, replicates: int) -> Numbers:
    """Scores of the lung masks, and as `infection_...` of the infection masks, over all images and each true class.

    Of infections, means over all images and over a class count two empty masks as 1; `..._infected` and
    `..._lesion_SIZE` are of images with infection alone. What is defined for no image of a group is left out.
    """
    numbers: Numbers = {}
    for kind, result in measured.masks.items():
        groups = images_by_class(measured.label[result.index], measured.classes)
        if kind == "infection":
            groups["infected"] = infected = result.scores["pixels_true"] > 0
            groups |= images_by_lesion(np.where(infected, result.scores["severity_true"], np.nan))
        prefix = "" if kind == "lung" else f"{kind}_"
        of_kind = _mask_numbers(measured, result, present(groups), replicates)
        kept = {name: number for name, number in of_kind.items() if kind == "lung" or number.images != 0}
        numbers |= {f"{prefix}{name}": number for name, number in kept.items()}
    return numbers


def classification_section(measured: Measured, replicates: int) -> Numbers:
    """Scores from the confusion matrix and from the ranking of each class's probability; empty without a label."""
    if not usable(measured.probs, measured.label).any():
        return {}
    arguments = measured.probs, measured.label, measured.classes
    if measured.multi_label:
        return _numbers([ranking_scores(*arguments)], measured, replicates, _images_known(measured))
    return _numbers([class_scores(*arguments), ranking_scores(*arguments)], measured, replicates)


def calibration_section(measured: Measured, tuned: Tuned, replicates: int) -> CalibrationResults | None:
    """Errors of calibration and the reliability diagram, before and after temperature scaling; None without labels."""
    probs, label = measured.probs, measured.label
    if not usable(probs, label).any():
        return None
    after, reliability_after = None, None
    scaled = to_probabilities(measured.logits / tuned.temperature[:, None], measured.multi_label)
    if usable(scaled, label).any():
        after = _numbers([calibration_scores(scaled, label)], measured, replicates)
        reliability_after = reliability(scaled, label)
    return CalibrationResults(
        temperature=tuned.stored.temperature if tuned.stored else math.nan,
        used=[choice.temperature for choice in tuned.choices],
        fitted_on=tuned.on,
        before=_numbers([calibration_scores(probs, label)], measured, replicates),
        reliability=reliability(probs, label),
        after=after,
        reliability_after=reliability_after,
    )


def operating_section(
    measured: Measured, tuned: Tuned, sensitivity: float | None, replicates: int
) -> OperatingPoints | None:
    """Each class against the rest at the thresholds chosen for a sensitivity; None where no threshold is known."""
    probs, label, classes = measured.probs, measured.label, measured.classes
    missing = np.isnan(tuned.thresholds).any(axis=0)
    if not usable(probs, label).any() or missing.all():
        return None
    # of two halves each has its own thresholds: what counts is how far above its own a probability lies
    above = probs - np.where(missing, 0.0, tuned.thresholds)
    statistic = operating_scores(above, label, classes, np.where(missing, np.nan, 0.0))
    chosen = np.stack([choice.thresholds for choice in tuned.choices], axis=1)
    return OperatingPoints(
        sensitivity_wanted=sensitivity,
        chosen_on=tuned.on,
        thresholds={name: chosen[index].tolist() for index, name in enumerate(classes)},
        scores=_numbers([statistic], measured, replicates, _images_known(measured) if measured.multi_label else None),
    )


def abstention_section(measured: Measured, tuned: Tuned, replicates: int) -> AbstentionResults | None:
    """Sets of classes, and what answering only the surest images gains; None without labels of one class an image."""
    label, classes = measured.label, measured.classes
    scaled = to_probabilities(measured.logits / tuned.temperature[:, None], False)
    probs = scaled if usable(scaled, label).any() else measured.probs
    if measured.multi_label or not usable(probs, label).any():
        return None
    chosen = [choice.least for choice in tuned.choices if choice.least is not None]
    sets = [set_scores(probs, label, tuned.least, classes)] if chosen else []
    return AbstentionResults(
        coverage_wanted=tuned.stored.coverage if tuned.stored else COVERAGE,
        chosen_on=tuned.on if chosen else "",
        least_probability={name: [float(least[index]) for least in chosen] for index, name in enumerate(classes)},
        sets=_numbers(sets, measured, replicates) if sets else {},
        selective=_numbers([selective_scores(probs, label)], measured, replicates),
        answered=answered_curve(probs, label),
    )


def curves_section(measured: Measured) -> Curves:
    """ROC and precision-recall curves of each class against the rest, where they are defined."""
    known = usable(measured.probs, measured.label)
    probs, truth = measured.probs[known], truth_of(measured.label[known], len(measured.classes))
    curves = Curves()
    for index, name in enumerate(measured.classes):
        told = truth[:, index] >= 0
        if told.any() and (found := ranking_curves(probs[told, index], truth[told, index] == 1)):
            curves.roc[name], curves.precision_recall[name] = found
    return curves


def map_numbers(measured: Measured, method: CamMethod, replicates: int) -> Numbers:
    """Means of what was measured of one CAM method."""
    statistic = map_statistic(measured.maps[method], measured.label, measured.classes)
    return _numbers([statistic], measured, replicates)


def baseline_numbers(measured: Measured, replicates: int) -> dict[str, Numbers]:
    """Means of what `measure_baselines` found, over all images, each true class and each size of lesion."""
    if not measured.baselines:
        return {}
    share = next(iter(measured.maps.values())).per_image["infected_share"].astype(np.float64)
    groups = present(images_by_class(measured.label, measured.classes) | images_by_lesion(share))
    return {name: _numbers([means(v, groups)], measured, replicates) for name, v in measured.baselines.items()}


def _mask_numbers(measured: Measured, result: MaskResults, groups: dict[str, Flags], replicates: int) -> Numbers:
    """Scores of one kind of mask over the images that have a true one."""
    # a mean makes sense of all but the counts of pixels, and of millimetres where they are known
    values = {name: column for name, column in result.scores.items() if not name.startswith("pixels_")}
    values = {name: column for name, column in values.items() if "_mm" not in name or not np.isnan(column).all()}
    statistics, counts = [means(values, groups), global_scores(result.scores)], count_defined(values, groups)
    if "severity" in values:
        statistics.append(correlations(values["severity"], values["severity_true"], groups))
        errors = {name: count for name, count in counts.items() if name.startswith("severity_error")}
        for kind in ("pearson", "spearman"):
            counts |= {name.replace("error", kind): count for name, count in errors.items()}
    belong = [measured.samples[index].group for index in result.index]
    intervals = bootstrap(statistics, len(result.index), belong, replicates)
    return numbers_of(intervals, counts)


def _numbers(
    statistics: Sequence[Statistic], measured: Measured, replicates: int, images: Mapping[str, int] | None = None
) -> Numbers:
    return numbers_of(bootstrap(statistics, len(measured.label), measured.groups, replicates), images)


def _images_known(measured: Measured) -> dict[str, int]:
    """Images behind each score of several findings: those where the finding is known, or any of them."""
    scored = usable(measured.probs, measured.label)
    known = (measured.label >= 0) & scored[:, None]
    images = {f"_{name}": int(count) for name, count in zip(measured.classes, known.sum(axis=0), strict=True)}
    at_threshold = ("f1", "sensitivity", "specificity", "precision")
    scores = ("auroc", "average_precision", *(f"{score}_at_threshold" for score in at_threshold))
    return {f"{score}{end}": count for score in scores for end, count in {"": int(scored.sum()), **images}.items()}


RANDOMISED = 16  # Images on which the weight randomisation is checked.
FAITHFULNESS_REPLICATES = 2_000
BATCH_SIZE = 32  # Most images in one pass.


def measure_faithfulness(target: EvaluationTarget, method: CamMethod, images: int) -> FaithfulnessResults:
    """Faithfulness of the maps of the predicted classes on so many images, spread over the classes."""
    dataset = target.data.dataset(target.split)
    items = default_collate([dataset[0, index] for index in spread_over_classes(target.samples, images)])
    batch: Tensor = target.on_device(items)["image"]
    curves = []
    for part in torch.split(batch, BATCH_SIZE):
        with torch.no_grad():
            classes = target.network(part).top_class()
        cam = class_activation_map(target.network, part, classes, *method)
        cam = resize_map(cam, layer_stride(target.network, method.layer), (part.shape[-2], part.shape[-1]))
        curves.append(faithfulness(target.network, part, cam, classes, batch_size=BATCH_SIZE))
    values = {name: torch.cat([getattr(curve, name) for curve in curves]) for name in curves[0]._fields}

    def maps(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return class_activation_map(network, images, classes, *method)

    # The classifier is unlearned first, then the encoder from its deepest stage: each step is slow, so on few images.
    check = randomisation_check(target.network, batch[:RANDOMISED], maps)
    means_of: dict[str, Any] = {
        name if value.ndim == 1 else f"{name}_curve": value.mean(0).tolist() for name, value in values.items()
    }
    return FaithfulnessResults(
        images=len(batch),
        intervals=_faithfulness_intervals(values),
        randomisation={s: float(row.nanmean()) for s, row in zip(check.stages, check.correlation, strict=True)},
        **means_of,
    )


def _faithfulness_intervals(values: dict[str, Tensor]) -> Numbers:
    """Means of the areas with their intervals, and by how much the map beats the same one misplaced."""
    areas = {name: value.double().cpu().numpy() for name, value in values.items() if value.ndim == 1}
    areas["deletion_gain"] = areas["random_deletion_area"] - areas["deletion_area"]
    areas["insertion_gain"] = areas["insertion_area"] - areas["random_insertion_area"]
    return numbers_of(bootstrap([means(areas)], len(areas["deletion_gain"]), replicates=FAITHFULNESS_REPLICATES))
