"""What W&B accepts as a sweep: the keys of its YAML, read as its client reads them, each mistake one line.

The rules are those of W&B's own schema (package `sweeps` 0.3, `config/schema.json`), and stricter where W&B would
accept a file and then do something else than it says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from lungseg.errors import SweepError, did_you_mean

Method = Literal["grid", "random", "bayes"]
METHODS = ("grid", "random", "bayes")
_TEXTS = ("name", "description", "project", "entity", "program")
_KEYS = (*_TEXTS, "method", "metric", "parameters", "early_terminate", "run_cap", "command")
_FOREIGN = ("apiVersion", "kind", "controller", "job", "image_uri", "metrics", "scheduler")


class _Loader(yaml.SafeLoader):
    """W&B's loader lets the last of two equal keys win; this one refuses the second."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in seen:
            raise SweepError(f"{name}: stands twice, again in line {key.start_mark.line + 1}; keep one")
        seen.add(name)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_tree(path: Path) -> dict[str, Any]:
    """Read the file and check its top-level keys and the plain ones among them."""
    tree = _read_yaml(path)
    check_keys("", tree, _KEYS, _FOREIGN)
    for key in _TEXTS:
        if key in tree and not (isinstance(tree[key], str) and tree[key].strip()):
            raise SweepError(f"{key}: must be text, got {tree[key]!r}")
    method = tree.get("method")
    if method not in METHODS:
        raise SweepError(f"method: must be one of {', '.join(METHODS)}, got {method!r}{nearest(method, METHODS)}")
    if "run_cap" in tree and not (is_int(tree["run_cap"]) and tree["run_cap"] >= 1):
        raise SweepError(f"run_cap: must be a whole number of runs >= 1, got {tree['run_cap']!r}")
    return tree


def check_keys(where: str, section: Mapping[Any, Any], known: Collection[str], foreign: Collection[str] = ()) -> None:
    """Raise at the first key that is not known.

    Args:
        where: Key of the section, empty at the top.
        section: What YAML gave.
        known: Keys it may hold.
        foreign: Keys that mean something to W&B and nothing here.
    """
    prefix = f"{where}: " if where else ""
    for key in section:
        if key in foreign:
            raise SweepError(f"{prefix}{key}: W&B knows it, sweeps of lungseg do not use it; leave it out")
        if key not in known:
            near = nearest(key, known) or f"; known here: {', '.join(known)}"
            raise SweepError(f"{prefix}{key}: unknown key{near}")


def nearest(value: object, known: Collection[str]) -> str:
    """End a message with what was probably meant; empty if nothing known is near."""
    return did_you_mean(get_close_matches(str(value), known, 1))


def section_of(tree: Mapping[str, Any], key: str) -> dict[Any, Any]:
    """Return a section that must be a mapping with something in it."""
    section = tree.get(key)
    if not isinstance(section, dict) or not section:
        raise SweepError(f"{key}: must hold keys of its own, got {section!r}")
    return section


def is_int(value: object) -> bool:
    """Whether YAML gave a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(where: str, value: object) -> float:
    """Return a number, or say why YAML gave none: it reads 1e-4 as text."""
    if is_int(value) or isinstance(value, float):
        return cast(float, value)
    try:
        spelled = repr(float(value)) if isinstance(value, str) else ""
    except ValueError:
        spelled = ""
    if "." not in spelled:
        spelled = spelled.replace("e", ".0e")  # 1e-05 would be text again
    hint = f"; YAML reads it as text, write {spelled}" if spelled else ""
    raise SweepError(f"{where} must be a number, got {value!r}{hint}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SweepError(f"broken YAML{place}: {error.problem or error.context}") from error
    except FileNotFoundError as error:
        there = [str(other) for other in sorted(path.parent.glob("*.y*ml"))]
        raise SweepError(f"no such file{nearest(path, there)}") from error
    except UnicodeDecodeError as error:
        raise SweepError(f"expected YAML in UTF-8, but byte {error.start} is not") from error
    except OSError as error:
        raise SweepError(f"cannot be read: {error.strerror}") from error
    if not isinstance(tree, dict):
        raise SweepError(f"expected keys such as 'method:' at the top level, got {tree!r}")
    return tree
