"""What the terminal shows at the end: the final numbers of a training, and the headlines of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lungseg.evaluation.intervals import Numbers
from lungseg.evaluation.results import AbstentionResults, CalibrationResults, EvaluationResults, RobustnessResults
from lungseg.evaluation.scoreboard import HEADLINES
from lungseg.reporting.formatting import (
    LESIONS,
    LOCALISATION_COLUMNS,
    align,
    count_words,
    format_interval,
    headlines,
    localisation_rows,
    of_main_classes,
)

_SHARES = {
    "fit/share_waiting": "waiting for training data",
    "fit/share_validating": "validating",
    "fit/share_drawing": "drawing overlays",
}
EVIDENCE = ("evidence_in_lungs", "Evidence in lungs before crop")


def final_numbers(
    rows: Sequence[dict[str, str]],
    best_epoch: int,
    test: dict[str, float],
    minutes: float,
    speed: Mapping[str, float],
    best_step: int | None = None,
) -> dict[str, float]:
    """All final numbers by `stage/name`: the best epoch's `val/...`, the `test/...`, and the `fit/...` of the run.

    Of several validations in the best epoch, that of `best_step` counts. `speed` is that of `EpochLines`: empty for a
    run that was resumed when it had finished.
    """
    trained = [int(row["epoch"]) for row in rows if row["epoch"] and row.get("train/loss")]  # not the row of the test
    numbers: dict[str, float] = {
        "fit/best_epoch": best_epoch,
        "fit/epochs": 1 + max(trained, default=-1),
        "fit/minutes": round(minutes, 3),
    }
    numbers |= {f"fit/{name}": round(value, 2 if name == "images_per_second" else 4) for name, value in speed.items()}
    of_best = [row for row in rows if row["epoch"] == str(best_epoch)]
    for row in [row for row in of_best if row.get("step") == str(best_step)] or of_best:
        numbers |= {name: float(value) for name, value in row.items() if name.startswith("val/") and value}
    return numbers | {name: value for name, value in test.items() if name.startswith("test/")}


def summary_lines(numbers: dict[str, float], folder: Path, offline: Path | None) -> list[str]:
    """The closing lines: a table of Val and Test, and where everything lies."""
    stages = [stage for stage in ("val", "test") if any(name.startswith(f"{stage}/") for name in numbers)]
    lines = ["", f"{'best epoch ' + str(int(numbers['fit/best_epoch'])):<48}" + "".join(f"{s:>9}" for s in stages)]
    for name, title in [*((name, title) for _, name, title in HEADLINES), EVIDENCE]:
        cells = [numbers.get(f"{stage}/{name}") for stage in stages]
        if any(cell is not None for cell in cells):
            lines.append(f"{title:<48}" + "".join("        -" if c is None else f"{c:>9.4f}" for c in cells))
    rate = [f"{numbers[name]:.0f} training images/s" for name in ("fit/images_per_second",) if name in numbers]
    lines += ["", ", ".join([f"{numbers['fit/minutes']:.1f} minutes", *rate])]
    shares = [f"{numbers[name]:.1%} {words}" for name, words in _SHARES.items() if name in numbers]
    if shares:
        lines.append(f"fit's time  {', '.join(shares)}; the rest is training and saving")
    lines.append(f"run folder  {folder}   (metrics.csv, metrics.json, checkpoints/best.ckpt, overlays/)")
    sheets = sorted(folder.glob("overlays/*.png"))
    if sheets:
        lines.append(f"overlays    {sheets[-1]}")
    if offline is not None:
        lines.append(f"W&B         offline; send it with: wandb sync {offline}")
    lines.append("Research software, not a medical device.")
    return lines


def evaluation_lines(results: EvaluationResults) -> list[str]:
    """The headline numbers of an evaluation with their intervals, its class maps, the verdict, and what to know."""
    results = of_main_classes(results)
    setup = results.setup
    rows = [(headline.title, headline.number) for headline in headlines(results)]
    for name in setup.classes:
        for score in ("sensitivity", "specificity", "precision"):
            if f"{score}_{name}" in results.classification:
                rows.append((f"{score.capitalize()}, {name}", results.classification[f"{score}_{name}"]))
    return [
        "",
        f"{setup.split} of {setup.data_name}: {setup.images} images ({count_words(results) or 'no class labels'})",
        f"{'':<48}  value  [95 % interval]",
        *(_line(title, format_interval(number, 4, "-")) for title, number in rows),
        *(_calibration(results.calibration) if results.calibration else []),
        *(_abstention(results.abstention) if results.abstention else []),
        *_maps(results),
        *_verdict(results),
        *(_robustness(results.robustness) if results.robustness else []),
        "",
        "notes",
        *(f"  - {note}" for note in results.caveats),
    ]


def _line(title: str, words: str) -> str:
    return f"{title:<48}  {words}"


def _calibration(calibration: CalibrationResults) -> list[str]:
    lines = [_line("Calibration error (ECE)", format_interval(calibration.before.get("ece"), 4, "-"))]
    if calibration.after is not None:
        fitted = " and ".join(_number(value) for value in calibration.used if value is not None)
        lines.append(_line(f"  at temperature {fitted}", format_interval(calibration.after.get("ece"), 4, "-")))
    return lines


def _abstention(left: AbstentionResults) -> list[str]:
    titles = {
        "set_coverage": f"Sets of classes for {left.coverage_wanted:.0%}: hold the true one",
        "set_size": "  classes in a set, mean",
        "risk_coverage_area": "Area under the risk-coverage curve",
        "accuracy_answered_80": "Accuracy of the surest 80 % of the images",
    }
    numbers = left.sets | left.selective
    return [_line(title, format_interval(numbers[name], 4, "-")) for name, title in titles.items() if name in numbers]


def _maps(results: EvaluationResults) -> list[str]:
    """The CAM methods side by side, evidence by class, and whether the maps say what the network does."""
    class_maps, rows = results.class_maps, localisation_rows(results)
    first = next(iter(class_maps.values()), None)
    if first is None:
        return []
    evidence = first.evidence["all"]
    by_class = [
        f"{name} {format_interval(first.intervals.get(f'evidence_in_lungs_{name}'), 3, '-')}"
        for name in results.setup.classes
    ]
    area = "" if evidence.lung_area is None else f"; a uniform map would have {evidence.lung_area:.3f}"
    lines = [
        "",
        *align([["", *(heading for heading, _ in LOCALISATION_COLUMNS)], *_cells(rows, LOCALISATION_COLUMNS)]),
        *_by_lesion(results, rows),
        f"evidence in lungs before crop, by true class: {', '.join(by_class)}{area}",
        f"images whose evidence is mostly outside the lungs: {evidence.outside} (column evidence_outside)",
    ]
    for name, study in ((name, maps.faithfulness) for name, maps in class_maps.items()):
        if study is not None:
            stages = ", ".join(f"{stage} {_number(value, 2)}" for stage, value in study.randomisation.items())
            lines.append(
                f"{name}: deletion {study.deletion_area:.3f} (misplaced map {study.random_deletion_area:.3f}), "
                f"insertion {study.insertion_area:.3f} ({study.random_insertion_area:.3f}); "
                f"rank correlation once unlearned down to: {stages}"
            )
    return lines


def _by_lesion(results: EvaluationResults, rows: Mapping[str, Numbers]) -> list[str]:
    """Predicted infection and every map by size of lesion, where there are images with infection."""
    maps = [(f"{score}, {size}", f"infection_{name}_{size}") for score, name in _OF_MAPS for size in LESIONS]
    masks = [(f"{score}, {size}", f"infection_{name}_{size}") for score, name in _OF_MASKS for size in LESIONS]
    tables = [(maps, rows), (masks, {"predicted infection": results.segmentation})]
    lines = []
    for columns, numbers in tables:
        if any(name in found for found in numbers.values() for _, name in columns):
            headings = [heading.replace("lesion_", "") for heading, _ in columns]
            lines += ["by size of lesion", *align([["", *headings], *_cells(numbers, columns)])]
    return lines


_OF_MAPS = (("hit", "hit"), ("IoU tuned", "iou_tuned"))
_OF_MASKS = (("dice", "dice"), ("IoU", "iou"), ("severity error", "severity_error"))


def _cells(rows: Mapping[str, Numbers], columns: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The title of each row, and its values by the names of the columns."""
    return [
        [title, *(_number(found.value if (found := numbers.get(name)) else None) for _, name in columns)]
        for title, numbers in rows.items()
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(results: EvaluationResults) -> list[str]:
    verdict = results.verdict
    if verdict is None:
        return []
    return [
        "",
        f"shortcuts: {verdict.flag.upper()}",
        *(f"  {reason}" for reason in verdict.reasons),
        f"  {verdict.limits.partition('. ')[0]}; rule and limits: verdict in metrics.json, and report.html",
    ]


def _robustness(robustness: RobustnessResults) -> list[str]:
    """The first score there is, from the image as it is to the strongest change of each kind."""
    scores = {name for curve in robustness.curves.values() for point in curve.points for name in point.scores}
    score = next((name for name in ("balanced_accuracy", "auroc", "dice") if name in scores), None)
    if not robustness.images or score is None:
        return []
    title = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}.get(score, score)
    lines = ["", f"{title} as images get worse ({robustness.images} images; intervals: metrics.json)"]
    for name, curve in robustness.curves.items():
        values = [(point.strength, point.scores[score].value) for point in curve.points]
        cells = ", ".join(f"{strength:g}: {_number(value)}" for strength, value in values)
        lines.append(f"  {name:<9} {cells}   ({curve.unit})")
    return lines
