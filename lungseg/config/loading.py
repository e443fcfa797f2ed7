"""Read a YAML file and `key=value` words into a `Config`, with one line for a mistake; write a `Config` back.

The commands call it once at their start; nothing below them reads configuration.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lungseg.config import Config
from lungseg.config.fields import did_you_mean, field_types, from_word, from_yaml, section_keys
from lungseg.errors import ConfigError

COMMAND_LINE = "command line"
_RENAMED = {"cam": "overlays"}
"""Sections under the name they had one version ago, so that older run folders and users' files still load."""

_log = logging.getLogger(__name__)


class _Setting(NamedTuple):
    """One key that a source sets; `problem` is the broken rule, empty where the value is good."""

    source: str
    key: str
    value: Any = None
    problem: str = ""


def load_config(file: Path | None, words: Sequence[str]) -> Config:
    """Merge `file` over the defaults, then `words` over both, and check everything.

    Args:
        file: YAML, nested as `Config` is; `${section.key}` stands for the merged value. None: no file.
        words: `section.key=value`; the value is read by its field's type, as Python's `str` or YAML write it.

    Raises:
        ConfigError: One line; of several problems the first, with a count of the others.
    """
    settings = [*(_file_settings(file) if file else ()), *_word_settings(words)]
    _raise_first([f"{s.source}: {s.key}: {s.problem}" for s in settings if s.problem])
    last = {s.key: s for s in settings}
    tree = _merged(last)
    _raise_first([problem for s in last.values() if (problem := _interpolation_problem(tree, s))])
    try:
        return cast(Config, OmegaConf.to_object(tree))
    except ValueError as error:  # a range that `__post_init__` of a section refused
        key = str(error).partition(":")[0]
        setters = [s.source for s in settings if f"{s.key}.".startswith(f"{key}.")]
        raise ConfigError(f"{setters[-1] if setters else 'default'}: {error}") from error


