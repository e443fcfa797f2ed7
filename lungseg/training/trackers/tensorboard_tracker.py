"""TensorBoard as a tracker: its files stay in the run folder."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from lungseg.evaluation.saved import read_evaluation
from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.tracker import Picture, of_best_epoch


class TensorBoardTracker(TensorBoardLogger):
    """A folder of event files.

    Args:
        params: Flat settings, for the tab of hyper-parameters.
        **settings: As of Lightning's `TensorBoardLogger`.
    """

    def __init__(self, params: Mapping[str, Any], **settings: Any):
        super().__init__(**settings)
        self._params = dict(params)

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Add the pictures, without their layers, which TensorBoard does not have."""
        for number, picture in enumerate(pictures):
            tag = name if len(pictures) == 1 else f"{name}/{number + 1}"
            shape = "HWC" if picture.pixels.ndim == 3 else "HW"
            self.experiment.add_image(tag, picture.pixels, epoch, dataformats=shape)

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Put the run into the tab of hyper-parameters, with the scores of the best epoch and of the test."""
        scores = {name: value for name, value in of_best_epoch(numbers).items() if not name.startswith("fit/")}
        self.log_hyperparams(self._params, {f"result/{name}": value for name, value in scores.items()})
        self.experiment.flush()

    def log_evaluation(self, reported: Reported) -> None:
        """Add the precision-recall curve of each class against the rest; the report lies in the run folder."""
        saved = read_evaluation(reported.folder, reported.results.setup.split)
        known = saved.label if saved.label.ndim == 2 else saved.label[:, None]
        truth = known == (1 if saved.label.ndim == 2 else np.arange(len(saved.classes)))
        usable = (known >= 0) & np.isfinite(saved.probs)
        for index, name in enumerate(saved.classes):
            chosen = usable[:, index]
            if truth[chosen, index].any():
                tag = f"evaluation_{reported.results.setup.split}/{name}"
                self.experiment.add_pr_curve(tag, truth[chosen, index], saved.probs[chosen, index])
        self.experiment.flush()
