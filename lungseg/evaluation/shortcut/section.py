"""The shortcut report and the robustness curves as plain values for metrics.json."""

from __future__ import annotations

from typing import Any

from lungseg.evaluation.classification import class_scores
from lungseg.evaluation.intervals import bootstrap
from lungseg.evaluation.perturbations import PERTURBATIONS
from lungseg.evaluation.robustness import SCORES, Point, RobustnessResults
from lungseg.evaluation.sections import Numbers, plain_intervals
from lungseg.evaluation.shortcut.study import REPLICATES, ShortcutResults, View
from lungseg.evaluation.shortcut.verdict import Verdict
from lungseg.evaluation.statistics import means


def shortcut_section(results: ShortcutResults) -> dict[str, Any]:
    """`images`, `left_out`, `views` by name, and the curves of dilation."""
    return {
        "images": len(results.ids),
        "left_out": results.left_out,
        "lungs_predicted": int((~results.lung_known).sum()),
        "views": {name: _view(view) for name, view in results.views.items()},
        "lungs_curve": [_view(view) for view in results.lungs_curve],
        "blanked_curve": [_view(view) for view in results.blanked_curve],
    }


def verdict_section(found: Verdict) -> dict[str, Any]:
    """`flag`, `reasons`, `rule`, `limits`, and the share of the skill left without the lungs."""
    return {
        "flag": found.flag,
        "reasons": found.reasons,
        "rule": found.rule,
        "limits": found.limits,
        "skill_left": plain_intervals(found.skill_left),
    }


def robustness_section(results: RobustnessResults) -> dict[str, Any]:
    """`images`, `left_out`, and for each perturbation its `unit` and `points`."""
    return {
        "images": len(results.ids),
        "left_out": results.left_out,
        "curves": {
            name: {"unit": PERTURBATIONS[name].unit, "points": [_point(results, point) for point in points]}
            for name, points in results.curves.items()
        },
    }


def _view(view: View) -> dict[str, Any]:
    return {"margin": view.margin, "kept": view.kept, "scores": plain_intervals(view.scores)}


def _point(results: RobustnessResults, point: Point) -> dict[str, Any]:
    scores: Numbers = {}
    if results.ids:
        values = {"dice": point.dice, "evidence_in_lungs": point.evidence_in_lungs, "flipped": point.flipped}
        statistics = [class_scores(point.class_probs, results.label, results.classes), means(values)]
        found = bootstrap(statistics, len(results.ids), results.groups, REPLICATES)
        scores = plain_intervals({name: found[name] for name in SCORES})
    return {"strength": point.strength, "scores": scores, "flipped_to": point.flipped_to}
