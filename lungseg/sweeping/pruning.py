"""When a sweep stops a run early: W&B's section `early_terminate`, and the rule that it stands for."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lungseg.sweeping.schema import check_keys, is_int, number, require, section_of

History = Mapping[int, float]  # The metric of one run by how many times it had been logged: 1, 2, ...


@dataclass(frozen=True)
class Hyperband:
    """At each bracket the best `1 / eta` of the runs that reached it go on, the others are stopped.

    This is successive halving (Li et al., "Hyperband", JMLR 18, 2018) that waits for nobody, as W&B does it: bracket n
    is judged when a run has logged the metric n times, which lungseg does once an epoch.
    """

    strict: bool  # Judge a run by its value at the bracket (true), or by its best so far (false).
    eta: float = 3.0
    min_iter: int | None = None  # First bracket; each next one is `eta` times as far.
    max_iter: int | None = None  # Brackets at `max_iter / eta`, `max_iter / eta**2`, ..., `s` of them.
    s: int | None = None

    def brackets(self, epochs: int) -> list[int]:
        """Epochs, counted from 1, after which a run of so many epochs is judged; the last epoch has nothing to save."""
        if self.max_iter is not None and self.s is not None:
            steps = [self.max_iter / self.eta**n for n in range(1, self.s + 1)]
        else:
            first = self.min_iter or 1
            steps = list(itertools.takewhile(lambda at: at < epochs, (first * self.eta**n for n in itertools.count())))
        # W&B cuts fractions off, and of two brackets in the same epoch the second would judge nothing new.
        return sorted({int(step) for step in steps if 1 <= step < epochs})

    def is_behind(self, own: History, others: Sequence[History], epochs: int, goal: str) -> bool:
        """Whether a run, stopped by nothing `epochs` long, is not among the best at the last bracket it has reached.

        Of n runs that have reached the bracket, finished and stopped ones included, the best int(n / eta) + 1 go on:
        W&B's count, by which the first run to come is never stopped. (Optuna's pruner keeps n // eta, and at least 1.)
        What is not a number is worst, whatever the goal.
        """
        reached = [bracket for bracket in self.brackets(epochs) if bracket in own]
        if not reached:
            return False
        sign = 1 if goal == "maximize" else -1

        def score(history: History) -> float:
            counts = [reached[-1]] if self.strict else [count for count in history if count <= reached[-1]]
            return max(-math.inf if math.isnan(history[count]) else sign * history[count] for count in counts)

        mine = score(own)
        ranked = sorted([mine, *(score(other) for other in others if reached[-1] in other)], reverse=True)
        # The last rank that goes on has index int(n / eta); an equal value goes on with it.
        return mine == -math.inf or mine < ranked[min(int(len(ranked) / self.eta), len(ranked) - 1)]


def read_hyperband(tree: Mapping[str, Any]) -> Hyperband:
    """Check the section `early_terminate`."""
    where = "early_terminate"
    section = section_of(tree, where)
    check_keys(where, section, ("type", "min_iter", "max_iter", "s", "eta", "strict"))
    kind, strict = section.get("type"), section.get("strict")
    require(kind == "hyperband", f"{where}: type: must be 'hyperband', all that W&B has, got {kind!r}")
    counts = {key: section[key] for key in ("min_iter", "max_iter", "s") if key in section}
    for key, count in counts.items():
        require(is_int(count) and count >= 1, f"{where}: {key}: must be a whole number >= 1, got {count!r}")
    require(
        set(counts) in ({"min_iter"}, {"max_iter", "s"}),
        f"{where}: give either 'min_iter:', the epoch of the first bracket, or 'max_iter:' with 's:', the last "
        f"epoch and the number of brackets before it; got {', '.join(section)}",
    )
    eta = number(f"{where}: eta:", section.get("eta", 3))
    require(eta > 1, f"{where}: eta: must be above 1, got {eta!r}; 3 lets a third of the runs go on")
    given = "missing, and W&B's schema and program disagree on its default" if strict is None else f"got {strict!r}"
    require(
        isinstance(strict, bool),
        f"{where}: strict: {given}; say true to judge a run by its value at the bracket, false by its best so far",
    )
    return Hyperband(bool(strict), eta, **counts)
