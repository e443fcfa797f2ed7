"""One parameter of a sweep: a value, a list of values or one of W&B's distributions, and values that stand for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from lungseg.errors import SweepError, did_you_mean
from lungseg.sweeping.schema import check_keys, is_int, number

_RANGE: dict[str, float | None] = {"min": None, "max": None}
_NORMAL: dict[str, float | None] = {"mu": 0.0, "sigma": 1.0}
_BETA: dict[str, float | None] = {"a": 1.0, "b": 1.0}
_STEP: dict[str, float | None] = {"q": 1.0}
DISTRIBUTIONS: Mapping[str, Mapping[str, float | None]] = {
    "uniform": _RANGE,
    "int_uniform": _RANGE,
    "q_uniform": _RANGE | _STEP,
    "log_uniform_values": _RANGE,
    "inv_log_uniform_values": _RANGE,
    "q_log_uniform_values": _RANGE | _STEP,
    "normal": _NORMAL,
    "q_normal": _NORMAL | _STEP,
    "log_normal": _NORMAL,
    "q_log_normal": _NORMAL | _STEP,
    "beta": _BETA,
    "q_beta": _BETA | _STEP,
}
"""Numbers that W&B takes for each distribution, with its defaults; None must be given."""
_BY_EXPONENT = ("log_uniform", "inv_log_uniform", "q_log_uniform")
_INSIDE = 0.381966  # a place inside a range that is no round number
_SIGMAS = 3.0  # how far out a distribution without ends is tried


@dataclass(frozen=True)
class Parameter:
    """One key of the config that the sweep sets."""

    name: str
    """Full key, `optim.lr`."""
    kind: str
    """`value`, `values`, or a key of `DISTRIBUTIONS`."""
    values: tuple[Any, ...] = ()
    """What `value` and `values` list, as YAML gave it."""
    probabilities: tuple[float, ...] | None = None
    """One a value, sum 1; None: all alike."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Numbers of a distribution under W&B's names (min, max, q, mu, sigma, a, b), defaults filled in."""

    def grid_values(self) -> list[Any] | None:
        """Values that a grid tries, as W&B's does (`q_uniform` stops before max); None if they cannot be counted."""
        low, high = self.numbers.get("min", 0), self.numbers.get("max", 0)
        if self.kind in ("value", "values") and self.probabilities is None:
            return list(self.values)
        if self.kind == "int_uniform":
            return list(range(int(low), int(high) + 1))
        if self.kind == "q_uniform":
            step = self.numbers["q"]
            return [low + index * step for index in range(math.ceil((high - low) / step))]
        return None

    def samples(self) -> list[Any]:
        """Values that show whether the config takes the range: every one listed, or both ends and one between.

        A normal distribution has no ends; it is tried three standard deviations out.
        """
        if self.kind in ("value", "values"):
            return list(self.values)
        low, inside, high = self._span()
        if self.kind == "int_uniform":
            return [int(low), int(high)]
        step = self.numbers.get("q")
        return [low, inside, high] if step is None else [round(end / step) * step for end in (low, high)]

    def describe(self) -> str:
        """Say in a few words what is tried."""
        if self.kind == "value":
            return f"{self.values[0]!r} in every run"
        if self.kind == "values":
            return ", ".join(map(repr, self.values))
        return f"{self.kind}, " + ", ".join(f"{name} {value:g}" for name, value in self.numbers.items())

    def _span(self) -> tuple[float, float, float]:
        """Low end, a place inside, high end."""
        numbers = self.numbers
        if "min" in numbers:
            low, high = numbers["min"], numbers["max"]
            inside = low * (high / low) ** _INSIDE if "log" in self.kind else low + _INSIDE * (high - low)
            return low, inside, high
        if "a" in numbers:
            return 0.0, _INSIDE, 1.0
        steps = (numbers["mu"] + far * numbers["sigma"] for far in (-_SIGMAS, _INSIDE, _SIGMAS))
        low, inside, high = (math.exp(step) if "log" in self.kind else step for step in steps)
        return low, inside, high


def read_parameter(name: str, section: object) -> Parameter:
    """Check what the YAML says of one parameter; a mistake is a SweepError without the file."""
    if not isinstance(section, dict) or not section:
        raise SweepError(f"{name}: must hold 'value:', 'values:' or 'min:' and 'max:', got {section!r}")
    if "parameters" in section:
        raise SweepError(
            f"{name}: nested parameters reach the run as one word {name}={{...}}; write them with dots, {name}.KEY:"
        )
    kind = _kind(name, section)
    if kind == "value":
        check_keys(name, section, ("value", "distribution"))
        return Parameter(name, kind, (section["value"],))
    if kind == "values":
        return _read_values(name, section)
    check_keys(name, section, ("distribution", *DISTRIBUTIONS[kind]))
    return Parameter(name, kind, numbers=_read_numbers(name, kind, section))


