from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb

from lungseg.config.loading import _PLACES, dump_config
from lungseg.errors import UserError
from lungseg.evaluation.target import load_target
from lungseg.models.checkpoint import load_network
from lungseg.reporting.report_run import AFTER_TRAINING, report_run
from lungseg.runs.calibration import read_calibration
from lungseg.runs.environment import environment
from lungseg.runs.run import Run
from lungseg.runs.wandb_model import check_version
from lungseg.runs.whole_files import write_json
from lungseg.training.model_folder import write_model_folder


@pytest.fixture
def calibrated(own_run: Path) -> Run:
    """A run that was evaluated on Val, with a checkpoint as Lightning writes it."""
    path = own_run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True) | {"optimizer_states": [torch.zeros(100_000)], "global_step": 3}
    torch.save(content, path)
    write_json(own_run / "environment.json", environment(load_target(own_run, [], "val").data.fingerprint))
    report_run(
        own_run,
        (),
        "val",
        dataclasses.replace(AFTER_TRAINING, faithfulness=0, robustness=0, bootstraps=20, shortcuts=0),
    )
    return Run.open(own_run)


def test_what_is_sent_is_the_same_model_and_names_no_place(calibrated: Run, phantoms: Path, tmp_path: Path) -> None:
    made = write_model_folder(calibrated, tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["calibration.json", "checkpoints/best.ckpt", "config.yaml", "environment.json"]
    assert made.model.stat().st_size < calibrated.model.stat().st_size - 300_000
    image = torch.rand(1, 1, 64, 64)
    (one, classes), (other, same) = load_network(made.model), load_network(calibrated.model)
    assert classes == same and torch.equal(one(image).class_logits, other(image).class_logits)
    kept, before = read_calibration(made, classes)[0], read_calibration(calibrated, classes)[0]
    assert kept is not None and before is not None and kept.temperature == before.temperature
    text = "".join((tmp_path / name).read_text() for name in files if not name.endswith("ckpt"))
    for word in (str(phantoms), str(calibrated.folder), phantoms.parent.name, environment("")["host"], "command"):
        assert word not in text
    assert made.fingerprint == calibrated.fingerprint is not None

    target = load_target(made.folder, [f"data.root={phantoms}"], "val")
    assert len(target.samples) > 0
    with pytest.raises((UserError, FileNotFoundError), match="not-sent"):
        load_target(made.folder, [], "val")


def test_no_place_or_account_of_the_config_is_sent(calibrated: Run, tmp_path: Path) -> None:
    places = (*(key for key in _PLACES if key != "data.root"), "wandb.entity", "wandb.group", "wandb.tags")
    words = [f"{key}={'[Zebulon]' if key == 'wandb.tags' else 'Zebulon/' + key}" for key in places]
    calibrated.config_file.write_text(dump_config(calibrated.config([*words, "model.encoder_weights=Zebulon/weights"])))
    assert calibrated.config_file.read_text().count("Zebulon") == len(words) + 1
    made = write_model_folder(calibrated, tmp_path)
    assert "Zebulon" not in made.config_file.read_text() and made.config().run.init == "not-sent"
    assert made.config().data.image_size == calibrated.config().data.image_size


def test_another_checkpoints_calibration_is_left_here(calibrated: Run, tmp_path: Path) -> None:
    assert calibrated.calibration_file.exists()
    content = torch.load(calibrated.model, weights_only=True)
    torch.save(content | {"epoch": 7}, calibrated.model)
    assert not write_model_folder(calibrated, tmp_path).calibration_file.exists()


def test_a_model_is_fetched_by_its_name_at_wandb(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class Api:
        def __init__(self, timeout: int):
            assert timeout <= 60

        def artifact(self, name: str, type: str) -> Any:
            asked.append((name, type))
            return SimpleNamespace(name="demo:v3", download=lambda root: loads.append(shutil.copytree(own_run, root)))

    loads: list[Path] = []
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.chdir(tmp_path)
    run = Run.open("wandb:me/lungseg/demo:best")
    assert asked == [("me/lungseg/demo:best", "model")]
    assert run.folder == Path("artifacts/demo-v3") and run.kind == "checkpoint"
    run.calibration_file.write_text("{}")
    assert Run.open(Path("wandb:me/lungseg/demo:v3")).calibration_file.read_text() == "{}", "what was added stays"
    assert len(loads) == 1 and [path.name for path in Path("artifacts").iterdir()] == ["demo-v3"]

    def broken(root: str) -> None:
        shutil.copytree(own_run, root)
        raise OSError("no space left")

    monkeypatch.setattr(Api, "artifact", lambda self, name, type: SimpleNamespace(name="demo:v4", download=broken))
    with pytest.raises(UserError, match=r"demo:v4: W&B does not give it \(no space left\)"):
        Run.open("wandb:me/lungseg/demo:v4")
    assert [path.name for path in Path("artifacts").iterdir()] == ["demo-v3"], "nothing half"

    def overtaken(root: str) -> None:
        shutil.copytree(own_run, root)
        shutil.copytree(own_run, "artifacts/demo-v5")

    monkeypatch.setattr(Api, "artifact", lambda self, name, type: SimpleNamespace(name="demo:v5", download=overtaken))
    assert Run.open("wandb:me/lungseg/demo:v5").folder == Path("artifacts/demo-v5"), "by another process"


def test_what_a_training_takes_never_becomes_another_model() -> None:
    for name in ("wandb:me/lungseg/demo:v3", "runs/demo", Path("runs/demo:best")):
        check_version("run.init", name)
    with pytest.raises(
        UserError, match=r"loss.teacher: wandb:me/lungseg/demo:best may become another model; give its v"
    ):
        check_version("loss.teacher", Path("wandb:me/lungseg/demo:best"))


@pytest.mark.parametrize(
    "name", ["demo", "demo:best", "a/b/c/demo:best", "lungseg/demo", "/demo:best", "lungseg/:best"]
)
def test_what_is_no_name_at_wandb_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"wandb:{name}: expected wandb:entity/project/name:alias"):
        Run.open(f"wandb:{name}")


def test_without_a_server_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="WANDB_MODE is offline, so W&B is not asked"):
        Run.open("wandb:me/lungseg/demo:best")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(
        UserError, match=r"wandb:me/lungseg/demo:best: W&B does not give it \(.+\); are you online"
    ) as error:
        Run.open("wandb:me/lungseg/demo:best")
    assert "\n" not in str(error.value) and len(json.dumps(str(error.value))) < 400
