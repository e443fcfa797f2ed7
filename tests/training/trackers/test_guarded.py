from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger

import lungseg.training.fitting as fitting
from lungseg import fit
from lungseg.command import run_command
from lungseg.config import Config
from lungseg.runs.run import Run
from lungseg.training.loggers import build_loggers
from lungseg.training.trackers.guarded import GuardedTracker

WORDS = [
    *("data.image_size=64", "data.batch_size=4", "data.workers=0", "trainer.accelerator=cpu", "overlays.samples=2"),
    *("model.encoder=tu-test_efficientnet", "model.encoder_depth=4", "model.decoder_channels=[16,16,8,8]"),
    *("trainer.max_epochs=3", "wandb.mode=disabled", "run.report=false"),
]


class Breaking(Logger):
    """A tracker whose disk is full when it is to take the pictures of epoch 1."""

    name, version = "breaking", ""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("log_") or name == "finalize":
            self.calls.append(name)
        return super().__getattribute__(name)

    def log_hyperparams(self, params: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_images(self, name: str, pictures: Any, epoch: int) -> None:
        if epoch == 1:
            raise OSError(28, "No space left on device")

    def log_result(self, numbers: Any) -> None: ...

    def log_evaluation(self, reported: Any) -> None: ...


def _fit(folder: Path, phantoms: Path, *words: str) -> Path:
    torch.set_num_threads(1)
    assert run_command(fit.main, fit._parser(), [*WORDS, f"data.root={phantoms}", f"run.dir={folder}", *words]) == 0
    return folder / next(word for word in words if word.startswith("run.name=")).partition("=")[2]


def test_a_tracker_that_raises_is_silent_from_then_on_and_the_run_is_as_without_it(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, tracker = _fit(tmp_path, phantoms, "run.name=plain"), Breaking()

    def with_one_more(config: Config, run: Run) -> list[Logger]:
        return [*build_loggers(config, run), GuardedTracker(tracker, "Breaking")]

    monkeypatch.setattr(fitting, "build_loggers", with_one_more)
    run = _fit(tmp_path, phantoms, "run.name=tracked")
    warnings = [record.message for record in caplog.records if "Breaking" in record.message]
    assert warnings == [
        "Breaking gets nothing more of this run, whose folder has it all: [Errno 28] No space left on device"
    ]
    assert tracker.calls.count("log_images") == 2 and tracker.calls[-1] == "log_images", "silent after it"
    assert (run / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    assert (run / "metrics.json").is_file() and len(list((run / "overlays").glob("*.png"))) == 3


class Server(ThreadingHTTPServer):
    """As much of MLflow's server as a run uses; after `good` batches of scalars it answers 500."""

    def __init__(self, good: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.good, self.seen = good, list[tuple[str, str]]()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        what = self.path.partition("/mlflow/")[2].partition("?")[0]
        self.server.seen.append((what, f"{self.path} {self.headers} {body}"))
        run = {"info": {"run_id": "r1", "experiment_id": "7", "status": "RUNNING"}, "data": {}}
        answers: dict[str, tuple[int, Any]] = {
            "experiments/get-by-name": (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}),
            "experiments/create": (200, {"experiment_id": "7"}),
            "runs/create": (200, {"run": run}),
            "runs/get": (200, {"run": run}),
            "runs/log-batch": (200, {}),
        }
        batches = sum(kind == "runs/log-batch" for kind, _ in self.server.seen)
        code, content = answers.get(what, (500, {})) if batches <= self.server.good else (500, {"message": "gone"})
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    do_POST = do_GET  # noqa: N815 (http.server's names)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def failing_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="no MLflow: `pip install 'lungseg[mlflow]'`")
@pytest.mark.parametrize("failing_server", [0, 6], indirect=True)
def test_a_server_that_fails_at_once_or_half_way_costs_one_warning(
    failing_server: Server,
    tmp_path: Path,
    phantoms: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("USER", "LOGNAME", "HOSTNAME"):
        monkeypatch.setenv(name, "Zebulon")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # The stand-in stores no artifacts: pictures alone would end it before its time.
    run = _fit(tmp_path, phantoms, "run.name=one", "run.mlflow=true", "wandb.images=false")
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("MLflow gets nothing more of this run, whose folder has it all: ")
    batches = [said for what, said in failing_server.seen if what == "runs/log-batch"]
    assert len(batches) == failing_server.good + 1 and failing_server.seen[-1][0] == "runs/log-batch"
    assert (run / "metrics.json").is_file() and len((run / "metrics.csv").read_text().splitlines()) >= 4
    assert "Zebulon" not in str(failing_server.seen) and str(tmp_path) not in str(failing_server.seen)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="no MLflow: `pip install 'lungseg[mlflow]'`")
def test_a_server_that_is_not_there_costs_one_warning_at_the_start(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(0) as gone:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{gone.server_port}")
    run = _fit(tmp_path, phantoms, "run.name=one", "run.mlflow=true")
    assert (run / "metrics.json").is_file() and not (run / "mlflow_id").exists()
