"""What a tracker takes beyond the scalars that any logger of Lightning gets: pictures, the result, the evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lungseg.reporting.drawing import Array
from lungseg.reporting.report_run import Reported

STEP_LOSS = "train/step_loss"  # The one scalar that is logged within an epoch; all others are of an epoch.


class Layer(NamedTuple):
    """A mask that a viewer may switch on and off over a picture."""

    labels: Array  # uint8 (H, W) of the picture; 0 is nothing.
    names: dict[int, str]  # Of the labels from 1 on.


class Picture(NamedTuple):
    """A picture as trackers take it; it names samples by number, never by file."""

    pixels: Array  # uint8 (H, W, 3) or (H, W).
    layers: Mapping[str, Layer]
    caption: str
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    """Columns, and rows of what is shown, of this epoch and of those before: text, numbers or None."""


@runtime_checkable
class Tracker(Protocol):
    """A logger of Lightning's with these three methods; all are called on rank zero alone."""

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Take the pictures of an epoch, which come before its scalars."""

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Take the final numbers, as in `metrics.json`."""

    def log_evaluation(self, reported: Reported) -> None:
        """Take the evaluation of the best checkpoint, after all else."""


def of_best_epoch(numbers: Mapping[str, float]) -> dict[str, float]:
    """The final numbers as trackers show them beside the curves: `best_epoch`, and that epoch's as `best/val/dice`."""
    named = {f"best/{name}" if name.startswith("val/") else name: value for name, value in numbers.items()}
    return named | {"best_epoch": int(numbers["fit/best_epoch"])}
