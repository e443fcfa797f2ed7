"""MLflow as a tracker: scalars by epoch, the config as parameters, overlays and the report as artifacts.

It uses MLflow's plain client, which sends no user, host, program or git commit, and not the tags of its `start_run`.
"""

import os
import re
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lungseg.reporting.report_run import Reported
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_text
from lungseg.training.trackers.evaluation_tables import headline_values
from lungseg.training.trackers.tracker import STEP_LOSS, Picture, of_best_epoch

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else every run is reported to MLflow's makers
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # Its own 7 retries of 120 s would hold up the training of a server that is gone for minutes in every call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_MOST_PARAMS, _LONGEST_PARAM = 100, 500  # In a call, and in characters: what servers of all ages take.


class MlflowTracker(Logger):
    """A run in MLflow, opened when something is logged first, and opened again when the training is resumed.

    Args:
        run: Names it, and keeps its id.
        parent: Holds the database and the artifacts where `MLFLOW_TRACKING_URI` names no other place.
        experiment: Its name.
        params: Flat settings.
        images: Send pictures and the report, which hold the X-rays' pixels.
    """

    def __init__(self, run: Run, parent: Path, experiment: str, params: Mapping[str, Any], images: bool = True):
        super().__init__()
        self._run, self._parent, self._experiment = run, parent.absolute(), experiment
        self._params, self._images = params, images

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "mlflow"

    @property
    def version(self) -> str:
        """Of the run, its id."""
        return self._opened[1]

    @property
    def experiment(self) -> Any:
        """MLflow's client, with the run opened."""
        return self._opened[0]

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings are the parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars by epoch; the loss of a single step by step."""
        by_step = STEP_LOSS in metrics or "epoch" not in metrics
        place = (step or 0) if by_step else int(metrics["epoch"])
        self._log({name: value for name, value in metrics.items() if name != "epoch"}, place)

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Log the pictures as artifacts, without their layers, which MLflow does not have."""
        client, run_id = self._opened
        for number, picture in enumerate(pictures if self._images else ()):
            suffix = "" if len(pictures) == 1 else f"-{number + 1}"
            client.log_image(run_id, picture.pixels, artifact_file=f"{name}/epoch_{epoch:03d}{suffix}.png")

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Log the final numbers."""
        self._log(of_best_epoch(numbers), int(numbers["fit/best_epoch"]))

    def log_evaluation(self, reported: Reported) -> None:
        """Log the headline numbers, and the report as an artifact."""
        split = reported.results.setup.split
        values = headline_values(reported.results).items()
        self._log({f"evaluation_{split}/{name}": value for name, value in values if value is not None}, 0)
        if self._images and reported.page is not None:
            client, run_id = self._opened
            client.log_artifact(run_id, str(reported.page), f"evaluation/{split}")

    def log_model(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Log a model's folder as the artifacts in `model`; what is known about it the run says itself."""
        client, run_id = self._opened
        client.log_artifacts(run_id, str(folder), "model")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Say how it ended; what comes later is still taken."""
        client, run_id = self._opened
        client.set_terminated(run_id, "FINISHED" if status in ("success", "finished") else "FAILED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        client, run_id = self._opened
        now_ms = int(time.time() * 1000)
        client.log_batch(run_id, [Metric(_allowed(name), value, now_ms, step) for name, value in values.items()])

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The client, and the id of the run."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        client = MlflowClient(uri or f"sqlite:///{(self._parent / 'mlflow.db').as_posix()}")
        run_id = self._resume(client)
        if run_id is None:
            artifacts = None if uri else (self._parent / "mlflow-artifacts").as_uri()
            run_id = client.create_run(self._experiment_id(client, artifacts), run_name=self._run.name).info.run_id
            write_text(self._run.mlflow_id_file, run_id + "\n")
        # What a resumed run has is kept: MLflow takes no other value for it.
        known = client.get_run(run_id).data.params
        params = {_allowed(name): str(value)[:_LONGEST_PARAM] for name, value in self._params.items()}
        new = [Param(name, value) for name, value in params.items() if name not in known]
        for start in range(0, len(new), _MOST_PARAMS):
            client.log_batch(run_id, params=new[start : start + _MOST_PARAMS])
        return client, run_id

    def _resume(self, client: Any) -> str | None:
        """The id that the run folder keeps, of a run that is there; it counts as running again."""
        from mlflow.exceptions import MlflowException

        if not self._run.mlflow_id_file.is_file():
            return None
        run_id = self._run.mlflow_id_file.read_text().strip()
        try:
            client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # which is so at another server
                raise
            return None
        return run_id

    def _experiment_id(self, client: Any, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self._experiment)
        try:
            return str(found.experiment_id if found else client.create_experiment(self._experiment, artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                raise
            return str(client.get_experiment_by_name(self._experiment).experiment_id)


def _allowed(name: str) -> str:
    """A name in the characters that MLflow takes; classes may be called otherwise."""
    return re.sub(r"[^\w\-. /]", "_", name)
