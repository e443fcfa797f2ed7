"""`python -m lungseg` lists the commands; `python -m lungseg fit ...` is short for `python -m lungseg.fit ...`."""

import ast
import runpy
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from lungseg import __version__
from lungseg.errors import did_you_mean

_NAMES = ("fit", "evaluate", "predict", "export", "app", "audit", "sweep", "study", "ensemble", "compare", "bench")


def main(argv: Sequence[str]) -> int:
    """List the commands, print the version, or hand `argv` on to the command it names; give the exit code."""
    name = argv[0] if argv else "--help"
    commands = _commands()
    if name in ("-h", "--help"):
        print(_listing(commands))
    elif name == "--version":
        print(f"lungseg {__version__}")
    elif name in commands:
        sys.argv[1:] = argv[1:]
        runpy.run_module(f"lungseg.{name}", run_name="__main__", alter_sys=True)
    else:
        near = did_you_mean(get_close_matches(name, commands, 1))
        print(f"error: unknown command {name!r}{near}{' ' if near else '; '}see python -m lungseg", file=sys.stderr)
        return 2
    return 0


def _commands() -> dict[str, str]:
    """Map each command there is to the first line of its docstring, read without importing it."""
    specs = {name: find_spec(f"lungseg.{name}") for name in _NAMES}
    return {name: _first_line(Path(spec.origin)) for name, spec in specs.items() if spec and spec.origin}


def _first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _listing(commands: dict[str, str]) -> str:
    lines = [f"  {name:<9} {summary}" for name, summary in commands.items()]
    head = f"lungseg {__version__}: python -m lungseg COMMAND [...]; python -m lungseg COMMAND --help says more"
    return "\n".join([head, *lines])


if __name__ == "__main__":
    if len(sys.argv) == 1 and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error; commands, with their sockets, keep it off
    raise SystemExit(main(sys.argv[1:]))
