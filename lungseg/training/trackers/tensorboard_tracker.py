"""TensorBoard as a tracker: its files stay in the run folder."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import TensorBoardLogger

from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.tracker import Picture


class TensorBoardTracker(TensorBoardLogger):
    """A folder of event files."""

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Add the pictures, without their layers, which TensorBoard does not have."""
        for number, picture in enumerate(pictures):
            tag = name if len(pictures) == 1 else f"{name}/{number + 1}"
            shape = "HWC" if picture.pixels.ndim == 3 else "HW"
            self.experiment.add_image(tag, picture.pixels, epoch, dataformats=shape)

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Nothing yet: the scalars are there."""

    def log_evaluation(self, reported: Reported) -> None:
        """Nothing: the report lies in the run folder."""
