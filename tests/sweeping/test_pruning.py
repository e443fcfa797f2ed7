"""When a run is stopped early: the rule, its way through the journal, and the callback on all ranks."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from lungseg.callbacks import pruning

from lungseg.training.pruning import PruningCallback, trial_callbacks
from lungseg.training.trial import JOURNAL, LIFELINE, TRIAL, RunningTrial, is_behind, open_journal

RULE: dict[str, Any] = {"brackets": [2, 4], "eta": 3.0, "strict": True}


def _after(*values: float) -> dict[int, float]:
    return dict(enumerate(values, 1))


def test_the_first_run_is_never_stopped() -> None:
    assert not is_behind([_after(0.1, 0.1)], 0, **RULE)


def test_nobody_is_judged_before_the_first_bracket() -> None:
    assert not is_behind([_after(0.9, 0.9), _after(0.1)], 1, **RULE)


@pytest.mark.parametrize(("value", "behind"), [(0.75, False), (0.65, False), (0.55, True)])
def test_of_four_runs_at_a_bracket_the_best_two_go_on_as_w_and_b_counts(value: float, behind: bool) -> None:
    others = [_after(0.0, high) for high in (0.7, 0.6, 0.5)]  # int(4 / 3) + 1 = 2
    assert is_behind([*others, _after(0.9, value)], 3, **RULE) is behind


def test_runs_that_have_not_come_so_far_do_not_count() -> None:
    histories = [_after(0.9), _after(0.1, 0.2), _after(0.1, 0.3)]
    assert not is_behind(histories, 2, **RULE) and is_behind(histories, 1, **RULE)


def test_smaller_is_better_where_the_goal_is_to_minimise() -> None:
    histories = [_after(1.0, 0.5), _after(1.0, 0.9)]
    assert is_behind(histories, 1, sign=-1, **RULE) and not is_behind(histories, 0, sign=-1, **RULE)


def test_strict_judges_by_the_value_at_the_bracket_else_by_the_best_so_far() -> None:
    histories = [_after(0.1, 0.5), _after(0.8, 0.4)]
    assert is_behind(histories, 1, **RULE)
    assert not is_behind(histories, 1, **RULE | {"strict": False})


def test_a_run_is_judged_by_the_last_bracket_it_has_reached() -> None:
    histories = [_after(0.1, 0.5, 0.5, 0.5), _after(0.1, 0.4, 0.6, 0.6)]
    assert not is_behind(histories, 1, **RULE)
    assert is_behind(histories, 1, **RULE | {"brackets": [2]})


def test_a_run_that_is_no_number_is_stopped_even_if_it_is_alone() -> None:
    assert is_behind([_after(0.1, math.nan)], 0, **RULE)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A sweep with a finished run of 0.5 a time, and a run that has just been handed out."""
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_journal(path), study_name="sweep", direction="maximize")
    study.set_user_attr("metric", "val/score")
    for number in range(2):
        trial = study.ask()
        trial.set_user_attr("hyperband", RULE)
        if number == 0:
            for count in range(1, 6):
                trial.report(0.5, count)
            study.tell(trial, 0.5)
    return path


def test_reports_reach_the_journal_and_the_answer_comes_back(journal: Path) -> None:
    running = RunningTrial(journal, 1)
    assert not running.report(0.1, 1)
    assert running.report(0.2, 2)
    running.stopped(2)
    trial = optuna.load_study(study_name="sweep", storage=open_journal(journal)).get_trials()[1]
    assert trial.intermediate_values == {1: 0.1, 2: 0.2} and trial.user_attrs["stopped_after"] == 2


def test_a_resumed_run_may_report_an_epoch_again(journal: Path, recwarn: pytest.WarningsRecorder) -> None:
    RunningTrial(journal, 1).report(0.1, 1)
    running = RunningTrial(journal, 1)
    assert not running.report(0.3, 1) and not running.report(0.6, 2)
    assert not recwarn.list


class _Strategy:
    def __init__(self, decided: bool | None = None):
        self.decided, self.sent = decided, []

    def broadcast(self, value: bool) -> bool:
        self.sent.append(value)
        return value if self.decided is None else self.decided


def _trainer(epoch: int, score: float, zero: bool = True, decided: bool | None = None) -> Any:
    return SimpleNamespace(
        is_global_zero=zero,
        current_epoch=epoch,
        max_epochs=4,
        callback_metrics={"val/score": torch.tensor(score)},
        strategy=_Strategy(decided),
        should_stop=False,
    )


def _epoch(callback: PruningCallback, trainer: Any) -> bool:
    callback.on_train_epoch_end(trainer, SimpleNamespace())
    return bool(trainer.should_stop)


def test_the_callback_stops_the_training_after_the_epoch_in_which_it_fell_behind(journal: Path) -> None:
    callback = PruningCallback(journal, 1)
    assert not _epoch(callback, _trainer(0, 0.1))
    assert _epoch(callback, _trainer(1, 0.2))
    trial = optuna.load_study(study_name="sweep", storage=open_journal(journal)).get_trials()[1]
    assert trial.user_attrs["stopped_after"] == 2


def test_the_last_epoch_is_reported_and_not_judged(journal: Path) -> None:
    assert not _epoch(PruningCallback(journal, 1), _trainer(3, 0.0))
    trial = optuna.load_study(study_name="sweep", storage=open_journal(journal)).get_trials()[1]
    assert trial.intermediate_values == {4: 0.0} and "stopped_after" not in trial.user_attrs


@pytest.mark.parametrize("decided", [True, False])
def test_other_ranks_open_nothing_and_do_what_rank_zero_decided(tmp_path: Path, decided: bool) -> None:
    trainer = _trainer(1, 0.0, zero=False, decided=decided)
    assert _epoch(PruningCallback(tmp_path / "none.log", 1), trainer) is decided
    assert trainer.strategy.sent == [False] and not list(tmp_path.iterdir())


def test_a_training_of_its_own_gets_no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOURNAL, raising=False)
    assert trial_callbacks() == []


def test_a_training_of_a_sweep_gets_it(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    monkeypatch.setattr(pruning, "hold_lifeline", lambda: held.append(True))
    monkeypatch.setenv(JOURNAL, str(journal))
    monkeypatch.setenv(TRIAL, "1")
    monkeypatch.setenv(LIFELINE, "99")
    (callback,) = trial_callbacks()
    assert held and isinstance(callback, PruningCallback) and _epoch(callback, _trainer(1, 0.2))