def dump_config(config: Config) -> str:
    """Write YAML that `load_config` reads back to an equal config, keys in the order of the schema."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(config_dict(config))))


def config_dict(config: Config) -> dict[str, Any]:
    """Turn a config into nested plain dicts, lists, numbers and text, fit for a checkpoint."""
    return asdict(config)


def _file_settings(file: Path) -> Iterator[_Setting]:
    return _walk(str(file), _read_yaml(file), "")


def _walk(source: str, tree: dict[Any, Any], prefix: str) -> Iterator[_Setting]:
    """Yield every leaf of a file, and every key that is wrong, by its full key."""
    for name, value in tree.items():
        key = _renamed(source, f"{prefix}{name}")
        if "." in str(name):
            section, _, leaf = key.rpartition(".")
            problem = f"a dotted key is for the command line; in a file write '{leaf}:' below '{section}:'"
            yield _Setting(source, key, problem=problem)
        elif key in section_keys():
            if isinstance(value, dict):
                yield from _walk(source, value, f"{key}.")
            elif value is not None:  # a section whose keys are all commented out reads as null
                yield _Setting(source, key, problem=f"expected a section of keys, got {value!r}")
        elif key in field_types():
            yield _checked(source, key, value, from_yaml)
        else:
            yield _Setting(source, key, problem=_unknown(key, in_file=True))


def _read_yaml(file: Path) -> dict[Any, Any]:
    """Return the top-level mapping of a YAML file, interpolations unresolved; an empty file gives no keys."""
    text = _read_text(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = OmegaConf.create(text) if isinstance(node, yaml.MappingNode) else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}: broken YAML{place}: {error.problem or error.context}") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{file}: {key}cannot be read: {_first_line(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: broken YAML: {_first_line(error)}") from error
    if tree is None and node is not None and node.tag != "tag:yaml.org,2002:null":
        kind = "a list" if isinstance(node, yaml.SequenceNode) else repr(text.strip()[:40])
        raise ConfigError(f"{file}: expected sections such as 'optim:' at the top level, got {kind}")
    return {} if tree is None else cast(dict[Any, Any], OmegaConf.to_container(tree))


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        there = {path.stem: str(path) for path in sorted(file.parent.glob("*.y*ml"))}
        near = [there[stem] for stem in get_close_matches(file.stem, there, 2)]
        raise ConfigError(f"{file}: no such file{did_you_mean(near)}") from error
    except IsADirectoryError as error:
        near = [str(path) for path in [file / "config.yaml"] if path.exists()]
        raise ConfigError(f"{file}: expected a YAML file, got a folder{did_you_mean(near)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected YAML in UTF-8, but byte {error.start} is not") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _word_settings(words: Sequence[str]) -> Iterator[_Setting]:
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {word!r}")
        key = _renamed(COMMAND_LINE, key)
        if key in field_types():
            yield _checked(COMMAND_LINE, key, text, from_word)
        elif key in section_keys():
            leaf = next(name for name in field_types() if name.startswith(f"{key}."))
            problem = f"expected one of its keys, such as '{leaf}=...', got {word!r}"
            yield _Setting(COMMAND_LINE, key, problem=problem)
        else:
            yield _Setting(COMMAND_LINE, key, problem=_unknown(key, in_file=False))


def _renamed(source: str, key: str) -> str:
    """Give a key its present name where it is still written under the old one of its section."""
    section, dot, rest = key.partition(".")
    if section not in _RENAMED:
        return key
    _warn_of_old_name(source, section)
    return f"{_RENAMED[section]}{dot}{rest}"


@cache  # one line a source, however many keys it sets and however often it is read
def _warn_of_old_name(source: str, section: str) -> None:
    _log.warning("%s: the section %r is called %r now; the next version refuses it", source, section, _RENAMED[section])


def _checked(source: str, key: str, value: Any, read: Callable[[Any, Any], Any]) -> _Setting:
    try:
        return _Setting(source, key, read(field_types()[key], value))
    except ValueError as error:
        return _Setting(source, key, problem=str(error))


def _unknown(key: str, *, in_file: bool) -> str:
    """Say that a key is unknown, with the nearest ones as they are written at this place, else all of its section."""
    section, _, leaf = key.rpartition(".")
    known = [*section_keys(), *field_types()]
    here = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    near = [name if in_file else here[name] for name in get_close_matches(leaf, here, 1)]
    near = near or [name for name in field_types() if name.rpartition(".")[2] == leaf]
    near = near or get_close_matches(key, field_types(), 1)
    rest = f"; known here: {', '.join(here)}" if here and not near else ""
    return f"unknown key{did_you_mean(near)}{rest}"


def _merged(last: dict[str, _Setting]) -> Any:
    """Merge settings by full key over the schema; a broken `${...}` is a ConfigError."""
    tree: dict[str, Any] = {}
    for key, setting in last.items():
        *sections, leaf = key.split(".")
        branch = tree
        for name in sections:
            branch = branch.setdefault(name, {})
        branch[leaf] = setting.value
    try:
        return OmegaConf.merge(_defaults(), tree)  # copies its first
    except OmegaConfBaseException as error:
        raise ConfigError(_unresolved(error, last[str(error.full_key).partition("[")[0]])) from error


@cache
def _defaults() -> DictConfig:
    """The schema with its defaults; making it takes longer than all the rest of `load_config`."""
    return cast(DictConfig, OmegaConf.structured(Config))


def _interpolation_problem(tree: Any, setting: _Setting) -> str:
    """Resolve a setting that refers to others and check what comes out; empty text if all is well."""
    if "${" not in str(setting.value):
        return ""
    try:
        value = OmegaConf.select(tree, setting.key)
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        return _unresolved(error, setting)
    problem = _checked(setting.source, setting.key, value, from_yaml).problem
    return problem and f"{setting.source}: {setting.key}: {problem} from {setting.value!r}"


def _unresolved(error: OmegaConfBaseException, setting: _Setting) -> str:
    reason = re.sub(r"^While dereferencing interpolation '.*?': ", "", _first_line(error))
    return f"{setting.source}: {setting.key}: cannot resolve {setting.value!r}: {reason}"


def _escaped(value: Any) -> Any:
    """Escape text in which OmegaConf would see an interpolation."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", value)


def _raise_first(problems: list[str]) -> None:
    if problems:
        raise ConfigError(problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
