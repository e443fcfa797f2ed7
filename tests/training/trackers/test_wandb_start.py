from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest

from lungseg.config import Config, DataConfig, RunConfig, WandbConfig
from lungseg.errors import UserError
from lungseg.runs.run import Run
from lungseg.training.trackers.wandb_start import start_wandb, wandb_mode


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


def test_wandb_gets_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(
        run=RunConfig(dir="/secret/runs"), data=DataConfig(root="/secret/ward 3"), wandb=WandbConfig(tags=["a"])
    )
    run = Run(tmp_path)
    assert start_wandb(dataclasses.replace(config, wandb=WandbConfig(mode="disabled")), run) is None
    assert not run.wandb_id_file.exists()
    monkeypatch.setenv("WANDB_RUN_ID", "id1")
    tracker = start_wandb(config, run)
    assert tracker is not None
    given: dict[str, Any] = tracker._wandb_init
    assert given["id"] == "id1" and given["name"] == tmp_path.name and given["tags"] == ["a"]
    assert "secret" not in str(given["config"]) and given["config"]["data"]["image_size"] == 256
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert start_wandb(config, run)._wandb_init["id"] is None  # type: ignore[union-attr]


def test_a_server_that_is_not_there_leaves_the_run_offline_unless_it_is_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody listens there once it is closed
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_mode(WandbConfig()) == "online"
    tracker = start_wandb(Config(), Run(tmp_path))
    assert tracker is not None and tracker._offline
    assert "does not take the run (" in caplog.text and "it is logged offline" in caplog.text
    insisting = dataclasses.replace(Config(), wandb=WandbConfig(mode="online"))
    with pytest.raises(UserError, match=r"wandb\.mode: online, but http://127.* does not take the run"):
        start_wandb(insisting, Run(tmp_path))


def test_a_resumed_run_keeps_the_id_it_has_at_wandb(tmp_path: Path) -> None:
    first, second = (start_wandb(Config(), Run(tmp_path))._wandb_init["id"] for _ in range(2))  # type: ignore[union-attr]
    assert first == second == Run(tmp_path).wandb_id_file.read_text().strip()
