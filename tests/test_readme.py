"""README is true: its commands exist and are what CI runs, its files and keys are there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from lungseg.config.fields import field_types
from lungseg.config.loading import load_config

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
COMMANDS = re.findall(r"^(python -m lungseg\.\w+ .*)$", README, re.MULTILINE)
FITS = re.findall(r"python -m lungseg\.fit (--config [^`#\n]*)", README)


def test_ci_does_what_the_test_command_says() -> None:
    (command,) = [line for line in README.splitlines() if line.startswith("python3 -m venv") and "pytest" in line]
    steps = [step.strip() for step in command.split("&&")]
    script = (REPOSITORY / ".ci" / "run").read_text().replace("--quiet ", "")
    assert all(step in script.splitlines() for step in steps)


@pytest.mark.parametrize("command", FITS)
def test_every_fit_command_resolves(command: str) -> None:
    words = shlex.split(command)
    config = load_config(REPOSITORY / words[1], [word for word in words[2:] if "=" in word])
    assert config.trainer.max_epochs >= 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_a_block_is_understood(command: str) -> None:
    words = shlex.split(command, comments=True)
    module = importlib.import_module(words[2])
    arguments = module._parser().parse_intermixed_args(words[3:])
    assert vars(arguments)


def test_every_key_named_is_a_key() -> None:
    sections = {key.split(".")[0] for key in field_types()}
    named = set(re.findall(r"`((?:\w+\.)+\w+)(?:=[^`]*)?`", README))
    for key in named:
        if key.split(".")[0] in sections and not key.endswith((".py", ".yaml", ".csv", ".json")):
            assert key in field_types(), key


def test_every_file_of_the_map_is_there() -> None:
    for name in re.findall(r"(?:configs|tests|lungseg)/[\w/]+\.(?:py|yaml|jpg)", README):
        assert name == "configs/x.yaml" or (REPOSITORY / name).is_file(), name  # x.yaml: the example of a mistake


def test_no_number_is_left_open() -> None:
    assert "@@" not in README
