"""What Windows has not: no module needs it to be imported, and `fit`, `predict` and `evaluate` do without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HIDDEN = """
import importlib, os, pkgutil, signal, sys
import filelock, lightning, numpy, onnxruntime, optuna, torch, wandb  # these ask for the system's name, which stays
for name in ("fcntl", "resource", "pwd", "grp", "termios", "syslog"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGALRM", "SIGCHLD", "SIGPIPE",
             "setitimer", "pause"):
    delattr(signal, name)
for name in ("killpg", "fork", "setsid", "getuid", "geteuid", "sched_getaffinity", "mkfifo", "set_blocking", "uname",
             "getpgid", "O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "chown", "nice",
             "getloadavg"):
    delattr(os, name)
"""
_IMPORTS = """
import lungseg
for module in pkgutil.walk_packages(lungseg.__path__, "lungseg."):
    importlib.import_module(module.name)
"""
_COMMAND = """
from lungseg.command import run_command
module = importlib.import_module("lungseg." + sys.argv[1])
raise SystemExit(run_command(module.main, module._parser(), sys.argv[2:]))
"""


def _run(code: str, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _HIDDEN + code, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_every_module_is_imported(tmp_path: Path) -> None:
    done = _run(_IMPORTS, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_commands_end_well(tmp_path: Path, phantoms: Path, untrained: Path) -> None:
    images = sorted(phantoms.rglob("images/*.png"))[:2]
    done = _run(_COMMAND, "predict", *images, "--output", "masks", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks" / "masks").rglob("*.png"))) == 2

    network = ["data.image_size=64", "model.encoder=tu-test_efficientnet", "model.encoder_depth=4"]
    network += [
        "model.decoder_channels=[16,16,8,8]",
        "data.workers=0",
        "trainer.accelerator=cpu",
        "wandb.mode=disabled",
    ]
    words = [f"data.root={phantoms}", *network, "trainer.max_epochs=1", "wandb.mode=disabled", "run.name=one"]
    words += ["run.report=false"]
    done = _run(_COMMAND, "fit", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "one" / "checkpoints" / "last.ckpt").is_file()


def test_a_local_sweep_says_that_it_cannot(tmp_path: Path, phantoms: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(f"data: {{root: {phantoms}}}\n")
    sweep = "program: lungseg.fit\nmethod: grid\nmetric: {name: val/dice, goal: maximize}\n"
    sweep += "parameters: {optim.lr: {values: [0.1]}}\n"
    sweep += "command: [python, -m, lungseg.fit, --config, tiny.yaml, '${args_no_hyphens}']\n"
    (tmp_path / "sweep.yaml").write_text(sweep)
    done = _run(_COMMAND, "sweep", "run", "sweep.yaml", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "process groups" in done.stderr
