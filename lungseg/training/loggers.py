"""The loggers of a run: `metrics.csv` always, and the trackers that its config asks for.

A mistake in the config ends the run before it begins; a tracker that fails later does not (`GuardedTracker`).
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lungseg.config import Config
from lungseg.config.loading import without_places
from lungseg.errors import UserError
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.training.trackers.guarded import GuardedTracker
from lungseg.training.trackers.mlflow_tracker import MlflowTracker
from lungseg.training.trackers.tensorboard_tracker import TensorBoardTracker
from lungseg.training.trackers.wandb_start import start_wandb

log = logging.getLogger(__name__)


def build_loggers(config: Config, run: Run) -> list[Logger]:
    """Make all loggers of a run, for rank zero; the other ranks log nothing and need none."""
    loggers: list[Logger] = [MetricsCsv(run.metrics_csv)]
    wandb = start_wandb(config, run)
    loggers += [] if wandb is None else [GuardedTracker(wandb, "W&B")]
    if config.run.tensorboard:
        try:
            settings = flat_settings(config)
            tensorboard = TensorBoardTracker(settings, save_dir=run.folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError("run.tensorboard: needs the extra: pip install 'lungseg[tensorboard]'") from error
        loggers.append(GuardedTracker(tensorboard, "TensorBoard"))
    if config.run.mlflow:
        if find_spec("mlflow") is None:
            raise UserError("run.mlflow: needs the extra: pip install 'lungseg[mlflow]'")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or config.wandb.project
        images = config.wandb.images
        mlflow = MlflowTracker(run, Path(config.run.dir), experiment, flat_settings(config), images)
        loggers.append(GuardedTracker(mlflow, "MLflow"))
    if config.wandb.artifacts and not any(hasattr(getattr(logger, "tracker", None), "log_model") for logger in loggers):
        log.warning("wandb.artifacts: no tracker of this run takes models; W&B is off, and run.mlflow=false")
    return loggers


def flat_settings(config: Config) -> dict[str, Any]:
    """The config as `section.key` and plain values, without places and without accounts at W&B."""
    flat: dict[str, Any] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                flat[f"{prefix}{name}"] = value

    walk({name: section for name, section in without_places(config).items() if name != "wandb"}, "")
    return flat
