"""The runs of a local sweep as plain rows, and the importance of its parameters: for the table, the plots, the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

State = Literal["finished", "stopped", "failed", "running", "waiting"]
BEST_SHARE = 0.25
"""Importance is what tells the best quarter of the runs from all of them."""
FEWEST = 6
"""Runs below which importance would be a guess."""


@dataclass(frozen=True)
class Row:
    """One run."""

    number: int
    state: State
    value: float | None
    """The sweep's metric; of a stopped run where it was stopped."""
    epochs: int
    minutes: float | None
    values: Mapping[str, Any]
    """By full key of the config."""
    error: str = ""


def rows_of(study: Study) -> list[Row]:
    """All runs, in the order in which they were drawn."""
    return [_row(trial) for trial in study.get_trials(deepcopy=False)]


def best_of(rows: Sequence[Row], sign: int) -> Row | None:
    """The finished run with the best value; `sign` is -1 where smaller is better."""
    done = [row for row in rows if row.state == "finished" and row.value is not None]
    return max(done, key=lambda row: sign * (row.value or 0.0), default=None)


def importance(study: Study) -> dict[str, float]:
    """Share of each parameter in what sets the best quarter of the runs apart; sum 1, largest first.

    PED-ANOVA (Watanabe et al., IJCAI 2023). Runs that were stopped count with their last value: without them, as Optuna
    has it by default, there would be no bad runs to tell the good ones from. Empty for fewer than `FEWEST` runs.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    told = [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.value is not None
    ]
    names = {name for trial in told for name, kind in trial.distributions.items() if not kind.single()}
    if len(told) < FEWEST or not names:
        return {}
    copy = optuna.create_study(direction=study.direction)
    for trial in told:
        drawn = {name: value for name, value in trial.params.items() if name in names}
        kinds = {name: kind for name, kind in trial.distributions.items() if name in names}
        copy.add_trial(optuna.trial.create_trial(params=drawn, distributions=kinds, value=trial.value))
    shares = get_param_importances(copy, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE))
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def _row(trial: FrozenTrial) -> Row:
    states: dict[str, State] = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed"}
    states |= {"RUNNING": "running", "WAITING": "waiting"}
    known = trial.intermediate_values
    minutes = None if trial.duration is None else trial.duration.total_seconds() / 60
    return Row(
        number=trial.number,
        state=states[trial.state.name],
        value=trial.value if trial.value is not None else known[max(known)] if known else None,
        epochs=trial.user_attrs.get("epochs", max(known, default=0)),
        minutes=minutes,
        values=trial.user_attrs.get("values", {}),
        error=trial.user_attrs.get("error", ""),
    )
