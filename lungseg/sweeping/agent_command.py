"""The command of a sweep: checked, and made into the argument list of one run exactly as W&B's agent makes it.

The values arrive as `key=value` words of the command line, which Lightning's launcher and srun hand to every rank.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from lungseg.errors import SweepError, did_you_mean

MACRO = "${args_no_hyphens}"
EXAMPLE = ("${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "configs/demo.yaml", MACRO)
_PASSED = ("${env}", "${interpreter}", MACRO)
_OTHER_ARGS = (
    *("${args}", "${args_no_equals}", "${args_no_boolean_flags}", "${args_append_hydra}", "${args_override_hydra}"),
    *("${args_json}", "${args_json_file}"),
)
_VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


def read_command(command: object) -> tuple[str, ...]:
    """Check the list under `command:`; a mistake is a SweepError without the file."""
    if not isinstance(command, list) or not command:
        raise SweepError(f"command: must be a list such as {_spelled(EXAMPLE)}, got {command!r}")
    parts = tuple(str(part) for part in command)
    for part in parts:
        if part in _OTHER_ARGS:
            raise SweepError(f"command: {part} does not give key=value words; did you mean '{MACRO}'?")
        if part.startswith("${") and part not in _PASSED and not _VARIABLE.search(part):
            near = did_you_mean(get_close_matches(part, _PASSED, 1))
            raise SweepError(f"command: W&B's agent knows no {part!r} and would drop it{near}")
        if part not in _PASSED and any(macro in part for macro in (*_PASSED, *_OTHER_ARGS)):
            raise SweepError(f"command: {part!r}: a macro must be an item of its own")
    if parts.count(MACRO) != 1:
        raise SweepError(f"command: must hold {MACRO} once, which passes the values as key=value words to every rank")
    if not _starts_fit(parts):
        raise SweepError(f"command: must start '-m lungseg.fit', such as {_spelled(EXAMPLE)}, got {_spelled(parts)}")
    return parts


def base_and_words(command: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """Split what follows `lungseg.fit` into the base config and the words that every run gets."""
    arguments = list(expand(command[_after_fit(command) :], {}))
    base: str | None = None
    words: list[str] = []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--config" and arguments:
            base = arguments.pop(0)
        elif argument.startswith("--config="):
            base = argument.partition("=")[2]
        elif argument.startswith("-") or "=" not in argument:
            raise SweepError(f"command: expected --config FILE or key=value after lungseg.fit, got {argument!r}")
        else:
            words.append(argument)
    if base is None:
        raise SweepError("command: names no base config; add '--config' and a file such as configs/demo.yaml")
    return Path(base), tuple(words)


def expand(command: Sequence[str], values: Mapping[str, Any], interpreter: str = "python") -> list[str]:
    """Give the argument list of one run.

    Args:
        command: What `read_command` returned.
        values: Value of each parameter of this run, by its full key; written with Python's `str`.
        interpreter: Stands for `${interpreter}`; W&B's agent takes `python`.
    """
    macros = {"${env}": ["/usr/bin/env"], "${interpreter}": [interpreter]}
    macros[MACRO] = [f"{name}={value}" for name, value in values.items()]
    parts = (_VARIABLE.sub(lambda found: os.environ.get(found[1], found[1]), part) for part in command)
    return [word for part in parts for word in macros.get(part, [part])]


def missing_variables(command: Sequence[str]) -> list[str]:
    """Names of `${envvar:NAME}` that are not set here: the agent would put the bare name in their place."""
    return [name for part in command for name in _VARIABLE.findall(part) if name not in os.environ]


def _starts_fit(command: Sequence[str]) -> bool:
    return any(pair == ("-m", "lungseg.fit") for pair in pairwise(command))


def _after_fit(command: Sequence[str]) -> int:
    return list(command).index("lungseg.fit") + 1


def _spelled(parts: Sequence[str]) -> str:
    return repr(" ".join(parts))
