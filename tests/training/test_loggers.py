from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from lungseg.config import Config, DataConfig, RunConfig, WandbConfig
from lungseg.errors import UserError
from lungseg.evaluation.results import EvaluationResults
from lungseg.reporting.report_run import AFTER_TRAINING, report_run
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.training.loggers import (
    MOST_POINTS,
    build_loggers,
    evaluation_tables,
    finish_wandb,
    headline_values,
    send_evaluation,
    thin,
    wandb_mode,
)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
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
    run = Run(tmp_path)
    (only,) = build_loggers(dataclasses.replace(config, wandb=WandbConfig(mode="disabled")), run)
    assert isinstance(only, MetricsCsv) and not run.wandb_id_file.exists()
    monkeypatch.setenv("WANDB_RUN_ID", "id1")
    _, wandb = build_loggers(config, run)
    assert isinstance(wandb, WandbLogger)
    given: dict[str, Any] = wandb._wandb_init
    assert given["id"] == "id1" and given["name"] == tmp_path.name and given["tags"] == ["a"]
    assert "secret" not in str(given["config"]) and given["config"]["data"]["image_size"] == 256
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert build_loggers(config, run)[1]._wandb_init["id"] is None  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_leaves_the_run_offline_unless_it_is_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody listens there once it is closed
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_mode(WandbConfig()) == "online"
    _, logger = build_loggers(Config(), Run(tmp_path))
    assert logger._offline  # type: ignore[attr-defined]
    assert "does not take the run (" in caplog.text and "it is logged offline" in caplog.text
    insisting = dataclasses.replace(Config(), wandb=WandbConfig(mode="online"))
    with pytest.raises(UserError, match=r"wandb\.mode: online, but http://127.* does not take the run"):
        build_loggers(insisting, Run(tmp_path))


def test_what_a_server_has_not_taken_at_the_end_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def finish(exit_code: int) -> None:
        raise TimeoutError("Timed out finishing run.")

    run = SimpleNamespace(dir="/runs/one/wandb/run-1/files", offline=False)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run, finish=finish))
    finish_wandb(0)
    assert capsys.readouterr().out == "W&B         sending what is left, for 60 s at most\n"
    assert "not all was sent in 60 s; send the rest with: wandb sync /runs/one/wandb/run-1" in caplog.text
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None, finish=finish))
    finish_wandb(0)
    assert capsys.readouterr().out == ""


def test_a_resumed_run_keeps_the_id_it_has_at_wandb(tmp_path: Path) -> None:
    first, second = (build_loggers(Config(), Run(tmp_path))[1]._wandb_init["id"] for _ in range(2))  # type: ignore[attr-defined]
    assert first == second == Run(tmp_path).wandb_id_file.read_text().strip()


def test_tensorboard_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lungseg.training.loggers as loggers

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(loggers, "TensorBoardLogger", missing)
    config = dataclasses.replace(Config(), run=RunConfig(tensorboard=True), wandb=WandbConfig(mode="disabled"))
    with pytest.raises(ValueError, match=r"run\.tensorboard: needs the extra: pip install 'lungseg\[tensorboard\]'"):
        build_loggers(config, Run(tmp_path))


class Recorder:
    """Stands for a W&B run."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


@pytest.fixture(scope="module")
def results(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationResults:
    folder = tmp_path_factory.mktemp("evaluated")
    run = Path(shutil.copytree(untrained, folder / "run"))
    options = dataclasses.replace(AFTER_TRAINING, faithfulness=0, robustness=3, bootstraps=20, shortcuts=3)
    return report_run(run, (), "test", options, page=False).results


def test_wandb_gets_numbers_tables_and_curves_but_no_names_of_files(
    results: EvaluationResults, untrained: Path
) -> None:
    import wandb

    recorder = Recorder()
    send_evaluation(recorder, results)
    assert len(recorder.logged) == 1, "one step"
    logged = recorder.logged[0]
    assert logged["evaluation_test/dice"] == results.segmentation["dice"].value
    matrix = logged["evaluation_test/confusion_matrix"]
    assert isinstance(matrix, wandb.Table)
    assert [row[2] for row in matrix.data] == [count for row in results.confusion for count in row]
    assert {"evaluation_test/roc_curve", "evaluation_test/precision_recall_curve"} <= logged.keys()
    assert recorder.summary == {"evaluation_test/shortcuts": results.verdict.flag if results.verdict else None}
    said = repr([table.data for table in logged.values() if isinstance(table, wandb.Table)])
    assert str(untrained.parent) not in said and ".png" not in said


def test_tables_hold_every_number_and_leave_out_what_was_not_measured(results: EvaluationResults) -> None:
    tables = evaluation_tables(results)
    assert len(tables["scores"][1]) == len(results.segmentation) + len(results.classification)
    assert all(len(row) == len(columns) for columns, rows in tables.values() for row in rows)
    without = dataclasses.replace(results, robustness=None, calibration=None, segmentation={}, classification={})
    assert set(evaluation_tables(without)) == {"confusion_matrix", "scoreboard"}
    assert headline_values(without) == {}


def test_a_curve_is_thinned_with_both_ends_kept() -> None:
    values = [float(number) for number in range(5_001)]
    found = thin(values)
    assert len(found) == MOST_POINTS and (found[0], found[-1]) == (0, 5_000)
    assert thin(values[:MOST_POINTS]) == values[:MOST_POINTS]
