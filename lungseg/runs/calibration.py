"""What was chosen on validation images and is kept with a run: its temperature, and thresholds for a sensitivity."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.runs.run import Run
from lungseg.runs.whole_files import digest, without_nan, write_json

COVERAGE = 0.9
"""Share of the images of each class whose set of classes is to hold it (`evaluation.class_sets`)."""


class Calibration(NamedTuple):
    """What was chosen on some images."""

    temperature: float  # NaN where none could be fitted.
    thresholds: NDArray[np.float64]
    """(C,) probability from which on an image counts as of the class; NaN for a class without images."""
    sensitivity: float | None = 0.95
    """That the thresholds reach; None: those of the highest F1."""
    least: NDArray[np.float64] | None = None
    """(C,) calibrated probability from which on a class belongs to an image's set (`evaluation.class_sets`); None where
    an image may have several classes, or none could be chosen."""
    coverage: float = COVERAGE  # Of those sets.


def write_calibration(run: Run, chosen: Calibration, classes: Sequence[str], about: dict[str, Any]) -> None:
    """Keep with a run's `model` what was chosen on the whole of Val.

    `about` tells of it: `split`, `data_fingerprint`, `images`.
    """
    thresholds = dict(zip(classes, chosen.thresholds.tolist(), strict=True))
    content = {"temperature": chosen.temperature, "thresholds": thresholds, "sensitivity": chosen.sensitivity, **about}
    if chosen.least is not None:
        least = dict(zip(classes, chosen.least.tolist(), strict=True))
        content["class_sets"] = {"coverage": chosen.coverage, "least_probability": least}
    content |= {"checkpoint": run.model.name, "checkpoint_digest": digest(run.model)}
    write_json(run.calibration_file, without_nan(content))


def read_calibration(run: Run, classes: Sequence[str]) -> tuple[Calibration | None, str]:
    """What was kept with a run's `model`, and where it was chosen; None, and why, if it cannot be used."""
    path = run.calibration_file
    if not path.is_file():
        return None, f"the run has no {path.name} yet; evaluate it on its own data first"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        temperature = math.nan if kept["temperature"] is None else float(kept["temperature"])
        there, sensitivity = kept["thresholds"], kept.get("sensitivity")
        found = [math.nan if there.get(name) is None else float(there[name]) for name in classes]
        sensitivity = None if sensitivity is None else float(sensitivity)
        sets = kept.get("class_sets")  # which older ones do not have
        least = None if sets is None else np.array([float(sets["least_probability"][name]) for name in classes])
        coverage = COVERAGE if sets is None else float(sets["coverage"])
        if least is not None and not ((least >= 0) & (least <= 1)).all():
            raise ValueError("a probability that is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"{path.name} cannot be read ({type(error).__name__}); evaluate the run on its own data again"
    if not (math.isnan(temperature) or 0 < temperature < math.inf):
        return None, f"{path.name} has the temperature {temperature:g}; evaluate the run on its own data again"
    # A run that was resumed has another best checkpoint under the same name; its old temperature would mislead.
    if kept.get("checkpoint_digest") != digest(run.model):
        return None, f"{path.name} was made for another checkpoint; evaluate this one on its own data first"
    chosen = Calibration(temperature, np.array(found, np.float64), sensitivity, least, coverage)
    return chosen, f"{kept.get('split')} of the data of the training"