def _kind(name: str, section: Mapping[str, Any]) -> str:
    """The distribution named, or the one that W&B takes for the keys there are."""
    named = section.get("distribution")
    if named in _BY_EXPONENT:
        raise SweepError(
            f"{name}: {named} is deprecated by W&B, its ends are exponents of e; {_as_values(section, named)}"
        )
    if named is not None:
        kinds = {"constant": "value", "categorical": "values", "categorical_w_probabilities": "values"}
        kinds |= {kind: kind for kind in DISTRIBUTIONS}
        if named not in kinds:
            near = did_you_mean(get_close_matches(str(named), kinds, 1))
            raise SweepError(f"{name}: distribution must be one of {', '.join(kinds)}, got {named!r}{near}")
        kind = kinds[named]
        if kind in ("value", "values") and kind not in section:
            raise SweepError(f"{name}: {named} needs '{kind}:'")
        return kind
    for kind in ("value", "values"):
        if kind in section:
            return kind
    if "min" not in section and "max" not in section:
        check_keys(name, section, ("value", "values", "min", "max", "distribution"))
    whole = is_int(section.get("min")) and is_int(section.get("max"))
    return "int_uniform" if whole else "uniform"


def _as_values(section: Mapping[str, Any], named: str) -> str:
    """Write the same range with the distribution that takes real ends."""
    low, high = section.get("min"), section.get("max")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or max(abs(low), abs(high)) > 300:
        return f"write {named}_values with the real ends"
    if low >= 0:  # exponents of a learning rate are below 0: these are real ends already
        return f"did you mean '{named}_values'?"
    ends = (-high, -low) if named.startswith("inv") else (low, high)
    return f"write {named}_values with min: {math.exp(ends[0]):.6g}, max: {math.exp(ends[1]):.6g}"


def _read_values(name: str, section: Mapping[str, Any]) -> Parameter:
    check_keys(name, section, ("values", "probabilities", "distribution"))
    values, shares = section["values"], section.get("probabilities")
    if not isinstance(values, list) or not values:
        raise SweepError(f"{name}: values must be a list with something in it, got {values!r}")
    twice = [value for index, value in enumerate(values) if any(_same(value, other) for other in values[:index])]
    if twice:
        raise SweepError(f"{name}: values hold {twice[0]!r} twice")
    if shares is None:
        if section.get("distribution") == "categorical_w_probabilities":
            raise SweepError(f"{name}: categorical_w_probabilities needs 'probabilities:'")
        return Parameter(name, "values", tuple(values))
    shares = [number(f"{name}: probabilities", share) for share in shares] if isinstance(shares, list) else []
    if len(shares) != len(values) or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-8):
        raise SweepError(
            f"{name}: probabilities must be {len(values)} numbers >= 0 of sum 1, got {section['probabilities']!r}"
        )
    return Parameter(name, "values", tuple(values), tuple(shares))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _read_numbers(name: str, kind: str, section: Mapping[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, default in DISTRIBUTIONS[kind].items():
        if key not in section and default is None:
            raise SweepError(f"{name}: {kind} needs '{key}:'")
        numbers[key] = number(f"{name}: {key}", section.get(key, default))
        if not math.isfinite(numbers[key]):
            raise SweepError(f"{name}: {key} must be finite, got {numbers[key]!r}")
    if kind == "int_uniform" and not all(map(is_int, numbers.values())):
        raise SweepError(f"{name}: int_uniform needs whole numbers, got {numbers['min']!r} and {numbers['max']!r}")
    if "min" in numbers and numbers["min"] >= numbers["max"]:
        raise SweepError(f"{name}: min must be below max, got {numbers['min']!r} and {numbers['max']!r}")
    for key in ("q", "a", "b", *(["min"] if "log" in kind else [])):
        if numbers.get(key, 1) <= 0:
            raise SweepError(f"{name}: {key} of {kind} must be above 0, got {numbers[key]!r}")
    if numbers.get("sigma", 0) < 0:
        raise SweepError(f"{name}: sigma must be >= 0, got {numbers['sigma']!r}")
    return numbers
