"""The hide-and-seek test: can the network tell the class without the lungs, and what does it know from them alone?

Sadre et al., "Validating deep learning inference during chest X-ray classification for COVID-19 screening", Scientific
Reports 11:16075, 2021; DeGrave, Janizek, Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal",
Nature Machine Intelligence 3:610-619, 2021. The views are those of `shortcut_views`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.data.batch import Batch
from lungseg.evaluation.classification import class_scores, ranking_scores
from lungseg.evaluation.intervals import Interval, bootstrap, numbers_of
from lungseg.evaluation.outputs import evidence_shares, lungs_of
from lungseg.evaluation.results import ShortcutResults, ViewResults
from lungseg.evaluation.shortcut_views import MARGIN, VIEWS, LungDistance, keep, measure_distance
from lungseg.evaluation.statistics import Flags, Floats, Integers, Statistic, means
from lungseg.evaluation.target import EvaluationTarget, batches_of, choose_images
from lungseg.runs.progress import no_word

DILATIONS = (0.0, MARGIN, 0.05, 0.1, 0.2)
"""Radii of the curves, shares of the side; `MARGIN` is that of the views `lungs` and `blanked`."""
REPLICATES = 2_000
_UNDEFINED = Interval(math.nan, math.nan, math.nan, 0)
SCORES = ("accuracy", "balanced_accuracy", "auroc", "true_class_prob")


class _ViewSpec(NamedTuple):
    """One picture that the network is shown of each image."""

    margin: float | None
    kept: Callable[[LungDistance], Tensor]


SHOWN_VIEWS = {name: _ViewSpec(None if name == "full" else MARGIN, kept) for name, kept in VIEWS.items()} | {
    f"{name} {margin:g}": _ViewSpec(margin, partial(VIEWS[name], margin=margin))
    for name in ("lungs", "blanked")
    for margin in DILATIONS
    if margin != MARGIN
}
"""By name, `full` first."""
PASSES = len(SHOWN_VIEWS)
"""Forward passes an image."""


@dataclass(frozen=True)
class ViewMeasurements:
    """What the network makes of one view of every image."""

    margin: float | None
    """Dilation of the lungs, a share of the side; None where none comes in."""
    kept: float
    """Mean share of the pixels that is shown."""
    class_probs: Floats
    """(N, C) in [0, 1]."""
    scores: dict[str, Interval]
    """`SCORES`; `true_class_prob` is the mean probability of the true class."""


@dataclass(frozen=True)
class ShortcutMeasurements:
    """The hide-and-seek test of N images, all those with a label, lungs, and finite probabilities in every view."""

    classes: tuple[str, ...]
    ids: list[str]
    groups: list[str | None]
    label: Integers
    """(N,)."""
    lung_known: Flags
    """(N,): the true lungs were hidden or shown; else those predicted on the full image."""
    views: dict[str, ViewMeasurements]
    """`full`, `lungs`, `blanked`, `box`, `border`: the keys of `shortcut_views.VIEWS`."""
    lungs_curve: list[ViewMeasurements]
    """The lungs alone, dilated by each of `DILATIONS`."""
    blanked_curve: list[ViewMeasurements]
    """The same dilated lungs blanked."""
    evidence_in_lungs: Floats
    """(N,) share of the predicted class's evidence on the full image; NaN where the map holds none."""
    lung_area: Floats
    """(N,) share of the pixels: a uniform map's share of evidence."""
    left_out: dict[str, int]
    """Images by what they lack: `label`, `lungs`, `finite probabilities`."""


