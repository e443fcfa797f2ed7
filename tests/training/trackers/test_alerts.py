from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

import lungseg.training.trackers.wandb_start as wandb_start
from lungseg import fit
from lungseg.command import run_command
from lungseg.training.module import LungModule
from lungseg.training.trackers.alerts import AlertCallback
from lungseg.training.trackers.guarded import GuardedTracker
from lungseg.training.trackers.wandb_tracker import WandbTracker


class Taking:
    """A tracker that takes alerts."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, str]] = []

    def alert(self, title: str, text: str) -> None:
        self.alerts.append((title, text))


def _told(shares: list[float], sanity: bool = False) -> list[tuple[str, str]]:
    taking, callback = Taking(), AlertCallback()
    for epoch, share in enumerate(shares):
        trainer: Any = SimpleNamespace(
            callback_metrics={"val/evidence_in_lungs": torch.tensor(share)},
            sanity_checking=sanity,
            state=SimpleNamespace(fn=TrainerFn.FITTING),
            current_epoch=epoch,
            loggers=[GuardedTracker(taking, "W&B"), GuardedTracker(object(), "takes none")],
        )
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    return taking.alerts


def test_evidence_that_falls_below_a_half_is_told_once() -> None:
    assert _told([0.2, 0.6, 0.45, 0.7, 0.3]) == [
        (
            "Evidence mostly outside the lungs",
            "val/evidence_in_lungs is 0.450 in epoch 2, and was 0.5 or above before",
        )
    ]
    assert _told([0.2, 0.3, 0.4]) == [], "it never was in the lungs"
    assert _told([0.5, float("nan"), 0.9]) == [] == _told([0.6, 0.4], sanity=True)


def test_a_loss_that_is_no_number_is_told_when_alerts_are_asked_for(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(WandbTracker, "alert", lambda _, title, text: told.append((title, text)))
    monkeypatch.setattr(WandbTracker, "log_metrics", lambda *_: None)
    monkeypatch.setattr(WandbTracker, "experiment", None)
    monkeypatch.setattr(WandbTracker, "finalize", lambda *_: None)
    tracker = WandbTracker(images=False, save_dir=tmp_path, offline=True)
    monkeypatch.setattr(wandb_start, "_wandb_tracker", lambda *_, **__: tracker)

    def total(self: LungModule, means: dict[str, torch.Tensor], ramp: float = 1.0) -> torch.Tensor:
        return torch.stack(list(means.values())).sum() * float("nan")

    monkeypatch.setattr(LungModule, "_total", total)
    words = [
        *("data.image_size=64", "data.batch_size=4", "data.workers=0", "trainer.accelerator=cpu", "run.report=false"),
        *("model.encoder=tu-test_efficientnet", "model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]"),
        *(f"data.root={phantoms}", f"run.dir={tmp_path}", "wandb.mode=offline"),
    ]
    torch.set_num_threads(1)
    assert run_command(fit.main, fit._parser(), [*words, "run.name=silent"]) == 2 and not told
    assert run_command(fit.main, fit._parser(), [*words, "run.name=told", "wandb.alerts=true"]) == 2
    ((title, text),) = told
    assert title == "Loss is not finite" and text.startswith("train/loss is nan in epoch 0; lower optim.lr")
