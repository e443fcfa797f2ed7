"""What a sweep optimises, and when it stops a run early: sections `metric` and `early_terminate`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from lungseg.errors import SweepError, did_you_mean
from lungseg.sweeping.schema import check_keys, is_int, number, section_of

Goal = Literal["minimize", "maximize"]
_OF_WANDB_ALONE = ("impute", "impute_while_running")


@dataclass(frozen=True)
class Metric:
    """What the sweep optimises."""

    name: str
    goal: Goal
    target: float | None = None
    """No new run starts once one has reached it."""
    from_base: bool = False
    """The sweep file names none; this is `run.monitor` of the base config."""


@dataclass(frozen=True)
class Hyperband:
    """At each bracket the best `1 / eta` of the runs that reached it go on, the others are stopped.

    After Li et al., "Hyperband", JMLR 18 (2018), as W&B does it: bracket n is judged when a run has logged the metric n
    times. lungseg logs it once an epoch, so bracket n stands after n epochs.
    """

    strict: bool
    """Judge a run by its value at the bracket (true), or by its best so far (false)."""
    eta: float = 3.0
    min_iter: int | None = None
    """First bracket; each next one is `eta` times as far."""
    max_iter: int | None = None
    """Brackets at `max_iter / eta`, `max_iter / eta**2`, ..., `s` of them."""
    s: int | None = None

    def brackets(self, epochs: int) -> list[int]:
        """Epochs, counted from 1, after which a run of so many epochs is judged; the last epoch has nothing to save."""
        if self.max_iter is not None and self.s is not None:
            steps = [self.max_iter / self.eta**n for n in range(1, self.s + 1)]
        else:
            first = self.min_iter or 1
            steps = list(itertools.takewhile(lambda at: at < epochs, (first * self.eta**n for n in itertools.count())))
        return sorted({int(step) for step in steps if 1 <= step < epochs})


def read_metric(tree: Mapping[str, Any]) -> Metric:
    """Check the section `metric`; a mistake is a SweepError without the file."""
    section = section_of(tree, "metric")
    for key in _OF_WANDB_ALONE:
        if key in section:
            raise SweepError(f"metric: {key}: W&B knows it, sweeps of lungseg do not use it; leave it out")
    check_keys("metric", section, ("name", "goal", "target"))
    name, goal = section.get("name"), section.get("goal")
    if not isinstance(name, str) or not name:
        raise SweepError(f"metric: name: must be a logged metric such as 'val/score', got {name!r}")
    if goal is None:
        raise SweepError("metric: goal: missing, and W&B would minimize; say 'maximize' or 'minimize'")
    if goal not in ("minimize", "maximize"):
        near = did_you_mean(get_close_matches(str(goal), ("minimize", "maximize"), 1))
        raise SweepError(f"metric: goal: must be 'minimize' or 'maximize', got {goal!r}{near}")
    target = number("metric: target", section["target"]) if "target" in section else None
    return Metric(name, goal, target)


def read_hyperband(tree: Mapping[str, Any]) -> Hyperband:
    """Check the section `early_terminate`; a mistake is a SweepError without the file."""
    where = "early_terminate"
    section = section_of(tree, where)
    check_keys(where, section, ("type", "min_iter", "max_iter", "s", "eta", "strict"))
    if section.get("type") != "hyperband":
        raise SweepError(f"{where}: type: must be 'hyperband', all that W&B has, got {section.get('type')!r}")
    for key in ("min_iter", "max_iter", "s"):
        if key in section and not (is_int(section[key]) and section[key] >= 1):
            raise SweepError(f"{where}: {key}: must be a whole number >= 1, got {section[key]!r}")
    if ("min_iter" in section) == ("max_iter" in section) or ("max_iter" in section) != ("s" in section):
        raise SweepError(
            f"{where}: give either 'min_iter:', the epoch of the first bracket, or 'max_iter:' with 's:', the last "
            f"epoch and the number of brackets before it; got {', '.join(section)}"
        )
    eta = number(f"{where}: eta:", section.get("eta", 3))
    if eta <= 1:
        raise SweepError(f"{where}: eta: must be above 1, got {eta!r}; 3 lets a third of the runs go on")
    strict = section.get("strict")
    if not isinstance(strict, bool):
        given = "missing, and W&B's schema and program disagree on its default" if strict is None else f"got {strict!r}"
        raise SweepError(
            f"{where}: strict: {given}; say true to judge a run by its value at the bracket, false by its best so far"
        )
    return Hyperband(strict, eta, section.get("min_iter"), section.get("max_iter"), section.get("s"))
