"""The fields of the configuration by full key (`optim.lr`), and how a value given for one is read and checked.

`lungseg.config.loading` reads files and words with it. A broken rule is a ValueError with rule and value, not the key.
"""

from __future__ import annotations

import ast
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import yaml

from lungseg.config import Config

_NULL_WORDS = ("null", "None", "none")
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@cache
def field_types() -> Mapping[str, Any]:
    """Map the full key of every leaf to its type (`float`, `int | None`, `Literal[...]`), in the schema's order."""
    return types.MappingProxyType(dict(_leaf_types(Config, "")))


@cache
def section_keys() -> tuple[str, ...]:
    """Full keys of all sections (`data`, `data.phantom`), in the schema's order."""
    parents = (key.split(".")[:-1] for key in field_types())
    return tuple(dict.fromkeys(".".join(path[:n]) for path in parents for n in range(1, len(path) + 1)))


def from_word(kind: Any, text: str) -> Any:
    """Read the raw text of a `key=value` word by its field's type.

    Text stays as it is written (`007`), and `null`, `None`, `none` and nothing are None only where the type has None.
    """
    base, optional = _without_none(kind)
    if text == "" and not optional:
        raise ValueError("may not be empty, got ''")
    if text == "" or (text in _NULL_WORDS and (optional or base is Any)):
        return from_yaml(kind, None)
    if base is Any:
        return from_yaml(kind, _yaml_or_text(text, yaml.SafeLoader))
    return from_yaml(kind, _list_in(text) if get_origin(base) is list else text)


def from_yaml(kind: Any, value: Any) -> Any:
    """Check a value that YAML has parsed against its field's type; an interpolation passes as it is."""
    base, optional = _without_none(kind)
    if value is None:
        if not optional:
            raise ValueError("may not be null")
        return None
    if isinstance(value, str) and value == "???":  # OmegaConf's mark of a missing value
        raise ValueError("must be given a value, got '???'")
    if base is Any:
        return _count_text_or_list(value)
    if isinstance(value, str) and "${" in value:
        return value
    if get_origin(base) is list:
        return _list(get_args(base)[0], value)
    if get_origin(base) is Literal:
        return _choice(get_args(base), value)
    return {str: _text, bool: _bool, int: _int, float: _float}[base](value)


def did_you_mean(names: Sequence[str]) -> str:
    """End a message with the nearest right names; empty without any."""
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""


def _leaf_types(section: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(section).items():
        if is_dataclass(kind):
            yield from _leaf_types(cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Split `X | None` into X and True; any other type comes back with False."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    (base,) = (k for k in get_args(kind) if k is not type(None))
    return base, True


def _text(value: object) -> str:
    if isinstance(value, bool | int | float):
        raise ValueError(f"expected text (str), got {value!r}; put it in quotes")
    if not isinstance(value, str):
        raise ValueError(f"expected text (str), got {value!r}")
    return value


def _bool(value: object) -> bool:
    spelled = _BOOLS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(spelled, bool):
        raise ValueError(f"expected true or false (bool), got {value!r}")
    return spelled


def _int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,4000}", value.strip()):
        return int(value)
    number = _number(value)
    if number is None or not number.is_integer():
        raise ValueError(f"expected a whole number (int), got {value!r}")
    return int(number)


def _float(value: object) -> float:
    number = _number(value)
    if number is None:
        raise ValueError(f"expected a number (float), got {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"must be finite, got {value!r}")
    return number


def _number(value: object) -> float | None:
    """Read a number or text that spells one; None if it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def _choice(choices: tuple[str, ...], value: object) -> str:
    for choice in choices:
        if value == choice:
            return choice
    near = get_close_matches(str(value), choices, 1)
    raise ValueError(f"must be one of {', '.join(map(repr, choices))}, got {value!r}{did_you_mean(near)}")


def _list(item: type, value: object) -> list[Any]:
    wrong = ValueError(f"expected a list of {item.__name__}, got {value!r}")
    if not isinstance(value, list):
        raise wrong
    try:
        return [from_yaml(item, element) for element in value]
    except ValueError as error:
        raise wrong from error


def _count_text_or_list(value: object) -> int | str | list[Any]:
    """Check the one field typed Any, `trainer.devices`."""
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        raise ValueError(f"expected a whole number, text or a list of int, got {value!r}")
    return _list(int, value) if isinstance(value, list) else value


def _list_in(text: str) -> Any:
    """Read a list written by Python or YAML, its items as text; text that is no list comes back as it is."""
    try:
        items = ast.literal_eval(text)  # Python's escapes inside quotes are not YAML's
    except (ValueError, SyntaxError):
        items = None
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return items
    items = _yaml_or_text(text, yaml.BaseLoader)
    return items if isinstance(items, list) else text


def _yaml_or_text(text: str, loader: type[yaml.BaseLoader] | type[yaml.SafeLoader]) -> Any:
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError:
        return text
