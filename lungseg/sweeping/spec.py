"""A sweep file, checked: W&B's YAML read into a `Sweep`, or one line that says what is wrong with it.

The other modules of this folder work from a `Sweep` and check nothing again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.config import Config
from lungseg.config.loading import load_config
from lungseg.errors import ConfigError, SweepError
from lungseg.sweeping.against_config import check_against_config
from lungseg.sweeping.agent_command import base_and_words, expand, read_command
from lungseg.sweeping.objective import Hyperband, Metric, read_hyperband, read_metric
from lungseg.sweeping.parameter import Parameter, read_parameter
from lungseg.sweeping.schema import Method, read_tree, section_of

__all__ = ["Hyperband", "Metric", "Parameter", "Sweep", "SweepError", "load_sweep"]


@dataclass(frozen=True)
class Sweep:
    """One checked sweep file."""

    path: Path
    name: str
    """Its own, else the file's stem."""
    method: Method
    metric: Metric
    parameters: Mapping[str, Parameter]
    """By full key, in the file's order."""
    early_terminate: Hyperband | None
    run_cap: int | None
    """Most runs, whoever starts them."""
    command: tuple[str, ...]
    """With W&B's macros; `run_arguments` fills them in."""
    base: Path
    """Base config that the command names, as seen from where runs are started."""
    words: tuple[str, ...]
    """`key=value` words that the command gives to every run."""
    program: str | None
    """A name that W&B asks for; the command says what runs."""
    project: str | None
    entity: str | None

    def config(self, values: Mapping[str, Any]) -> Config:
        """Resolve the config of the run with these values, by full key.

        Raises:
            ConfigError: One line.
        """
        return load_config(self.base, [*self.words, *(f"{name}={value}" for name, value in values.items())])

    def run_arguments(self, values: Mapping[str, Any], interpreter: str = "python") -> list[str]:
        """Give the argument list of the run with these values, as W&B's agent does."""
        return expand(self.command, values, interpreter)

    def grid_size(self) -> int:
        """Count the runs of a grid."""
        return math.prod(len(parameter.grid_values() or ()) for parameter in self.parameters.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield the values of each run of a grid, the last parameter changing fastest."""
        lists = [parameter.grid_values() or [] for parameter in self.parameters.values()]
        return (dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*lists))


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file and check all that can be known before a run.

    Raises:
        SweepError: One line, `FILE: key: rule, value, nearest right name`.
    """
    try:
        sweep = _read(path)
        check_against_config(sweep)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from error
    return sweep


def _read(path: Path) -> Sweep:
    tree = read_tree(path)
    parameters = {str(name): read_parameter(str(name), part) for name, part in section_of(tree, "parameters").items()}
    _check_searchable(tree["method"], parameters)
    early = read_hyperband(tree) if "early_terminate" in tree else None
    needs = "bayes" if tree["method"] == "bayes" else "early_terminate" if early else ""
    if needs and "metric" not in tree:
        raise SweepError(f"metric: missing; {needs} needs it: 'name: val/score' and 'goal: maximize'")
    command = read_command(tree.get("command"))
    base, words = base_and_words(command)
    return Sweep(
        path=path,
        name=tree.get("name", path.stem),
        method=tree["method"],
        metric=read_metric(tree) if "metric" in tree else _metric_of(base, words),
        parameters=parameters,
        early_terminate=early,
        run_cap=tree.get("run_cap"),
        command=command,
        base=base,
        words=words,
        program=tree.get("program"),
        project=tree.get("project"),
        entity=tree.get("entity"),
    )


def _check_searchable(method: Method, parameters: Mapping[str, Parameter]) -> None:
    """A grid needs values that can be counted, bayes something that varies."""
    if method == "bayes" and all(len(parameter.samples()) == 1 for parameter in parameters.values()):
        raise SweepError("parameters: bayes needs one that varies; all are constant")
    for name, parameter in parameters.items():
        if method == "grid" and parameter.grid_values() is None:
            what = "probabilities" if parameter.probabilities else repr(parameter.kind)
            raise SweepError(f"{name}: a grid cannot count {what}; list 'values:', or use method random or bayes")


def _metric_of(base: Path, words: tuple[str, ...]) -> Metric:
    """What the base config calls best, for a sweep that names no metric."""
    try:
        run = load_config(base, words).run
    except ConfigError as error:
        raise SweepError(f"command: {error}") from error
    return Metric(run.monitor, "maximize" if run.mode == "max" else "minimize", from_base=True)
