"""The layout is the flow: imports go one way along it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lungseg"
ORDER = (
    *("errors", "config", "runs", "data", "auditing", "models", "cam", "evaluation", "reporting", "inference"),
    *("exporting", "serving", "training", "sweeping"),
)
COMMANDS = ("fit", "evaluate", "predict", "export", "app", "audit", "sweep", "compare", "bench")
FILES = sorted(PACKAGE.rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """Parts of lungseg that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("lungseg.")}
    return found


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_imports_what_comes_after_it(path: Path) -> None:
    part, imported = _part(path), _imported(path)
    if part not in COMMANDS and part not in ("__main__", "benchmarks"):
        assert not imported & set(COMMANDS), "a folder imports a command"
    if part in ORDER:
        assert not {name for name in imported if name in ORDER and ORDER.index(name) > ORDER.index(part)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_network_and_its_checkpoints_need_no_lightning() -> None:
    code = "import sys, lungseg.models.checkpoint; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


@pytest.mark.parametrize("command", [name for name in COMMANDS if (PACKAGE / f"{name}.py").exists()])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\nimport lungseg.{command} as c\n"
        "heavy = {'torch', 'lightning', 'cv2', 'numpy', 'wandb', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0
