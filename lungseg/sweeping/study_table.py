"""What the runs of a study have given, read back as the trainings that its tables are made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lungseg.evaluation.saved import read_evaluation
from lungseg.evaluation.study_results import Training
from lungseg.runs.whole_files import to_csv
from lungseg.sweeping.study import Study, StudyRun
from lungseg.sweeping.study_runs import is_done


def trainings(study: Study) -> dict[str, list[Training]]:
    """What is done of each variant: its seeds of which every fold is there. Variants without any are left out."""
    found: dict[str, list[Training]] = {}
    for variant in study.variants:
        runs = [run for run in study.runs if run.variant == variant]
        wholes = [[run for run in runs if run.seed == seed] for seed in study.seeds]
        if there := [_training(study, whole) for whole in wholes if all(is_done(study, run) for run in whole)]:
            found[variant] = there
    return found


def predictions_csv(study: Study, found: Mapping[str, Sequence[Training]]) -> str:
    """What every training said of every image: `variant,training,fold`, then the columns of per_image.csv."""
    of_all = [training.evaluation.rows[0] for each in found.values() for training in each]
    names = list(dict.fromkeys(name for row in of_all for name in row))  # a variant may have columns of its own
    lines: list[list[Any]] = [["variant", "training", "fold", *names]]
    for variant, each in found.items():
        for training in each:
            for key, row in zip(training.evaluation.keys, training.evaluation.rows, strict=True):
                fold = training.fold[key] if study.folds is not None else None
                lines.append([variant, training.name, fold, *(row.get(name, "") for name in names)])
    return to_csv(lines)


def _training(study: Study, runs: Sequence[StudyRun]) -> Training:
    """One run, or those of all folds together."""
    saved = [read_evaluation(study.run(run).folder, study.split) for run in runs]
    fold = {key: run.fold or 0 for run, each in zip(runs, saved, strict=True) for key in each.keys}
    rows = [row for each in saved for row in each.rows]
    minutes = sum(json.loads(study.run(run).metrics_json.read_text())["fit/minutes"] for run in runs)
    return Training(f"seed{runs[0].seed}", replace(saved[0], rows=rows), fold, minutes)
