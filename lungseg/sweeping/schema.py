"""What W&B accepts as a sweep: the keys of its YAML, read as its client reads them, each mistake one line.

The rules are those of W&B's own schema (package `sweeps` 0.3, `config/schema.json`), and stricter where W&B would
accept a file and then do something else than it says. Messages do not name the file: `load_sweep` puts it before.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from lungseg.config.loading import read_yaml
from lungseg.errors import SweepError, did_you_mean

Method = Literal["grid", "random", "bayes"]
METHODS = ("grid", "random", "bayes")
_TEXTS = ("name", "description", "project", "entity", "program")
_KEYS = (*_TEXTS, "method", "metric", "parameters", "early_terminate", "run_cap", "command")
_FOREIGN = ("apiVersion", "kind", "controller", "job", "image_uri", "metrics", "scheduler")


class _Loader(yaml.SafeLoader):
    """W&B's loader, by which 1e-4 is text; but where that lets the last of two equal keys win, this refuses it."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [str(key.value) for key, _ in node.value]
    for index, (key, _) in enumerate(node.value):
        if names[index] in names[:index]:
            raise yaml.MarkedYAMLError(problem=f"{names[index]!r} stands twice; keep one", problem_mark=key.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str) -> Any:
    """Parse YAML as W&B reads it; a key that stands twice is an error."""
    return yaml.load(text, _Loader)


def read_tree(path: Path) -> dict[str, Any]:
    """Read the file and check its top-level keys and the plain ones among them."""
    tree = read_yaml(path, parse_yaml, "keys such as 'method:'")
    check_keys("", tree, _KEYS, _FOREIGN)
    for key in (key for key in _TEXTS if key in tree):
        require(isinstance(tree[key], str) and tree[key].strip(), f"{key}: must be text, got {tree[key]!r}")
    method, cap = tree.get("method"), tree.get("run_cap", 1)
    near = nearest(method, METHODS)
    require(method in METHODS, f"method: must be one of {', '.join(METHODS)}, got {method!r}{near}")
    require(is_int(cap) and cap >= 1, f"run_cap: must be a whole number of runs >= 1, got {cap!r}")
    return tree


def require(holds: object, message: str) -> None:
    """Raise a SweepError with this message where something does not hold."""
    if not holds:
        raise SweepError(message)


def check_keys(where: str, section: Mapping[Any, Any], known: Collection[str], foreign: Collection[str] = ()) -> None:
    """Raise at the first key of a section that is not known, or that means something to W&B and nothing here."""
    prefix = f"{where}: " if where else ""
    for key in section:
        require(key not in foreign, f"{prefix}{key}: W&B knows it, sweeps of lungseg do not use it; leave it out")
        near = nearest(key, known) or f"; known here: {', '.join(known)}"
        require(key in known, f"{prefix}{key}: unknown key{near}")


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
