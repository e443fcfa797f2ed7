"""A tracker whose failure costs the training nothing: it is said in one line, and the run goes on without it."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.tracker import Picture

log = logging.getLogger(__name__)


class GuardedTracker(Logger):
    """Hands everything to a tracker until that raises for the first time: a server that is gone, a full disk, a fault.

    Args:
        tracker: A logger of Lightning's that is a `Tracker`.
        title: Its name in the warning.
    """

    def __init__(self, tracker: Any, title: str):
        super().__init__()
        self.tracker, self.title = tracker, title
        self.failed = False

    @property
    def name(self) -> str:
        """What the warning calls it."""
        return self.title

    @property
    def version(self) -> str:
        """Nothing that would have to be asked for."""
        return ""

    @property
    def experiment(self) -> Any:
        """What the tracker has opened; Lightning asks for it before the training, so that a failure is said early."""
        return self._hand(lambda: getattr(self.tracker, "experiment", None))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.log_hyperparams(params, *args, **kwargs))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.log_metrics(metrics, step))

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.log_images(name, pictures, epoch))

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.log_result(numbers))

    def log_evaluation(self, reported: Reported) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.log_evaluation(reported))

    def alert(self, title: str, text: str) -> None:
        """As of the tracker, if it takes alerts."""
        if hasattr(self.tracker, "alert"):
            self._hand(lambda: self.tracker.alert(title, text))

    def log_model(self, folder: Path, about: Mapping[str, Any]) -> None:
        """As of the tracker, if it takes models."""
        if hasattr(self.tracker, "log_model"):
            self._hand(lambda: self.tracker.log_model(folder, about))

    def save(self) -> None:
        """As of the tracker."""
        self._hand(self.tracker.save)

    def finalize(self, status: str) -> None:
        """As of the tracker."""
        self._hand(lambda: self.tracker.finalize(status))

    def _hand(self, call: Callable[[], Any]) -> Any:
        if self.failed:
            return None
        try:
            return call()
        except Exception as error:  # whatever it is: hours of training are worth more than what a tracker shows of them
            self.failed = True
            cause: BaseException = error
            while cause.__cause__ is not None:  # what Lightning and others say of a full disk is not that it is full
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:200] or type(cause).__name__
            log.warning("%s gets nothing more of this run, whose folder has it all: %s", self.title, reason)
            return None
