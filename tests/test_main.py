"""`python -m lungseg`: the list of commands, and handing over to one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lungseg
import lungseg.__main__ as listing

PACKAGE = Path(lungseg.__file__).parent


def _run_lungseg(*arguments: str) -> str:
    command = [sys.executable, "-m", "lungseg", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder beside the real one, in which `lungseg.fake` may be written, the only command there is."""
    monkeypatch.setattr(lungseg, "__path__", [*lungseg.__path__, str(tmp_path)])
    monkeypatch.setattr(listing, "_NAMES", ("fake", "absent"))
    return tmp_path / "fake.py"


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_listing_shows_the_commands_that_exist_with_their_first_line(
    fake_command: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    fake_command.write_text('"""Do a thing: `x`.\n\nMore of it.\n"""\nraise RuntimeError("must not be imported")\n')
    assert listing.main(argv) == 0
    head, *commands = capsys.readouterr().out.splitlines()
    assert head.startswith(f"lungseg {lungseg.__version__}: python -m lungseg COMMAND")
    assert commands == ["  fake      Do a thing: `x`."]


def test_unknown_command_names_the_nearest(fake_command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_command.touch()
    assert listing.main(["fkae"]) == 2
    assert listing.main(["zzz"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: unknown command 'fkae'; did you mean 'fake'? see python -m lungseg\n"
        "error: unknown command 'zzz'; see python -m lungseg\n",
    )


def test_python_m_lungseg_prints_version_and_lists_the_modules_there_are() -> None:
    assert _run_lungseg("--version") == f"lungseg {lungseg.__version__}\n"
    listed = [line.split()[0] for line in _run_lungseg().splitlines()[1:]]
    assert listed == [name for name in listing._NAMES if (PACKAGE / f"{name}.py").exists()]


def test_command_named_runs_as_if_by_python_m_and_counts_as_the_package(
    fake_command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command.write_text(
        '"""Fail. \n\nMore."""\n'
        "import argparse\n"
        "from lungseg.command import add_config_arguments, run_command\n"
        "from lungseg.errors import UserError\n"
        "def main(arguments):\n"
        "    raise UserError(f'got {arguments.words}')\n"
        "if __name__ == '__main__':\n"
        "    parser = argparse.ArgumentParser(prog='fake')\n"
        "    add_config_arguments(parser)\n"
        "    raise SystemExit(run_command(main, parser))\n"
    )
    monkeypatch.setattr(sys, "argv", ["lungseg", "fake", "a=1"])
    with pytest.raises(SystemExit, match="2"):
        listing.main(["fake", "a=1"])
    assert capsys.readouterr().err == "error: got ['a=1']\n"
