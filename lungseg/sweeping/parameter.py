"""One parameter of a sweep: a value, a list of values or one of W&B's distributions, and the values it stands for."""

import math
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from lungseg.errors import SweepError
from lungseg.sweeping.schema import check_keys, is_int, nearest, number, require

DISTRIBUTIONS: dict[str, tuple[str, ...]] = dict.fromkeys(("normal", "log_normal"), ("mu", "sigma"))
DISTRIBUTIONS |= {"beta": ("a", "b"), "uniform": ("min", "max"), "log_uniform_values": ("min", "max")}
DISTRIBUTIONS |= {f"q_{kind}": (*keys, "q") for kind, keys in DISTRIBUTIONS.items()}
DISTRIBUTIONS |= dict.fromkeys(("int_uniform", "inv_log_uniform_values"), ("min", "max"))
"""Numbers that W&B takes for each distribution."""
_KEYS = DISTRIBUTIONS | {"value": ("value",), "values": ("values", "probabilities")}
_DEFAULTS = {"mu": 0.0, "sigma": 1.0, "a": 1.0, "b": 1.0, "q": 1.0}
_LISTS = {"constant": "value", "categorical": "values", "categorical_w_probabilities": "values"}
_INSIDE = 0.381966  # a place inside a range that is no round number
_TAIL = NormalDist().cdf(-3)  # a distribution without ends is tried three standard deviations out


@dataclass(frozen=True)
class Parameter:
    """One key of the config that the sweep sets."""

    name: str  # Full key, `optim.lr`.
    kind: str  # `value`, `values`, or a key of `DISTRIBUTIONS`.
    values: tuple[Any, ...] = ()  # What `value` and `values` list, as YAML gave it.
    probabilities: tuple[float, ...] | None = None  # One a value, sum 1; None: all alike.
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
        """Values that show whether the config takes the range: every one listed, or both ends and one between."""
        if self.kind in ("value", "values"):
            return list(self.values)
        end = _TAIL if "mu" in self.numbers else 0.0
        return [self.at(share) for share in (end, _INSIDE, 1 - end)]

    def at(self, share: float) -> Any:
        """Give the value below which this share of all draws lies, `share` in [0, 1]."""
        if self.probabilities is not None:
            last = max(index for index, part in enumerate(self.probabilities) if part > 0)
            return self.values[min(bisect(list(accumulate(self.probabilities)), share), last)]
        numbers = self.numbers
        if "min" in numbers:
            low, high = numbers["min"], numbers["max"]
            value = low * (high / low) ** share if "log" in self.kind else low + share * (high - low)
        elif "a" in numbers:
            from scipy.special import betaincinv

            value = float(betaincinv(numbers["a"], numbers["b"], share))
        else:
            inside = min(max(share, 1e-6), 1 - 1e-6)  # the quantiles 0 and 1 lie at infinity
            value = numbers["mu"] + numbers["sigma"] * NormalDist().inv_cdf(inside)
            value = math.exp(value) if "log" in self.kind else value
        return round(value) if self.kind == "int_uniform" else self.rounded(value)

    def rounded(self, value: float) -> float:
        """Take a value to the nearest multiple of `q`, if the distribution has one.

        The noise of binary fractions (3 * 0.1) goes, and the value is a whole number where `q` is one.
        """
        step = self.numbers.get("q")
        if step is None:
            return value
        multiple = round(value / step) * step
        return multiple if isinstance(step, int) else float(f"{multiple:.12g}")

    def describe(self) -> str:
        """Say in a few words what is tried."""
        if self.kind == "value":
            return f"{self.values[0]!r} in every run"
        if self.kind == "values":
            return ", ".join(map(repr, self.values))
        return f"{self.kind}, " + ", ".join(f"{name} {value:g}" for name, value in self.numbers.items())


