from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from lungseg.config import Config, DataConfig, RunConfig, WandbConfig
from lungseg.config.loading import config_dict
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.training.loggers import build_loggers, wandb_mode


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_mode_is_offline_without_a_key_and_online_with_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wandb_mode(WandbConfig()) == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 123\n")
    assert wandb_mode(WandbConfig()) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.hospital.example:8080")
    assert wandb_mode(WandbConfig()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "123")
    assert wandb_mode(WandbConfig()) == "online"


def test_config_outranks_environment_outranks_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "123")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(WandbConfig()) == "offline"
    assert wandb_mode(WandbConfig(mode="disabled")) == "disabled"


def test_metrics_csv_is_always_there_and_wandb_gets_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(
        run=RunConfig(dir="/secret/runs"), data=DataConfig(root="/secret/ward 3"), wandb=WandbConfig(tags=["a"])
    )
    (only,) = build_loggers(config, config_dict(config), tmp_path, "disabled", "id1")
    assert isinstance(only, MetricsCsv)
    _, wandb = build_loggers(config, config_dict(config), tmp_path, "offline", "id1")
    assert isinstance(wandb, WandbLogger)
    given: dict[str, Any] = wandb._wandb_init
    assert given["id"] == "id1" and given["name"] == tmp_path.name and given["tags"] == ["a"]
    assert "secret" not in str(given["config"]) and given["config"]["data"]["image_size"] == 256
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert build_loggers(config, config_dict(config), tmp_path, "offline", "id1")[1]._wandb_init["id"] is None  # type: ignore[attr-defined]


def test_tensorboard_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lungseg.training.loggers as loggers

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(loggers, "TensorBoardLogger", missing)
    config = dataclasses.replace(Config(), run=RunConfig(tensorboard=True))
    with pytest.raises(ValueError, match=r"run\.tensorboard: needs the extra: pip install 'lungseg\[tensorboard\]'"):
        build_loggers(config, config_dict(config), tmp_path, "disabled", "id1")
