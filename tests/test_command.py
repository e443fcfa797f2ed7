"""The frame of the commands: how a mistake of the user, a fault of ours, Ctrl-C and a closed pipe come out."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungseg.command import add_config_arguments, run_command
from lungseg.config import RunConfig
from lungseg.config.loading import load_config
from lungseg.errors import DataError, UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.fake")
    add_config_arguments(parser)
    return parser


def _run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_words_may_stand_before_between_and_after_options() -> None:
    seen: list[argparse.Namespace] = []
    argv = ["a=1", "--config", "x.yaml", "b=2", "--print-config", "c=-3"]
    assert run_command(seen.append, _parser(), argv) == 0
    assert vars(seen[0]) == {"config": Path("x.yaml"), "print_config": True, "words": ["a=1", "b=2", "c=-3"]}


def test_without_arguments_there_is_no_config_and_no_word() -> None:
    seen: list[argparse.Namespace] = []
    run_command(seen.append, _parser(), [])
    assert vars(seen[0]) == {"config": None, "print_config": False, "words": []}


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_exit_code_is_what_main_returns(returned: int | None, code: int) -> None:
    assert run_command(lambda arguments: returned, _parser(), []) == code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config"], "argument --config: expected one argument; see"),
        (["--confg", "x"], "unrecognized arguments: --confg; did you mean '--config'? see"),
        (["--optim.lr=1"], "unrecognized arguments: --optim.lr=1; did you mean 'optim.lr=1'? see"),
        (["--optim.lr", "1"], "unrecognized arguments: --optim.lr; did you mean 'optim.lr=...'? see"),
        (["-z"], "unrecognized arguments: -z; see"),
    ],
)
def test_usage_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert run_command(lambda arguments: 0, _parser(), argv) == 2
    assert capsys.readouterr() == ("", f"error: {message} python -m lungseg.fake --help\n")


def test_required_positionals_mix_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    def parser() -> argparse.ArgumentParser:
        made = argparse.ArgumentParser(prog="p")
        made.add_argument("input", nargs="+")
        made.add_argument("--output", required=True)
        return made

    seen: list[argparse.Namespace] = []
    assert run_command(seen.append, parser(), ["a.png", "--output", "o", "b.png"]) == 0
    assert vars(seen[0]) == {"input": ["a.png", "b.png"], "output": "o"}
    assert run_command(seen.append, parser(), ["--output", "o"]) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: input; see p --help\n"


def test_help_is_argparses_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_command(lambda arguments: 0, _parser(), ["--help"])
    assert "--print-config" in capsys.readouterr().out


def _raise(error: BaseException) -> Callable[[object], None]:
    def main(arguments: object) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "message"),
    [
        (
            lambda a: load_config(None, ["optim.lr=fast"]),
            "command line: optim.lr: expected a number (float), got 'fast'",
        ),
        (lambda a: RunConfig(seed=-1), "run.seed: must be >= 0, got -1"),
        (_raise(DataError("a.png: no image\n  of 2 files")), "a.png: no image of 2 files"),
        (_raise(UserError("two\n\n  lines")), "two lines"),
        (_raise(FileNotFoundError("no folder x")), "no folder x"),
        (lambda a: Path("/nowhere/x").read_text(), "/nowhere/x: No such file or directory"),
        (lambda a: Path("/nowhere/x").mkdir(), "/nowhere/x: No such file or directory"),
        (lambda a: Path("/dev/null/x").mkdir(parents=True), "/dev/null/x: Not a directory"),
        (_raise(UserError()), "UserError"),
        (
            _raise(ModuleNotFoundError("No module named 'no_such.part'", name="no_such.part")),
            "needs no_such, which is not installed: pip install it, or lungseg with all its dependencies",
        ),
    ],
)
def test_mistake_of_the_user_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], main: Callable[[Any], Any], message: str
) -> None:
    assert run_command(main, _parser(), []) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    "main",
    [
        _raise(ValueError("not one of ours")),
        _raise(KeyError("x")),
        _raise(RuntimeError("x")),
        _raise(ModuleNotFoundError("No module named 'json.part'", name="json.part")),
        _raise(OSError("of no number")),
        lambda a: int("x"),
    ],
)
def test_fault_of_the_program_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], main: Callable[[Any], Any]
) -> None:
    with pytest.raises((ValueError, KeyError, RuntimeError, ImportError, OSError), match=r"."):
        run_command(main, _parser(), [])
    assert capsys.readouterr() == ("", "")


def test_debug_variable_shows_the_users_mistakes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    main = _raise(UserError("a mistake"))
    monkeypatch.setenv("LUNGSEG_DEBUG", "0")
    assert run_command(main, _parser(), []) == 2
    monkeypatch.setenv("LUNGSEG_DEBUG", "1")
    with pytest.raises(ValueError, match="a mistake"):
        run_command(main, _parser(), [])


class _Files:
    """A data set of one sample whose loading calls what it was given."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self.load = load

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.load(index)


