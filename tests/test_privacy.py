"""What must not leave the machine: a word in every place that could hold a name, looked for in every file written."""

from __future__ import annotations

import getpass
import platform
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import wandb

from lungseg import audit, evaluate, export, fit, predict
from lungseg.command import run_command
from lungseg.config import PhantomConfig
from lungseg.data.phantom.phantom_set import write_phantoms

PLACE, FILE = "Zebulon", "Quirinius"
"""In the names of folders, home, user and host; and of files, which only tables on this machine may name."""
OWN = ("config.yaml", "settings.json", "environment.json", "metrics.json")
"""Files of a run or of predictions that say where and on what they were made; nothing sends them."""
TABLES = (".csv", ".jsonl", ".json", ".cache")
TINY = [
    *("data.image_size=64", "data.batch_size=4", "data.workers=0", "model.encoder=tu-test_efficientnet"),
    *("model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]", "model.infection=true", "model.map_stride=8"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=1", "overlays.samples=2", "wandb.mode=offline"),
    *("run.tensorboard=true", "wandb.artifacts=true", "run.name=one"),
]


def _run(command: ModuleType, *words: object) -> None:
    assert run_command(command.main, command._parser(), [str(word) for word in words]) in (0, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every command has been run."""
    pytest.importorskip("onnxscript")
    place = tmp_path_factory.mktemp(PLACE)
    (place / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "USER", "LOGNAME", "USERNAME", "HOSTNAME"):
            patch.setenv(name, str(place / "home") if name == "HOME" else f"{PLACE}-{name}")
        patch.setenv("LUNGSEG_CACHE", str(place / "cache"))
        patch.setattr(socket, "gethostname", lambda: f"{PLACE}-host")
        patch.setattr(platform, "node", lambda: f"{PLACE}-host")
        patch.setattr(getpass, "getuser", lambda: f"{PLACE}-user")
        patch.chdir(place)
        wandb.teardown()  # its process, left by an earlier test, would write below the folder it was started in
        phantoms = write_phantoms(PhantomConfig(train=12, val=6, test=6, size_px=64, dir=str(place / "phantoms")))
        for path in sorted(phantoms.rglob("*.png")):
            path.rename(path.with_name(f"{FILE}-{path.name}"))
        _run(fit, f"data.root={phantoms}", f"data.cache_dir={place / 'cache'}", *TINY)
        run = place / "runs" / "one"
        others = (f"run.init={run}", f"loss.teacher={run}")
        _run(fit, f"data.root={phantoms}", *TINY[:-1], "run.name=two", *others, "run.report=false")
        _run(evaluate, "--checkpoint", run, "--faithfulness", 2, "--bootstraps", 50, "--robustness", 2)
        for name in ("model.onnx", "model.safetensors", "model.pt2"):
            _run(export, "--checkpoint", run, "--output", place / "exported" / name)
        xrays = place / "xrays"
        shutil.copytree(next(phantoms.rglob("images")), xrays)
        _run(predict, xrays, "--checkpoint", run, "--output", place / "predictions")
        _run(audit, phantoms, "--output", place / "audit")
        yield place


@pytest.mark.parametrize("word", [PLACE, FILE])
def test_a_name_is_in_no_file_but_those_that_say_where_things_lie(place: Path, word: str) -> None:
    written = [
        path
        for path in place.rglob("*")
        if path.is_file() and not {"phantoms", "xrays", "cache", "home"} & set(path.relative_to(place).parts)
    ]
    assert {path.suffix for path in written} >= {".ckpt", ".onnx", ".safetensors", ".pt2", ".html", ".wandb", ".png"}
    # A note of W&B's client to itself: where it puts the files of a table until they are sent.
    staging = str(place / "home" / ".local" / "share" / "wandb").encode()
    holding = {
        path.relative_to(place).as_posix()
        for path in written
        if word.encode() in path.read_bytes().replace(staging, b"")
    }
    staged = [path for path in (place / "home").rglob("staging/*") if path.is_file()]
    assert len(staged) > 5, "what waits to be sent, a model among it"
    assert not [path for path in staged if word.encode() in path.read_bytes()]
    allowed = {name for name in holding if Path(name).name in OWN}
    if word == FILE:
        allowed |= {name for name in holding if name.endswith(TABLES)}
    assert holding == allowed
