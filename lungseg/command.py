"""The frame of every command: arguments in, `main` called, a user's mistake out as one line and exit code 2.

It imports nothing heavy, so that `--help` answers at once; `LUNGSEG_DEBUG=1` shows every traceback.
"""

import argparse
import errno
import importlib.util
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TextIO

from lungseg.errors import UserError, did_you_mean, printable

_FILE_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Of files that the user named, or of folders that may not be written."""

_SYSTEM_ERRORS = {
    getattr(errno, name, None)  # Windows lacks some
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENAMETOOLONG", "ENOMEM")
}
"""Of a disk or a system that has no more to give: nothing that a traceback would explain."""


class _UsageError(Exception):
    """What argparse has to say about the arguments."""


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`, `--print-config` and the words `key=value`: `config`, `print_config` and `words`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file merged over the defaults")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="set one key, such as optim.lr=1e-4; wins over the file"
    )


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint RUN`, any model that predicts, None where it is not given, and `--backend` (`load_backend`)."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="run folder, .ckpt, .safetensors, .onnx, a folder from the Hugging Face Hub, or "
        "wandb:ENTITY/PROJECT/NAME:ALIAS (default: the model that comes with the package)",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "onnx", "torch"),
        default="auto",
        help="for the model that comes with the package: onnxruntime on the CPU, or PyTorch on any device (default: "
        "auto, which is torch with --device cuda or mps, else onnx); other models have one, by their kind",
    )


def run_command(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the arguments, call `main` and give the exit code; for `raise SystemExit(run_command(...))`.

    A mistake of the user is a UserError, or a file that is not there or may not be used: one line, exit code 2.
    Whatever else goes wrong is a fault of the program and leaves with its traceback.

    Args:
        main: Gets the parsed arguments; None stands for exit code 0.
        parser: With `prog` as the user calls it (`python -m lungseg.fit`); options and words may come in any order.
        argv: The arguments; None takes those of the process.
    """
    try:
        code = main(_parse(parser, argv)) or 0
        sys.stdout.flush()  # here, and not at the interpreter's exit, where a closed pipe could not be caught
        return code
    except _UsageError as error:
        return _fail(str(error), 2)
    except (UserError, *_FILE_ERRORS) as error:
        if os.environ.get("LUNGSEG_DEBUG", "0") not in ("", "0"):
            raise
        return _fail(f"error: {_message(error)}", 2)
    except ModuleNotFoundError as error:
        name = (error.name or "lungseg").partition(".")[0]
        if importlib.util.find_spec(name) is not None:
            raise
        return _fail(
            f"error: needs {name}, which is not installed: pip install it, or lungseg with all its dependencies", 2
        )
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning's trainer turns Ctrl-C into exit code 1
            return _fail("interrupted", 130)
        raise
    except BrokenPipeError:
        if not _reader_is_gone(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at exit
        return 141
    except OSError as error:
        if error.errno not in _SYSTEM_ERRORS:
            raise
        return _fail(f"error: {_message(error)}", 2)


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    def fail(message: str) -> NoReturn:
        hint = _hint(parser, message)
        raise _UsageError(f"error: {message}{hint}{' ' if hint else '; '}see {parser.prog} --help")

    parser.error = fail  # type: ignore[method-assign]  # argparse has no other way to say it in one line
    return parser.parse_intermixed_args(argv)  # else words between options would end the list of words


def _hint(parser: argparse.ArgumentParser, message: str) -> str:
    """Find the right spelling of an option that argparse does not know."""
    unknown = re.match(r"unrecognized arguments: --([\w.-]+)(=\S*)?", message)
    if not unknown:
        return ""
    name, value = unknown.groups()
    if "." in name:  # a key of the config, which takes no dashes
        return did_you_mean([f"{name}{value or '=...'}"])
    return did_you_mean(get_close_matches(f"--{name}", re.findall(r"--[\w-]+", parser.format_usage()), 1))


def _fail(line: str, code: int) -> int:
    print(printable(line), file=sys.stderr)
    return code


def _message(error: Exception) -> str:
    """Give the message as one line: without the traceback of a loader's process, a file error without its number."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if re.match(r"Caught \w+ in .+\.\nOriginal Traceback", text):  # torch carried it over, traceback in the message
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        text = text.rpartition(f"\n{name}: ")[2]
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _reader_is_gone(stream: TextIO) -> bool:
    """Whether what reads our output (`| head`) has closed; any other broken pipe is a fault, such as a lost worker."""
    poll = select.poll()  # POSIX alone, as is this error: Windows says EINVAL instead
    poll.register(stream, 0)
    return bool(poll.poll(0))
