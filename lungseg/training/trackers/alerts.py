"""Messages to the people who follow a run at W&B: it broke off, or its evidence has left the lungs."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lungseg.cam.lung import MOSTLY_OUTSIDE
from lungseg.errors import NonFiniteLossError

_EVIDENCE = "val/evidence_in_lungs"


class AlertCallback(Callback):
    """Two alerts, each at most once a run: a loss that is no number, and evidence that falls below a half of all.

    The second is sent by the first validation whose mean `val/evidence_in_lungs` lies below 0.5 after one of 0.5 or
    above: at the start of a training it lies anywhere, and a map that never was in the lungs is no news.
    """

    def __init__(self) -> None:
        self._was_inside = self._said = False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"was_inside": self._was_inside, "said": self._said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._was_inside, self._said = state_dict["was_inside"], state_dict["said"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch's share with that of the epochs before."""
        share = float(trainer.callback_metrics.get(_EVIDENCE, float("nan")))
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if share < MOSTLY_OUTSIDE and self._was_inside and not self._said:
            self._said = True
            text = (
                f"{_EVIDENCE} is {share:.3f} in epoch {trainer.current_epoch}, and was {MOSTLY_OUTSIDE} or above before"
            )
            _alert(trainer, "Evidence mostly outside the lungs", text)
        self._was_inside |= share >= MOSTLY_OUTSIDE

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say that the run has ended by its loss."""
        if isinstance(exception, NonFiniteLossError):
            _alert(trainer, "Loss is not finite", str(exception))


def _alert(trainer: Trainer, title: str, text: str) -> None:
    """Hand it to every tracker that takes alerts; there is none but on rank zero."""
    for logger in trainer.loggers:
        alert: Any = getattr(logger, "alert", None)
        if alert is not None:
            alert(title, text)