def read_parameter(name: str, section: object) -> Parameter:
    """Check what the YAML says of one parameter."""
    if not isinstance(section, dict) or not section:
        raise SweepError(f"{name}: must hold 'value:', 'values:' or 'min:' and 'max:', got {section!r}")
    require(
        "parameters" not in section,
        f"{name}: nested parameters reach the run as one word {name}={{...}}; write them with dots, {name}.KEY:",
    )
    kind = _kind(name, section)
    check_keys(name, section, ("distribution", *_KEYS[kind]))
    if kind == "value":
        return Parameter(name, kind, (section["value"],))
    return _read_values(name, section) if kind == "values" else _read_numbers(name, kind, section)


def _kind(name: str, section: Mapping[str, Any]) -> str:
    """The distribution named, or the one that W&B takes for the keys there are."""
    named, known = section.get("distribution"), (*_LISTS, *DISTRIBUTIONS)
    require(
        named not in ("log_uniform", "inv_log_uniform", "q_log_uniform"),
        f"{name}: {named} is deprecated by W&B, its ends are exponents of e; write {named}_values with the ends "
        "themselves, exp(min) and exp(max)",
    )
    near = nearest(named, known)
    one_of = f"{name}: distribution must be one of {', '.join(known)}, got {named!r}{near}"
    require(named is None or named in known, one_of)
    if named in DISTRIBUTIONS:
        return str(named)
    for kind in [_LISTS[named]] if named else ["value", "values"]:
        if kind in section:
            return kind
        require(not named, f"{name}: {named} needs '{kind}:'")
    # Without a distribution W&B goes by the type of the ends: 1 and 10 are whole numbers, 1.0 and 10 are a range.
    if "min" not in section and "max" not in section:
        check_keys(name, section, ("value", "values", "min", "max", "distribution"))
    return "int_uniform" if is_int(section.get("min")) and is_int(section.get("max")) else "uniform"


def _read_values(name: str, section: Mapping[str, Any]) -> Parameter:
    values, given = section["values"], section.get("probabilities")
    if not isinstance(values, list) or not values:
        raise SweepError(f"{name}: values must be a list with something in it, got {values!r}")
    words = [repr(value) for value in values]  # 1, 1.0 and True are three values
    for index, word in enumerate(words):
        require(word not in words[:index], f"{name}: values hold {word} twice")
    if given is None:
        weighted = section.get("distribution") == "categorical_w_probabilities"
        require(not weighted, f"{name}: categorical_w_probabilities needs 'probabilities:'")
        return Parameter(name, "values", tuple(values))
    shares = [number(f"{name}: probabilities", share) for share in given] if isinstance(given, list) else []
    require(
        len(shares) == len(values) and min(shares) >= 0 and math.isclose(sum(shares), 1, abs_tol=1e-8),
        f"{name}: probabilities must be {len(values)} numbers >= 0 of sum 1, got {given!r}",
    )
    return Parameter(name, "values", tuple(values), tuple(shares))


def _read_numbers(name: str, kind: str, section: Mapping[str, Any]) -> Parameter:
    numbers: dict[str, float] = {}
    for key in DISTRIBUTIONS[kind]:
        require(key in section or key in _DEFAULTS, f"{name}: {kind} needs '{key}:'")
        value = numbers[key] = number(f"{name}: {key}", section.get(key, _DEFAULTS.get(key)))
        is_positive = key in ("q", "a", "b") or (key == "min" and "log" in kind)
        require(math.isfinite(value), f"{name}: {key} must be finite, got {value!r}")
        require(value > 0 or not is_positive, f"{name}: {key} of {kind} must be above 0, got {value!r}")
        require(value >= 0 or key != "sigma", f"{name}: sigma must be >= 0, got {value!r}")
    low, high = numbers.get("min", 0), numbers.get("max", 1)
    is_whole = is_int(low) and is_int(high)
    require(is_whole or kind != "int_uniform", f"{name}: int_uniform needs whole numbers, got {low!r} and {high!r}")
    require(low < high, f"{name}: min must be below max, got {low!r} and {high!r}")
    return Parameter(name, kind, numbers=numbers)