def measure_shortcuts(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> ShortcutMeasurements:
    """Show the network the views of every labelled image of the split; `PASSES` forward passes an image.

    Args:
        target: Network and data.
        say: Told what is being done.
        images: Take so many only, spread over the classes; None takes all of the split.
    """
    chosen, parts = show_views(target, say, images)
    samples = [target.samples[index] for index in chosen]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    groups = np.array([sample.group for sample in samples], dtype=object)
    lacking = {
        "label": found["label"] < 0,
        "lungs": found["lung_area"] == 0,
        "finite probabilities": ~np.all([np.isfinite(found[name]).all(axis=1) for name in SHOWN_VIEWS], axis=0),
    }
    used = ~np.any(list(lacking.values()), axis=0)
    label, named = found["label"][used], [group for group, use in zip(groups, used, strict=True) if use]
    views = {name: _view(name, found, used, label, named, target.classes) for name in SHOWN_VIEWS}
    return ShortcutMeasurements(
        classes=target.classes,
        ids=[sample.id for sample, use in zip(samples, used, strict=True) if use],
        groups=named,
        label=label,
        lung_known=found["lung_known"][used],
        views={name: views[name] for name in VIEWS},
        lungs_curve=_curve(views, "lungs"),
        blanked_curve=_curve(views, "blanked"),
        evidence_in_lungs=found["evidence_in_lungs"][used],
        lung_area=found["lung_area"][used],
        left_out={name: int(np.count_nonzero(flags)) for name, flags in lacking.items()},
    )


def shortcut_section(measured: ShortcutMeasurements) -> ShortcutResults:
    """The views with their intervals."""
    return ShortcutResults(
        images=len(measured.ids),
        left_out=measured.left_out,
        lungs_predicted=int((~measured.lung_known).sum()),
        views={name: _view_results(view) for name, view in measured.views.items()},
        lungs_curve=[_view_results(view) for view in measured.lungs_curve],
        blanked_curve=[_view_results(view) for view in measured.blanked_curve],
    )


def show_views(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[list[int], list[dict[str, NDArray[Any]]]]:
    """The forward passes of `measure_shortcuts`, shared by the processes: places in the split, and rows a batch."""
    chosen = choose_images(target, images)
    say(f"hide-and-seek on {len(chosen)} images of {target.split}, {PASSES} passes each")
    return chosen, target.processes.share(lambda batch: _run_batch(target, batch), batches_of(target, chosen))


def view_scores(class_probs: Floats, label: Integers, classes: tuple[str, ...]) -> Statistic:
    """`SCORES` of class_probs (N, C) against label (N,), both of images that have them."""
    truth = class_probs[np.arange(len(label)), label]
    statistics = (
        class_scores(class_probs, label, classes),
        ranking_scores(class_probs, label, classes),
        means({"true_class_prob": truth}),
    )

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = {name: value for part in statistics for name, value in part(weights).items()}
        return {name: scores[name] for name in SCORES}

    return statistic


def _run_batch(target: EvaluationTarget, batch: Batch) -> dict[str, NDArray[Any]]:
    """Everything measured of a batch, a row an image; class probabilities (B, C) by the name of the view."""
    images = batch["image"]
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        output = target.network(images)
        lung = lungs_of(batch, output)
        distance = measure_distance(lung)
        for name, view in SHOWN_VIEWS.items():
            kept = view.kept(distance)
            logits = output.class_logits if name == "full" else target.network(keep(images, kept)).class_logits
            found[name] = logits.double().softmax(1)
            found[f"{name} kept"] = kept.double().mean(dim=(1, 2))
    found["evidence_in_lungs"] = evidence_shares(output, lung, target.network.stride)
    found["lung_area"] = lung.double().mean(dim=(1, 2))
    found["label"] = torch.where(batch["has_label"], batch["label"], -1)
    found["lung_known"] = batch["has_lung"]
    return {name: values.cpu().numpy() for name, values in found.items()}


def _view(
    name: str,
    found: dict[str, NDArray[Any]],
    used: Flags,
    label: Integers,
    groups: list[str | None],
    classes: tuple[str, ...],
) -> ViewMeasurements:
    """The scores of a view on the images used; NaN without any."""
    probs = found[name][used]
    if not len(label):
        return ViewMeasurements(SHOWN_VIEWS[name].margin, math.nan, probs, dict.fromkeys(SCORES, _UNDEFINED))
    scores = bootstrap([view_scores(probs, label, classes)], len(label), groups, REPLICATES)
    return ViewMeasurements(SHOWN_VIEWS[name].margin, float(found[f"{name} kept"][used].mean()), probs, scores)


def _curve(views: dict[str, ViewMeasurements], name: str) -> list[ViewMeasurements]:
    """The view of that name at each of `DILATIONS`."""
    return [views[name if margin == MARGIN else f"{name} {margin:g}"] for margin in DILATIONS]


def _view_results(view: ViewMeasurements) -> ViewResults:
    return ViewResults(view.margin, view.kept, numbers_of(view.scores))