def _load_in_a_worker(load: Callable[[Any], Any]) -> Callable[[object], None]:
    def main(arguments: object) -> None:
        from torch.utils.data import DataLoader

        files: Any = _Files(load)
        batches: Any = iter(DataLoader(files, num_workers=1, multiprocessing_context="fork"))
        try:
            next(batches)
        finally:
            batches._shutdown_workers()  # left to the garbage collector it takes five seconds

    return main


@pytest.mark.parametrize(
    "load",
    [
        _raise(DataError("a.png: not an image;\nsee the audit")),
        _raise(UserError("a.png: not an image;\nsee the audit")),
    ],
)
def test_mistake_found_by_a_loader_process_shows_its_message_alone(
    capsys: pytest.CaptureFixture[str], load: Callable[[Any], Any]
) -> None:
    assert run_command(_load_in_a_worker(load), _parser(), []) == 2
    assert capsys.readouterr().err == "error: a.png: not an image; see the audit\n"


def test_fault_in_a_loader_process_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker"):
        run_command(_load_in_a_worker(lambda index: int("x")), _parser(), [])


def _stopped_by_lightning(arguments: object) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("main", [_raise(KeyboardInterrupt()), _stopped_by_lightning])
def test_ctrl_c_says_interrupted_and_gives_130(
    capsys: pytest.CaptureFixture[str], main: Callable[[object], None]
) -> None:
    assert run_command(main, _parser(), []) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_exit_of_main_itself_passes() -> None:
    with pytest.raises(SystemExit, match="143"):
        run_command(_raise(SystemExit(143)), _parser(), [])


PRINTS = """
import argparse
from lungseg.command import run_command
def main(arguments):
    for number in range(100_000):
        print(number)
raise SystemExit(run_command(main, argparse.ArgumentParser(), []))
"""


def test_reader_that_closes_early_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_broken_pipe_elsewhere_keeps_its_traceback() -> None:
    result = _run_python("-c", PRINTS.replace("print(number)", "raise BrokenPipeError('a lost worker')"))
    assert result.returncode == 1
    assert result.stderr.endswith("BrokenPipeError: a lost worker\n")


def test_frame_and_help_import_nothing_heavy() -> None:
    code = (
        "import argparse, sys\n"
        "from lungseg.command import add_config_arguments\n"
        "import lungseg.__main__\n"
        "parser = argparse.ArgumentParser()\n"
        "add_config_arguments(parser)\n"
        "parser.format_help()\n"
        "print(sorted({'torch', 'lightning', 'omegaconf', 'numpy', 'wandb'} & set(sys.modules)))\n"
    )
    assert _run_python("-c", code).stdout == "[]\n"


@pytest.mark.parametrize("name", ["ENOSPC", "EMFILE", "ENAMETOOLONG", "ESTALE", "EIO"])
def test_a_system_that_has_no_more_to_give_is_one_line(capsys: pytest.CaptureFixture[str], name: str) -> None:
    number = getattr(errno, name)
    assert run_command(_raise(OSError(number, os.strerror(number), "runs/x")), _parser(), []) == 2
    assert capsys.readouterr().err == f"error: runs/x: {os.strerror(number)}\n"
    with pytest.raises(OSError, match="plain"):
        run_command(_raise(OSError("plain")), _parser(), [])


def test_a_name_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(_raise(UserError("\x1b[2J\u202egnp.a: no image")), _parser(), []) == 2
    assert capsys.readouterr().err == "error: \\x1b[2J\\u202egnp.a: no image\n"
