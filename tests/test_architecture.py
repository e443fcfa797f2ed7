"""The layout is the flow: imports go one way along it, and no module reaches into another package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lungseg"
ORDER = (
    *("errors", "config", "runs", "data", "auditing", "models", "cam", "evaluation", "reporting", "inference"),
    *("exporting", "serving", "training", "sweeping"),
)
COMMANDS = ("fit", "evaluate", "predict", "export", "app", "audit", "sweep", "study", "ensemble", "compare", "bench")
FILES = sorted(PACKAGE.rglob("*.py"))
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
PUBLIC_OF_NAMEDTUPLE = {"_fields", "_asdict", "_replace"}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imported(path: Path) -> set[str]:
    """Modules of lungseg that a file imports, wherever in it, by dotted name without the package's."""
    modules = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name for name in inner if name in _names()} or {node.module}
    return {name.removeprefix("lungseg.") for name in modules if name.startswith("lungseg.")}


@cache
def _names() -> dict[str, Path]:
    return {_name(path): path for path in FILES}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _place(path: Path) -> str:
    """The folder below the package, or the module that lies in it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_no_file_imports_what_comes_after_it() -> None:
    wrong = []
    for path in FILES:
        place, imported = _place(path), {name.split(".")[0] for name in _imported(path)}
        if place not in (*COMMANDS, "__main__", "benchmarks"):
            wrong += [f"{_id(path)}: a folder imports the command {name}" for name in imported & set(COMMANDS)]
        if place in ORDER:
            later = ORDER[ORDER.index(place) + 1 :]
            wrong += [f"{_id(path)} imports {name}" for name in imported & set(later)]
    assert wrong == []


def test_no_circle_of_imports_even_of_those_inside_of_functions() -> None:
    known = {name.removeprefix("lungseg.") for name in _names()}
    graph = {_name(path).removeprefix("lungseg."): _imported(path) & known for path in FILES}
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_files_and_functions_stay_small() -> None:
    long = [_id(path) for path in FILES if path.read_text().count("\n") > 300]
    for path in FILES:
        functions = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)]
        long += [f"{_id(path)}: {f.name}" for f in functions if (f.end_lineno or 0) - f.lineno >= 60]
    assert long == []


def test_nothing_private_of_another_object_or_package_is_used() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("lungseg", "__future__")):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                wrong += [f"{_id(path)}: {node.module}.{name}" for name in private]
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not is_own and node.attr not in PUBLIC_OF_NAMEDTUPLE:
                    wrong.append(f"{_id(path)}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def test_every_module_can_be_imported_on_windows() -> None:
    wrong = []
    for path in FILES:
        for node in _tree(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{_id(path)}: {name}" for name in names if name in POSIX_ONLY]
    assert wrong == []


def test_one_name_of_a_module_has_one_meaning() -> None:
    """A command may share its name with what it runs and what measures it, a config section with what it configures."""
    names = [p.stem for p in FILES if p.parent.name not in ("lungseg", "benchmarks", "config") and p.stem != "__init__"]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, importlib\n"
        f"for name in {COMMANDS!r}:\n"
        "    importlib.import_module(f'lungseg.{name}')._parser().format_help()\n"
        "    heavy = {'torch', 'lightning', 'cv2', 'numpy', 'wandb', 'omegaconf', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0
