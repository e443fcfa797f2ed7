"""The pages are true: commands are understood, links lead somewhere, files, keys and folders are there."""

from __future__ import annotations

import importlib
import re
import shlex
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import yaml

from lungseg import __main__ as listing
from lungseg.bench import BENCHMARKS
from lungseg.config import Config
from lungseg.config.fields import field_types
from lungseg.config.loading import load_config

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "configs/*.md", "sweeps/*.md", "docker/*.md", "lungseg/**/*.md")
    for path in REPOSITORY.glob(pattern)
    if path.name != "CHANGELOG.md"
)
README = (REPOSITORY / "README.md").read_text()
FIELDS_PAGE = (REPOSITORY / "configs" / "README.md").read_text()
PLACEHOLDERS = ("FILE", "CONFIG", "STUDY.yaml", "SWEEP.yaml")


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _commands(page: Path) -> list[str]:
    """Every `-m lungseg.NAME ...` of a page, from blocks of code and from code within a sentence or a table."""
    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    commands = [match[1] for line in lines if (match := re.search(r"-m (lungseg\.[\w.]+(?: .*)?)$", line))]
    return list(dict.fromkeys(" ".join(command.split(" && ")[0].split()) for command in commands))


COMMANDS = [pytest.param(command, id=f"{_name(page)}: {command}"[:90]) for page in PAGES for command in _commands(page)]


def test_ci_does_what_the_test_command_says() -> None:
    (command,) = [line for line in README.splitlines() if line.startswith("python3 -m venv") and "pytest" in line]
    steps = [step.strip() for step in command.split("&&")]
    script = (REPOSITORY / ".ci" / "run").read_text().replace("--quiet ", "")
    assert all(step in script.splitlines() for step in steps)


def test_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_every_page_is_understood(command: str) -> None:
    module_name, *words = shlex.split(command, comments=True)
    module = importlib.import_module(module_name)
    if not words:
        assert hasattr(module, "main")
        return
    arguments = vars(module._parser().parse_intermixed_args(words))
    config = arguments.get("config")
    settings = [word for word in arguments.get("words", []) if not word.startswith("data.split=")]  # of evaluate alone
    if config is not None and str(config) not in PLACEHOLDERS:
        assert load_config(REPOSITORY / config, [word for word in settings if "=" in word]).trainer.max_epochs >= 1
    elif config is None and settings:
        load_config(None, settings)
    if module_name == "lungseg.bench":
        assert set(arguments["names"]) - {"NAME"} <= set(BENCHMARKS)
    if module_name == "lungseg.sweep" and arguments["action"] != "ACTION":
        module._check_arguments(module._parser().parse_intermixed_args(words))


def test_commands_are_found_in_blocks_and_in_sentences() -> None:
    assert "lungseg.predict xray.png --output predictions" in _commands(REPOSITORY / "README.md")  # a block
    assert "lungseg.bench predict" in _commands(REPOSITORY / "README.md")  # a table
    assert any("run.name=NAME model.encoder_weights" in c for c in _commands(REPOSITORY / "configs" / "RESULTS.md"))
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("name", listing._NAMES)
def test_every_command_has_its_line_in_readme(name: str) -> None:
    assert f"| `python -m lungseg.{name}` |" in README


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [_slug(heading) for heading in headings], link


def _slug(heading: str) -> str:
    """Turn a heading into its anchor, as GitHub does."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_named_exists(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)", "", page.read_text())  # links are relative to their page and have a test of their own
    for name in re.findall(r"(?<![\w/.])(?:configs|tests|lungseg|sweeps|docker)/[\w/.-]*\w\.\w+", text):
        if not name.endswith("/x.yaml"):  # the example of a mistake
            assert (REPOSITORY / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_key_named_is_a_key(page: Path) -> None:
    sections = {key.split(".")[0] for key in field_types()}
    for key in re.findall(r"`((?:\w+\.)+\w+)(?:=[^`]*)?`", page.read_text()):
        if key.split(".")[0] in sections and not key.endswith((".py", ".yaml", ".csv", ".json")):
            assert key in {*field_types(), "data.phantom"}, key


def _spoken(kind: Any) -> str:
    """The name of a type as the tables write it."""
    if get_origin(kind) is Literal:
        return " / ".join(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_spoken(option) for option in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_spoken(get_args(kind)[0])}"
    return {str: "text", type(None): "null"}.get(kind) or kind.__name__


def _defaults(section: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for field in fields(section):
        value = getattr(section, field.name)
        key = f"{prefix}{field.name}"
        found.update(_defaults(value, f"{key}.") if is_dataclass(value) else {key: value})
    return found


def test_every_field_has_its_row_with_type_and_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \| \S", FIELDS_PAGE, re.MULTILINE)
    said = {key: (kind, yaml.safe_load(default)) for key, kind, default in rows}
    defaults = _defaults(Config())
    assert said == {key: (_spoken(kind), defaults[key]) for key, kind in field_types().items()}
    sections = dict.fromkeys(key.rpartition(".")[0] for key in field_types())
    assert re.findall(r"^### `([\w.]+)`", FIELDS_PAGE, re.MULTILINE) == list(sections)


def test_the_map_lists_every_folder_of_the_package_once() -> None:
    block = README[README.index("## Map") :]
    mapped = re.findall(r"^ +(\w+)/  +\w", block, re.MULTILINE)
    folders = [path.parent.name for path in (REPOSITORY / "lungseg").glob("*/__init__.py")]
    assert sorted(mapped) == sorted(["lungseg", *folders])
    assert all((REPOSITORY / name).is_dir() for name in re.findall(r"(\w+)/(?= |$)", block.split("benchmarks/")[1]))
