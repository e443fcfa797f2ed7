"""Results as nested plain values for JSON, and back: the types of `results` and `comparison` say how.

A field may be written under another key, and None may be written as a missing key or as an empty object; `stored` says
so at the field, so that a file keeps its keys while the code uses better names.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lungseg.errors import UserError

T = TypeVar("T")


def stored(
    key: str | None = None, none_as: Literal["null", "nothing", "empty"] = "null"
) -> MappingProxyType[str, object]:
    """Metadata of a dataclass field.

    Args:
        key: Under which the field is written; None: its own name.
        none_as: What stands for None: `null`, no key at all, or an empty object.
    """
    return MappingProxyType({"key": key, "none_as": none_as})


def to_plain(value: Any) -> Any:
    """Dicts, lists and scalars of a dataclass, in the order of its fields; what is plain already stays as it is."""
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    plain = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        none_as = field.metadata.get("none_as", "null")
        if item is None and none_as == "nothing":
            continue
        plain[_key(field)] = {} if item is None and none_as == "empty" else to_plain(item)
    return plain


def from_plain(kind: type[T], plain: Any, where: str = "") -> T:
    """The inverse of `to_plain`.

    Args:
        kind: Dataclass to make, whose fields are scalars, `dict[str, X]`, `list[X]`, dataclasses, or None.
        plain: As read from JSON; keys that no field has are passed over.
        where: Name of the file, for the message.

    Raises:
        UserError: A key is lacking whose field has no default: the file is of another version.
    """
    made: T = _parse(kind, plain, where)
    return made


def _parse(kind: Any, plain: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if plain is None else _parse(inner, plain, where)
    if origin is dict:
        return {name: _parse(arguments[1], item, where) for name, item in plain.items()}
    if origin is list:
        return [_parse(arguments[0], item, where) for item in plain]
    return _parse_dataclass(kind, plain, where) if dataclasses.is_dataclass(kind) else plain


def _parse_dataclass(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise UserError(f"{where}: must hold an object, got {type(plain).__name__!r}; evaluate again")
    hints, values = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        key, empty = _key(field), field.metadata.get("none_as") == "empty"
        if key in plain:
            values[field.name] = None if empty and not plain[key] else _parse(hints[field.name], plain[key], where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: {key!r} is lacking, it is of another version of lungseg; evaluate again")
    return kind(**values)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key") or field.name
