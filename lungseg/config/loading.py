"""Read a YAML file and `key=value` words into a `Config`, with one line for a mistake; write a `Config` back.

The commands call it once at their start; nothing below them reads configuration.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lungseg.config import Config
from lungseg.config.fields import field_types, from_word, from_yaml
from lungseg.errors import ConfigError, did_you_mean

COMMAND_LINE = "command line"
_RENAMED = {"cam": "overlays"}
"""Sections under the name they had one version ago, so that older run folders and users' files still load."""


_PLACES = ("data.root", "data.cache_dir", "data.phantom.dir", "run.dir", "run.init", "loss.teacher")


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
    tree = read_yaml(file, _parse, "sections such as 'optim:'") if file else {}
    settings = [*_walk(str(file), tree), *_word_settings(words)]
    if problems := [f"{s.source}: {s.key}: {s.problem}" for s in settings if s.problem]:
        raise ConfigError(problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
    last = {s.key: s for s in settings}  # a later source wins
    given = OmegaConf.create({})
    try:
        for setting in last.values():
            OmegaConf.update(given, setting.key, setting.value, force_add=True)
        return cast(Config, OmegaConf.to_object(OmegaConf.merge(_defaults(), given)))
    except OmegaConfBaseException as error:  # all values are checked, so it is an interpolation
        key = str(error.full_key).partition("[")[0]  # empty where OmegaConf cannot tell
        setting = last.get(key) or next(s for s in last.values() if "${" in str(s.value))
        reason = re.sub(r"^While dereferencing interpolation '.*?': |\n.*", "", str(error), flags=re.DOTALL)
        raise ConfigError(f"{setting.source}: {setting.key}: cannot resolve {setting.value!r}: {reason}") from error
    except ValueError as error:  # a range that `__post_init__` of a section refused
        key = str(error).partition(":")[0]
        setters = [s.source for s in settings if f"{s.key}.".startswith(f"{key}.")]
        raise ConfigError(f"{setters[-1] if setters else 'default'}: {error}") from error


def read_yaml(file: Path, parse: Callable[[str], Any], expected: str) -> dict[Any, Any]:
    """Read the top-level mapping of a YAML file, or say in a ConfigError of one line why there is none.

    Args:
        file: The file.
        parse: YAML's reader for its text.
        expected: What the mapping would hold, for the message.
    """
    try:
        tree = parse(file.read_text(encoding="utf-8-sig"))  # editors on Windows begin a file with a byte order mark
    except FileNotFoundError as error:
        there = {path.stem: str(path) for path in sorted(file.parent.glob("*.y*ml"))}
        near = [there[stem] for stem in get_close_matches(file.stem, there, 2)]
        raise ConfigError(f"{file}: no such file{did_you_mean(near)}") from error
    except IsADirectoryError as error:
        near = [str(path) for path in [file / "config.yaml"] if path.exists()]
        raise ConfigError(f"{file}: expected a YAML file, got a folder{did_you_mean(near)}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}: broken YAML{line}: {error.problem or error.context}") from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        key = f"{key}: " if (key := getattr(error, "full_key", None)) else ""
        raise ConfigError(f"{file}: {key}cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected {expected} at the top level, got {tree!r:.40}")
    return tree


def dump_config(config: Config) -> str:
    """Write YAML that `load_config` reads back to an equal config, keys in the order of the schema."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(asdict(config))))


def without_places(config: Config) -> dict[str, Any]:
    """The config as plain values that may leave this machine: without places, whose names may tell of people."""
    plain = asdict(config)
    for key in _PLACES:
        *sections, name = key.split(".")
        reduce(getitem, sections, plain).pop(name)
    return plain | {"model": asdict(config.model.without_paths())}


def hide_places(config: Config, word: str) -> Config:
    """The same config with a word for each place that is not the default."""
    plain, own = asdict(replace(config, model=config.model.without_paths())), asdict(Config())
    for key in _PLACES:
        *sections, name = key.split(".")
        section, default = reduce(getitem, sections, plain), reduce(getitem, sections, own)[name]
        section[name] = default if section[name] == default else word
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(_defaults(), OmegaConf.create(_escaped(plain)))))


def _walk(source: str, tree: dict[Any, Any], prefix: str = "") -> Iterator[_Setting]:
    """Yield every leaf of a file, and every key that is wrong, by its full key."""
    for name, value in tree.items():
        key = _renamed(source, f"{prefix}{name}")
        if "." in str(name):
            section, _, leaf = key.rpartition(".")
            problem = f"a dotted key is for the command line; in a file write '{leaf}:' below '{section}:'"
            yield _Setting(source, key, problem=problem)
        elif _fields_below(key) and isinstance(value, dict | None):
            yield from _walk(source, value or {}, f"{key}.")  # None: a section whose keys are all commented out
        else:
            yield _checked(source, key, value, from_yaml)


def _word_settings(words: Sequence[str]) -> Iterator[_Setting]:
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {word!r}")
        yield _checked(COMMAND_LINE, _renamed(COMMAND_LINE, key), text, from_word)


def _checked(source: str, key: str, value: Any, read: Callable[[Any, Any], Any]) -> _Setting:
    if below := _fields_below(key):
        return _Setting(source, key, problem=f"expected keys of this section, such as '{below[0]}', got {value!r}")
    if key not in field_types():
        return _Setting(source, key, problem=f"unknown key{_near(key, in_file=read is from_yaml)}")
    try:
        return _Setting(source, key, read(field_types()[key], value))
    except ValueError as error:
        return _Setting(source, key, problem=str(error))


def _near(key: str, *, in_file: bool) -> str:
    """Name the nearest keys as they are written at this place, else all of the section."""
    section, dot, leaf = key.rpartition(".")
    here = dict.fromkeys(name.removeprefix(f"{section}{dot}").partition(".")[0] for name in _fields_below(section))
    near = [name if in_file else f"{section}{dot}{name}" for name in get_close_matches(leaf, here, 1)]
    near = near or [name for name in field_types() if name.rpartition(".")[2] == leaf]  # the right key, elsewhere
    near = near or get_close_matches(key, field_types(), 1)
    return did_you_mean(near) or (f"; known here: {', '.join(here)}" if here else "")


def _fields_below(section: str) -> list[str]:
    """Full keys of the fields in a section and in those below it; of none for a key that is no section."""
    return [name for name in field_types() if not section or name.startswith(f"{section}.")]


def _renamed(source: str, key: str) -> str:
    section, dot, rest = key.partition(".")
    return f"{_section_name(source, section)}{dot}{rest}"


@cache  # so that it warns once a source, however many keys it sets and however often it is read
def _section_name(source: str, name: str) -> str:
    if name in _RENAMED:
        message = "%s: the section %r is called %r now; the next version refuses it"
        logging.getLogger(__name__).warning(message, source, name, _RENAMED[name])
    return _RENAMED.get(name, name)


def _parse(text: str) -> Any:
    """Parse YAML, interpolations unresolved; OmegaConf's loader refuses a key given twice, and reads 1e-4."""
    return OmegaConf.to_container(OmegaConf.create(text))


@cache
def _defaults() -> DictConfig:
    """The schema with its defaults; making it takes longer than all the rest of `load_config`."""
    return cast(DictConfig, OmegaConf.structured(Config))


def _escaped(value: Any) -> Any:
    """Escape text in which OmegaConf would see an interpolation."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
