"""TensorBoard as a tracker: its files stay in the run folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

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
        """Nothing: the report lies in the run folder."""
