from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lungseg.config import Config, DataConfig, RunConfig, WandbConfig
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.training.loggers import build_loggers, flat_settings
from lungseg.training.trackers.tracker import Tracker

OFF = WandbConfig(mode="disabled")


def test_metrics_csv_is_always_there_and_no_tracker(tmp_path: Path) -> None:
    (only,) = build_loggers(Config(wandb=OFF), Run(tmp_path))
    assert isinstance(only, MetricsCsv) and not isinstance(only, Tracker)


def test_mlflow_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lungseg.training.loggers as loggers

    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    config = Config(run=RunConfig(mlflow=True), wandb=OFF)
    with pytest.raises(ValueError, match=r"run\.mlflow: needs the extra: pip install 'lungseg\[mlflow\]'"):
        build_loggers(config, Run(tmp_path))


def test_settings_are_flat_and_hold_neither_places_nor_accounts() -> None:
    data = DataConfig(root="/secret/ward 3", classes=["a", "b"])
    config = Config(run=RunConfig(dir="/secret/runs"), data=data, wandb=WandbConfig(entity="secret"))
    settings = flat_settings(config)
    assert settings["data.image_size"] == 256 and settings["data.phantom.train"] == 140
    assert settings["data.classes"] == ["a", "b"] and "secret" not in str(settings)


def test_tensorboard_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lungseg.training.loggers as loggers

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(loggers, "TensorBoardTracker", missing)
    config = dataclasses.replace(Config(), run=RunConfig(tensorboard=True), wandb=WandbConfig(mode="disabled"))
    with pytest.raises(ValueError, match=r"run\.tensorboard: needs the extra: pip install 'lungseg\[tensorboard\]'"):
        build_loggers(config, Run(tmp_path))
