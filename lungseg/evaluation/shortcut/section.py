"""The shortcut report and the robustness curves as sections of the results."""

from __future__ import annotations

from lungseg.evaluation.classification import class_scores
from lungseg.evaluation.intervals import Numbers, bootstrap, numbers_of
from lungseg.evaluation.perturbations import PERTURBATIONS
from lungseg.evaluation.results import (
    RobustnessCurve,
    RobustnessPoint,
    RobustnessResults,
    ShortcutResults,
    ViewResults,
)
from lungseg.evaluation.robustness import SCORES, PointMeasurements, RobustnessMeasurements
from lungseg.evaluation.shortcut.study import REPLICATES, ShortcutMeasurements, ViewMeasurements
from lungseg.evaluation.statistics import means


def shortcut_section(measured: ShortcutMeasurements) -> ShortcutResults:
    """The views with their intervals."""
    return ShortcutResults(
        images=len(measured.ids),
        left_out=measured.left_out,
        lungs_predicted=int((~measured.lung_known).sum()),
        views={name: _view(view) for name, view in measured.views.items()},
        lungs_curve=[_view(view) for view in measured.lungs_curve],
        blanked_curve=[_view(view) for view in measured.blanked_curve],
    )


def robustness_section(measured: RobustnessMeasurements) -> RobustnessResults:
    """The curves with their intervals."""
    curves = {
        name: RobustnessCurve(PERTURBATIONS[name].unit, [_point(measured, point) for point in points])
        for name, points in measured.curves.items()
    }
    return RobustnessResults(len(measured.ids), measured.left_out, curves)


def _view(view: ViewMeasurements) -> ViewResults:
    return ViewResults(view.margin, view.kept, numbers_of(view.scores))


def _point(measured: RobustnessMeasurements, point: PointMeasurements) -> RobustnessPoint:
    scores: Numbers = {}
    if measured.ids:
        values = {"dice": point.dice, "evidence_in_lungs": point.evidence_in_lungs, "flipped": point.flipped}
        statistics = [class_scores(point.class_probs, measured.label, measured.classes), means(values)]
        found = bootstrap(statistics, len(measured.ids), measured.groups, REPLICATES)
        scores = numbers_of({name: found[name] for name in SCORES})
    return RobustnessPoint(point.strength, scores, point.flipped_to)
