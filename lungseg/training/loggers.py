"""The loggers of a run: `metrics.csv` always, and the trackers that its config asks for."""

from lightning.pytorch.loggers import Logger

from lungseg.config import Config
from lungseg.errors import UserError
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.training.trackers.tensorboard_tracker import TensorBoardTracker
from lungseg.training.trackers.wandb_start import start_wandb


def build_loggers(config: Config, run: Run) -> list[Logger]:
    """Make all loggers of a run, for rank zero; the other ranks log nothing and need none."""
    loggers: list[Logger] = [MetricsCsv(run.metrics_csv)]
    wandb = start_wandb(config, run)
    loggers += [] if wandb is None else [wandb]
    if config.run.tensorboard:
        try:
            loggers.append(TensorBoardTracker(run.folder, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            raise UserError("run.tensorboard: needs the extra: pip install 'lungseg[tensorboard]'") from error
    return loggers
