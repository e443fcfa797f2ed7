from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungseg import fit
from lungseg.command import run_command
from lungseg.reporting.report_run import Reported
from lungseg.runs.run import Run
from lungseg.training.trackers.mlflow_tracker import MlflowTracker
from lungseg.training.trackers.tracker import Picture

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the first import, which is this one
mlflow = pytest.importorskip("mlflow", reason="no MLflow: `pip install 'lungseg[mlflow]'`")

SETTINGS = {"optim.lr": 0.001, "data.classes": ["a", "b"], "trainer.max_epochs": 2}
PICTURE = Picture(np.zeros((4, 4, 3), np.uint8), {}, "#1")


def _tracker(folder: Path, settings: dict[str, Any] = SETTINGS, images: bool = True) -> MlflowTracker:
    (folder / "demo").mkdir(exist_ok=True)
    return MlflowTracker(Run(folder / "demo"), folder, "lungs", settings, images)


def _history(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def test_a_run_in_the_local_store_holds_scalars_settings_and_pictures_and_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: Reported
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("USER", "Zebulon")
    monkeypatch.chdir(tmp_path)
    tracker = _tracker(tmp_path)
    for epoch, value in enumerate([0.1054794043302536, float("nan")]):
        tracker.log_metrics({"train/step_loss": 1.0, "epoch": epoch}, 7 + epoch)
        tracker.log_images("overlays", [PICTURE], epoch)
        tracker.log_metrics({"val/dice": value, "val/f1_Fall (x=1)": 0.5, "epoch": epoch}, 7 + epoch)
    tracker.finalize("success")
    tracker.log_result({"fit/best_epoch": 0, "val/dice": 0.1054794043302536})
    page = tmp_path / "report.html"
    page.write_text("report")
    tracker.log_evaluation(reported._replace(page=page))
    (tmp_path / "demo" / "checkpoints").mkdir()
    (tmp_path / "demo" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    tracker.log_model(tmp_path / "demo" / "checkpoints", {})

    again = _tracker(tmp_path, SETTINGS | {"trainer.max_epochs": 3, "optim.new": 1})
    again.log_metrics({"val/dice": 0.2, "epoch": 2}, 9)
    again.finalize("failed")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lungs").experiment_id])
    run_id = run.info.run_id
    assert (run.info.run_name, run.info.status, run.info.user_id) == ("demo", "FAILED", "unknown")
    assert run.data.tags == {"mlflow.runName": "demo"}
    assert run.data.params == {
        "optim.lr": "0.001",
        "data.classes": "['a', 'b']",
        "trainer.max_epochs": "2",  # as the run began
        "optim.new": "1",
    }
    assert _history(client, run_id, "train/step_loss") == [(7, 1.0), (8, 1.0)]
    (_, first), (_, second), third = _history(client, run_id, "val/dice")
    assert first == 0.1054794043302536 and np.isnan(second) and third == (2, 0.2)
    assert _history(client, run_id, "val/f1_Fall _x_1_") == [(0, 0.5), (1, 0.5)]
    assert run.data.metrics["best_epoch"] == 0 and run.data.metrics["best/val/dice"] == first
    assert run.data.metrics["evaluation_test/dice"] == reported.results.segmentation["dice"].value
    overlays = [file.path for file in client.list_artifacts(run_id, "overlays")]
    assert overlays == ["overlays/epoch_000.png", "overlays/epoch_001.png"]
    assert [file.path for file in client.list_artifacts(run_id, "evaluation/test")] == ["evaluation/test/report.html"]
    assert [file.path for file in client.list_artifacts(run_id, "model")] == ["model/best.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "mlflow-artifacts", "mlflow.db", "report.html"]

    _tracker(tmp_path, images=False).log_images("pictures", [PICTURE], 0)
    assert not client.list_artifacts(run_id, "pictures")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real server of MLflow on loopback: its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = [f"--backend-store-uri=sqlite:///{tmp_path}/server.db", f"--artifacts-destination={tmp_path}/store"]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *store]
    said = tmp_path / "server.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, said.read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_a_server_gives_back_what_metrics_csv_holds_to_the_last_digit(
    server: str, tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    torch.set_num_threads(1)
    words = [
        *(f"data.root={phantoms}", "data.image_size=64", "data.batch_size=4", "data.workers=0"),
        *("model.encoder=tu-test_efficientnet", "model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]"),
        *("trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "overlays.samples=2"),
        *("wandb.mode=disabled", "wandb.artifacts=true", "run.mlflow=true", "run.name=one"),
    ]
    assert run_command(fit.main, fit._parser(), words) == 0
    run, client = work / "runs" / "one", mlflow.MlflowClient(server)
    run_id = (run / "mlflow_id").read_text().strip()
    seen = client.get_run(run_id)
    assert seen.info.status == "FINISHED" and seen.info.user_id == "unknown"
    assert seen.data.tags == {"mlflow.runName": "one"} and str(phantoms) not in str(seen.data.params)
    assert seen.data.params["data.image_size"] == "64"
    compared = 0
    for row in csv.DictReader((run / "metrics.csv").open()):
        epoch, step = int(row.pop("epoch")), int(row.pop("step"))
        for name in filter(row.get, row):
            place = step if name == "train/step_loss" else epoch
            values = [repr(value) for at, value in _history(client, run_id, name) if at == place]
            assert repr(float(row[name])) in values, name
            compared += 1
    assert compared > 60
    final = json.loads((run / "metrics.json").read_text())
    assert seen.data.metrics["best/val/dice"] == final["val/dice"]
    overlays = [file.path for file in client.list_artifacts(run_id, "overlays")]
    assert overlays == ["overlays/epoch_000.png", "overlays/epoch_001.png"]
    page = client.download_artifacts(run_id, "evaluation/test/report.html", str(tmp_path))
    assert Path(page).read_bytes() == (run / "evaluation/test/report.html").read_bytes()
    model = Run.open(client.download_artifacts(run_id, "model", str(tmp_path)))
    assert model.fingerprint == Run.open(run).fingerprint and model.calibration_file.is_file()
    assert str(phantoms) not in model.config_file.read_text()
    assert not (work / "mlruns").exists() and not (run.parent / "mlflow.db").exists()
