"""The fields of the configuration by full key (`optim.lr`), and how a value given for one is read and checked.

OmegaConf judges types; words, whole numbers and the wording of a refusal are ours. A broken rule is a ValueError with
rule and value, to which `lungseg.config.loading` adds source and key.
"""

import ast
import re
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache, partial
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING, OmegaConf

from lungseg.config import Config
from lungseg.errors import did_you_mean

_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{([^}]*)\}")
"""What stands in `${...}`, unless a backslash takes the `$` for itself."""
_SPOKEN = {str: "text (str)", bool: "true or false (bool)", int: "a whole number (int)", float: "a number (float)"}


@cache
def field_types(section: Any = Config) -> Mapping[str, Any]:
    """Map the full key of every leaf to its type (`float`, `int | None`, `Literal[...]`), in the schema's order."""
    leaves: dict[str, Any] = {}
    for name, kind in get_type_hints(section).items():  # annotations are text until they are resolved
        below = field_types(cast(type, kind)).items() if is_dataclass(kind) else ()
        leaves |= {f"{name}.{key}": leaf for key, leaf in below} or {name: kind}
    return leaves


def from_word(kind: Any, text: str) -> Any:
    """Read the raw text of a `key=value` word by its field's type.

    Text stays as it is written (`007`), and `null`, `None`, `none` and nothing are None only where the type has None.
    """
    options, optional = _without_none(kind)
    value: Any = text
    if text == "" or (text in ("null", "None", "none") and (optional or len(options) > 1)):
        value = None
    elif len(options) > 1:
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(text)  # where a field takes several types, the spelling decides: 2, auto, [0, 1]
    elif get_origin(options[0]) is list:
        value = _parse_list(text)
    return from_yaml(kind, value)


def from_yaml(kind: Any, value: Any) -> Any:
    """Check a value that YAML has parsed against its field's type; an interpolation passes as it is."""
    options, optional = _without_none(kind)
    if value is None and not optional:
        raise ValueError("may not be empty or null")
    if value == MISSING:
        raise ValueError(f"must be given a value, got {value!r}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"may not hold a NUL, got {value!r}")
    if isinstance(value, str) and "${" in value:
        # OmegaConf's own resolvers read the environment: a config of a stranger's would bring secrets into results.
        for inside in _INTERPOLATION.findall(value):
            if not re.fullmatch(r"\w+(\.\w+)+", inside):
                raise ValueError(f"only ${{section.key}} is resolved, got {value!r}")
        return value  # what it stands for is checked when all sources are merged
    try:
        return _convert(kind, options[0] if len(options) == 1 else kind, value)
    except (ValueError, OverflowError) as error:  # OmegaConf's ValidationError is a ValueError
        raise ValueError(_refusal(options, value)) from error


def _without_none(kind: Any) -> tuple[tuple[Any, ...], bool]:
    """Split `X | Y | None` into (X, Y) and True; a type without None comes back with False."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    rest = tuple(option for option in options if option is not type(None))
    return rest, len(rest) < len(options)


def _convert(kind: Any, base: Any, value: Any) -> Any:
    """Give a value the type `kind`, which is `base` or None; a ValueError where it is of another."""
    if get_origin(base) is list and isinstance(value, list):
        return [from_yaml(get_args(base)[0], item) for item in value]
    if base is str and isinstance(value, bool | int | float):
        raise ValueError  # OmegaConf would make text of 7, which the user wrote as 007
    if base is bool and str(value).isdecimal():
        raise ValueError  # and true of 2
    # Sweeps draw whole numbers as 32.0, people write 1e2. Digits alone keep away from float, which rounds long ones.
    if base is int and isinstance(value, float | str) and not str(value).strip("+- ").isdecimal():
        value = int(float(value)) if float(value).is_integer() else value
    # A list of one element is how OmegaConf judges a single value by a type.
    return cast(list[Any], OmegaConf.to_container(OmegaConf.typed_list([value], kind)))[0]


def _refusal(options: tuple[Any, ...], value: object) -> str:
    if get_origin(options[0]) is Literal:
        choices = get_args(options[0])
        near = did_you_mean(get_close_matches(str(value), choices, 1))
        return f"must be one of {', '.join(map(repr, choices))}, got {value!r}{near}"
    spoken = [f"a list of {get_args(o)[0].__name__}" if get_origin(o) is list else _SPOKEN[o] for o in options]
    remedy = "; put it in quotes" if options == (str,) and isinstance(value, bool | int | float) else ""
    return f"expected {' or '.join(spoken)}, got {value!r}{remedy}"


def _parse_list(text: str) -> Any:
    """Read a list written by Python or by YAML, its items as text; text that is no list comes back as it is."""
    # Python first, as a sweep's agent writes it: its escapes inside quotes are not YAML's.
    for parse in (ast.literal_eval, partial(yaml.load, Loader=yaml.BaseLoader)):
        with suppress(ValueError, SyntaxError, yaml.YAMLError):
            items = parse(text)
            if isinstance(items, list) and all(isinstance(item, str) for item in items):
                return items
    return text
