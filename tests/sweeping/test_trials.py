"""Each of W&B's ways to say what is tried, in Optuna's terms."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lungseg.sweeping.parameter import DISTRIBUTIONS, Parameter, read_parameter
from lungseg.sweeping.spec import Metric, Sweep
from lungseg.sweeping.trials import draw, sampler


def _parameter(kind: str, **numbers: float) -> Parameter:
    return Parameter("p", kind, numbers=numbers)


class _Drawn(optuna.trial.FixedTrial):
    """A trial for which Optuna has drawn this."""

    def __init__(self, drawn: Any):
        super().__init__({"p": drawn})


def _value(parameter: Parameter, drawn: Any) -> Any:
    return draw(_Drawn(drawn), parameter, grid=False)  # type: ignore[arg-type]  # Optuna's stand-in for a Trial


def _draw(space: dict[str, Parameter], method: Any, count: int) -> list[dict[str, Any]]:
    sweep = Sweep(
        Path("s"), "s", method, Metric("m", "minimize"), space, None, None, (), Path("b"), (), None, None, None
    )
    study = optuna.create_study()
    drawn: list[dict[str, Any]] = []

    def run(trial: optuna.Trial) -> float:
        drawn.append({name: draw(trial, parameter, method == "grid") for name, parameter in space.items()})
        return float(trial.number)

    for number in range(count):
        study.sampler = sampler(sweep, seed=number)
        study.optimize(run, n_trials=1)
    return drawn


@pytest.mark.parametrize(
    ("parameter", "distribution"),
    [
        (_parameter("uniform", min=0.5, max=2.0), FloatDistribution(0.5, 2.0)),
        (_parameter("int_uniform", min=2, max=5), IntDistribution(2, 5)),
        (_parameter("log_uniform_values", min=1e-5, max=0.1), FloatDistribution(1e-5, 0.1, log=True)),
        (_parameter("inv_log_uniform_values", min=1e-5, max=0.1), FloatDistribution(1e-5, 0.1, log=True)),
        (_parameter("q_uniform", min=0.1, max=0.7, q=0.1), IntDistribution(1, 7)),
        (_parameter("q_log_uniform_values", min=8, max=64, q=8), FloatDistribution(8, 64, log=True)),
        (_parameter("normal", mu=1.0, sigma=2.0), FloatDistribution(0.0, 1.0)),
        (Parameter("p", "values", ("a", None, [64, 32])), CategoricalDistribution(["'a'", "None", "[64, 32]"])),
    ],
    ids=lambda value: value.kind if isinstance(value, Parameter) else "",
)
def test_distribution(parameter: Parameter, distribution: Any) -> None:
    trial = optuna.create_study().ask()
    draw(trial, parameter, grid=False)
    assert trial.distributions == {"p": distribution}


@pytest.mark.parametrize(
    ("parameter", "drawn", "value"),
    [
        (_parameter("uniform", min=0.5, max=2.0), 1.25, 1.25),
        (_parameter("q_uniform", min=0.1, max=0.7, q=0.1), 3, 0.3),
        (_parameter("q_uniform", min=8, max=64, q=8), 3, 24),
        (_parameter("q_log_uniform_values", min=8, max=64, q=8), 21.0, 24),
        (_parameter("normal", mu=1.0, sigma=2.0), 0.5, 1.0),
        (_parameter("normal", mu=1.0, sigma=2.0), 0.8413447460685429, 3.0),
        (_parameter("log_normal", mu=1.0, sigma=2.0), 0.5, math.e),
        (_parameter("q_normal", mu=1.0, sigma=2.0, q=0.5), 0.9, 3.5),
        (_parameter("beta", a=1.0, b=1.0), 0.3, 0.3),
        (_parameter("beta", a=2.0, b=1.0), 0.25, 0.5),
        (_parameter("q_beta", a=1.0, b=1.0, q=0.25), 0.3, 0.25),
        (Parameter("p", "values", ("a", None, [64, 32])), "[64, 32]", [64, 32]),
        (Parameter("p", "values", ("a", "b"), (0.25, 0.75)), 0.2, "a"),
        (Parameter("p", "values", ("a", "b"), (0.25, 0.75)), 0.3, "b"),
        (Parameter("p", "values", ("a", "b", "c"), (0.25, 0.75, 0.0)), 1.0, "b"),
    ],
)
def test_value_of_a_draw(parameter: Parameter, drawn: Any, value: Any) -> None:
    assert _value(parameter, drawn) == (pytest.approx(value) if isinstance(value, float) else value)
    assert type(_value(parameter, drawn)) is type(value)


def test_steps_are_written_without_the_noise_of_binary_fractions() -> None:
    assert str(_value(_parameter("q_uniform", min=0.1, max=0.7, q=0.1), 3)) == "0.3"


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("method", ["random", "bayes"])
def test_every_distribution_is_drawn_finite_and_inside_its_ends(kind: str, method: str) -> None:
    section = {"distribution": kind} | ({"min": 2, "max": 6} if "min" in DISTRIBUTIONS[kind] else {})
    drawn = [one["p"] for one in _draw({"p": read_parameter("p", section)}, method, 15)]
    assert all(math.isfinite(value) for value in drawn) and len(set(drawn)) > 1
    assert all(2 <= value <= 6 for value in drawn) or "min" not in section
    assert all(0 <= value <= 1 for value in drawn) or "a" not in DISTRIBUTIONS[kind]


def test_probabilities_are_kept() -> None:
    space = {"p": Parameter("p", "values", ("rare", "often"), (0.1, 0.9))}
    assert 0 < Counter(one["p"] for one in _draw(space, "random", 100))["rare"] < 25


def test_grid_gives_every_point_once_lists_included() -> None:
    space = {
        "a": Parameter("a", "values", ([64, 32], [16, 8], None)),
        "b": Parameter("b", "int_uniform", numbers={"min": 1, "max": 2}),
        "c": Parameter("c", "value", (True,)),
    }
    points = [tuple(map(repr, one.values())) for one in _draw(space, "grid", 6)]
    assert len(set(points)) == 6
    assert {point[2] for point in points} == {"True"} and {point[1] for point in points} == {"1", "2"}
    assert {point[0] for point in points} == {"[64, 32]", "[16, 8]", "None"}


def test_random_values_depend_on_the_seed_alone() -> None:
    space = {"lr": _parameter("uniform", min=0.0, max=1.0)}
    assert _draw(space, "random", 5) == _draw(space, "random", 5)
    assert len({one["lr"] for one in _draw(space, "random", 5)}) == 5


def test_bayes_goes_where_the_best_were() -> None:
    lr = Parameter("lr", "log_uniform_values", numbers={"min": 1e-6, "max": 1.0})
    sweep = Sweep(
        Path("s"), "s", "bayes", Metric("m", "maximize"), {"lr": lr}, None, None, (), Path("b"), (), None, None, None
    )
    study = optuna.create_study(direction="maximize")
    for number in range(40):
        study.sampler = sampler(sweep, seed=number)
        trial = study.ask()
        study.tell(trial, -abs(math.log10(draw(trial, lr, grid=False)) + 3))
    near = [abs(math.log10(trial.params["lr"]) + 3) < 0.5 for trial in study.get_trials()]
    assert sum(near[20:]) > sum(near[:20]) + 3
