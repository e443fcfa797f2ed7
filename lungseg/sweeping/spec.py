"""A sweep file: W&B's YAML read into a `Sweep`, with the command of one run exactly as W&B's agent makes it.

Values reach a run as `key=value` words of its command line, which Lightning's launcher and srun hand to every rank.
Whether the config takes them is asked by `lungseg.sweeping.checking`, which is where a sweep is loaded.
"""

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from lungseg.config import Config
from lungseg.config.loading import COMMAND_LINE, load_config
from lungseg.errors import ConfigError, SweepError
from lungseg.sweeping.parameter import Parameter, read_parameter
from lungseg.sweeping.pruning import Hyperband, read_hyperband
from lungseg.sweeping.schema import Method, check_keys, nearest, number, read_tree, require, section_of

_WORDS = "${args_no_hyphens}"
_PASSED = ("${env}", "${interpreter}", _WORDS)
_EXAMPLE = ("${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "configs/demo.yaml", _WORDS)
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
"""A variable of the environment, as W&B's agent writes it."""


@dataclass(frozen=True)
class Metric:
    """What the sweep optimises."""

    name: str
    goal: Literal["minimize", "maximize"]
    target: float | None = None  # No new run starts once one has reached it.
    from_base: bool = False  # The sweep file names none; this is `run.monitor` of the base config.

    @property
    def sign(self) -> int:
        """1 where larger is better, else -1."""
        return 1 if self.goal == "maximize" else -1


@dataclass(frozen=True)
class Sweep:
    """One sweep file."""

    path: Path
    name: str  # Its own, else the file's stem.
    method: Method
    metric: Metric
    parameters: Mapping[str, Parameter]  # By full key, in the file's order.
    early_terminate: Hyperband | None
    run_cap: int | None  # Most runs, whoever starts them.
    command: tuple[str, ...]  # With W&B's macros; `run_arguments` fills them in.
    base: Path  # Base config that the command names, as seen from where runs are started.
    words: tuple[str, ...]  # `key=value` words that the command gives to every run.
    program: str | None  # A name that W&B asks for; the command says what runs.
    project: str | None
    entity: str | None

    def config(self, values: Mapping[str, Any]) -> Config:
        """Resolve the config of the run with these values, by full key, or raise a ConfigError of one line."""
        return load_config(self.base, [*self.words, *(f"{name}={value}" for name, value in values.items())])

    def epochs(self, values: Mapping[str, Any]) -> int:
        """Epochs of the run with these values if nothing stops it; of values that do not go together, none."""
        try:
            return self.config(values).trainer.max_epochs
        except ConfigError:
            return 0

    def run_arguments(self, values: Mapping[str, Any], interpreter: str = "python") -> list[str]:
        """Give the argument list of the run with these values, as W&B's agent does."""
        return _expand(self.command, values, interpreter)

    def missing_variables(self) -> list[str]:
        """Names of `${envvar:NAME}` that are not set here: the agent would put the bare name in their place."""
        return [name for part in self.command for name in VARIABLE.findall(part) if name not in os.environ]

    def varying(self) -> list[str]:
        """Full keys of what differs from run to run."""
        return [name for name, parameter in self.parameters.items() if parameter.kind != "value"]

    def grid_size(self) -> int:
        """Count the runs of a grid."""
        return math.prod(len(parameter.grid_values() or ()) for parameter in self.parameters.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield the values of each run of a grid, the last parameter changing fastest."""
        lists = [parameter.grid_values() or [] for parameter in self.parameters.values()]
        return (dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*lists))

    def total(self, count: int | None) -> int:
        """Runs in all: the fewest of `count` (None: not said), `run_cap` and the size of a grid; one must be known."""
        limits = [count, self.run_cap, self.grid_size() if self.method == "grid" else None]
        known = [limit for limit in limits if limit is not None]
        require(known, f"{self.path}: run_cap: missing, and a {self.method} sweep has no end; say --count N")
        return min(known)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and check what it says by itself and that its base config loads."""
    tree = read_tree(path)
    parameters = {str(name): read_parameter(str(name), part) for name, part in section_of(tree, "parameters").items()}
    _check_searchable(tree["method"], parameters)
    early = read_hyperband(tree) if "early_terminate" in tree else None
    needs = "bayes" if tree["method"] == "bayes" else "early_terminate" if early else ""
    missing = f"metric: missing; {needs} needs it: 'name: val/score' and 'goal: maximize'"
    require("metric" in tree or not needs, missing)
    command = _read_command(tree.get("command"))
    base, words = _base_and_words(command)
    # The base config is loaded in any case: its mistakes are the command's, not those of a parameter.
    metric = _read_metric(tree) if "metric" in tree else None
    try:
        run = load_config(base, words).run
    except ConfigError as error:
        raise SweepError(f"command: {str(error).removeprefix(f'{COMMAND_LINE}: ')}") from error
    return Sweep(
        path=path,
        name=tree.get("name", path.stem),
        method=tree["method"],
        metric=metric or Metric(run.monitor, "maximize" if run.mode == "max" else "minimize", from_base=True),
        parameters=parameters,
        early_terminate=early,
        command=command,
        base=base,
        words=words,
        **{key: tree.get(key) for key in ("run_cap", "program", "project", "entity")},
    )


def _check_searchable(method: Method, parameters: Mapping[str, Parameter]) -> None:
    """A grid needs values that can be counted, bayes something that varies."""
    varies = any(len(parameter.samples()) > 1 for parameter in parameters.values())
    require(varies or method != "bayes", "parameters: bayes needs one that varies; all are constant")
    for name, parameter in parameters.items():
        what = "probabilities" if parameter.probabilities else repr(parameter.kind)
        require(
            method != "grid" or parameter.grid_values() is not None,
            f"{name}: a grid cannot count {what}; list 'values:', or use method random or bayes",
        )


def _read_metric(tree: Mapping[str, Any]) -> Metric:
    section = section_of(tree, "metric")
    check_keys("metric", section, ("name", "goal", "target"), foreign=("impute", "impute_while_running"))
    name, goal, goals = section.get("name"), section.get("goal"), ("minimize", "maximize")
    named = isinstance(name, str) and name
    require(named, f"metric: name: must be a logged metric such as 'val/score', got {name!r}")
    require(goal is not None, "metric: goal: missing, and W&B would minimize; say 'maximize' or 'minimize'")
    near = nearest(goal, goals)
    require(goal in goals, f"metric: goal: must be 'minimize' or 'maximize', got {goal!r}{near}")
    target = number("metric: target", section["target"]) if "target" in section else None
    return Metric(str(name), cast(Literal["minimize", "maximize"], goal), target)


def _read_command(command: object) -> tuple[str, ...]:
    if not isinstance(command, list) or not command:
        raise SweepError(f"command: must be a list such as {' '.join(_EXAMPLE)!r}, got {command!r}")
    parts = tuple(str(part) for part in command)
    starts_file = "command: ${program} starts a file by itself, outside of its package; write '-m' and 'lungseg.fit'"
    require("${program}" not in parts, starts_file)
    for part in (part for part in parts if part not in _PASSED):
        not_words = f"command: {part} does not give key=value words; did you mean '{_WORDS}'?"
        require(not part.startswith("${args"), not_words)
        dropped = part.startswith("${") and not VARIABLE.search(part)
        require(not dropped, f"command: W&B's agent knows no {part!r} and would drop it{nearest(part, _PASSED)}")
        holds_macro = any(macro in part for macro in (*_PASSED, "${args"))
        require(not holds_macro, f"command: {part!r}: a macro must be an item of its own")
    once = f"command: must hold {_WORDS} once, which passes the values as key=value words to every rank"
    require(parts.count(_WORDS) == 1, once)
    given, wanted = " ".join(parts), " ".join(_EXAMPLE)
    start = f"command: must start '-m lungseg.fit', such as {wanted!r}, got {given!r}"
    require(("-m", "lungseg.fit") in pairwise(parts), start)
    return parts


def _base_and_words(command: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """Split what follows `lungseg.fit` into the base config and the words that every run gets."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    parser.add_argument("words", nargs="*")
    # A user may write words on both sides of --config, as the command itself takes them.
    known, others = parser.parse_known_intermixed_args(_expand(command[command.index("lungseg.fit") + 1 :], {}))
    for wrong in [*others, *(word for word in known.words if "=" not in word)]:
        raise SweepError(f"command: expected --config FILE or key=value after lungseg.fit, got {wrong!r}")
    if known.config is None:
        raise SweepError("command: names no base config; add '--config' and a file such as configs/demo.yaml")
    return Path(known.config), tuple(known.words)


def _expand(command: Sequence[str], values: Mapping[str, Any], interpreter: str = "python") -> list[str]:
    """Fill in the macros, values as Python's `str` writes them; W&B's agent takes `python` for the interpreter."""
    macros = {"${env}": ["/usr/bin/env"], "${interpreter}": [interpreter]}
    macros[_WORDS] = [f"{name}={value}" for name, value in values.items()]
    # A variable that is not set leaves its bare name, as with the agent; `check` has a note on it.
    parts = (VARIABLE.sub(lambda match: os.environ.get(match[1], match[1]), part) for part in command)
    return [word for part in parts for word in macros.get(part, [part])]
