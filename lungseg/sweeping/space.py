"""The space of a sweep in Optuna's terms: a distribution for each parameter, and the value that a draw from it means.

Optuna has floats, whole numbers and choices. What W&B knows besides (normal, beta, values with probabilities) is drawn
as a quantile, a float in [0, 1], and looked up in the distribution: the same law, and TPE still sees what is near what.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from lungseg.sweeping.parameter import Parameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Space = Mapping[str, Parameter]
_EDGE = 1e-6  # a normal distribution's quantiles 0 and 1 lie at infinity


def distributions(space: Space, method: str) -> dict[str, BaseDistribution]:
    """Give what Optuna draws from, by parameter; one of a single `value` is not drawn."""
    from optuna.distributions import CategoricalDistribution

    if method == "grid":
        return {name: CategoricalDistribution(words) for name, words in _grid(space).items()}
    return {name: _distribution(parameter) for name, parameter in space.items() if parameter.kind != "value"}


def sampler(space: Space, method: str, seed: int) -> BaseSampler:
    """Build what draws one run: Optuna's grid, random or TPE sampler.

    Args:
        space: The parameters.
        method: Of the sweep; `bayes` is the tree-structured Parzen estimator.
        seed: A number of its own for every run, else a resumed sweep would draw its first runs again.
    """
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    class Grid(GridSampler):
        def after_trial(self, *_: Any) -> None:
            """Nothing: the sweep counts its points itself, and ask-and-tell has no loop that Optuna's could stop."""

    if method == "grid":
        return Grid(_grid(space), seed=0)  # one order in all processes: point n is run n
    return RandomSampler(seed=seed) if method == "random" else TPESampler(seed=seed, constant_liar=True)


def grid_size(space: Space) -> int:
    """Count the points of a grid."""
    return math.prod(len(words) for words in _grid(space).values())


def values(space: Space, method: str, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what Optuna drew into the value of every parameter, those of a single `value` included."""
    found: dict[str, Any] = {}
    for name, parameter in space.items():
        if parameter.kind == "value":
            found[name] = parameter.values[0]
        elif method == "grid":
            options = parameter.grid_values() or []
            found[name] = options[_words(options).index(drawn[name])]
        else:
            found[name] = _value(parameter, drawn[name])
    return found


def _grid(space: Space) -> dict[str, list[str]]:
    """Choices of a grid as text: a list such as `[64, 32]` is none that Optuna takes."""
    return {name: _words(p.grid_values() or []) for name, p in space.items() if p.kind != "value"}


def _words(options: list[Any] | tuple[Any, ...]) -> list[str]:
    return [repr(option) for option in options]


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, numbers = parameter.kind, parameter.numbers
    if kind == "values" and parameter.probabilities is None:
        return CategoricalDistribution(_words(parameter.values))
    if "min" not in numbers:
        return FloatDistribution(0.0, 1.0)
    low, high = numbers["min"], numbers["max"]
    if kind == "int_uniform":
        return IntDistribution(int(low), int(high))
    if kind == "q_uniform":
        return IntDistribution(round(low / numbers["q"]), round(high / numbers["q"]))
    return FloatDistribution(low, high, log="log" in kind)


def _value(parameter: Parameter, drawn: Any) -> Any:
    kind, numbers = parameter.kind, parameter.numbers
    if kind == "values":
        return parameter.values[_choice(parameter, drawn)]
    if kind == "q_uniform":
        return _step(drawn, numbers["q"])
    value = drawn if "min" in numbers else _quantile(parameter, drawn)
    return _step(round(value / numbers["q"]), numbers["q"]) if "q" in numbers else value


def _choice(parameter: Parameter, drawn: Any) -> int:
    """Position of the value; a quantile falls into one of the shares that the probabilities cut [0, 1] into."""
    if parameter.probabilities is None:
        return _words(parameter.values).index(drawn)
    ends = list(accumulate(parameter.probabilities))
    last = max(index for index, share in enumerate(parameter.probabilities) if share > 0)
    return min(bisect(ends, drawn), last)


def _step(steps: int, width: float) -> float:
    """Multiply without the noise of binary fractions (3 * 0.1); whole where the step is whole."""
    return steps * width if isinstance(width, int) else float(f"{steps * width:.12g}")


def _quantile(parameter: Parameter, share: float) -> float:
    numbers = parameter.numbers
    if "a" in numbers:
        from scipy.special import betaincinv

        return float(betaincinv(numbers["a"], numbers["b"], share))
    inside = min(max(share, _EDGE), 1 - _EDGE)
    value = numbers["mu"] + numbers["sigma"] * NormalDist().inv_cdf(inside)
    return math.exp(value) if "log" in parameter.kind else value
