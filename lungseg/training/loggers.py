"""The loggers of a run: `metrics.csv` always, W&B online or offline, TensorBoard on request."""

from __future__ import annotations

import netrc
import os
import sys
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from lungseg.config import Config, WandbConfig
from lungseg.errors import UserError
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run

WandbMode = Literal["online", "offline", "disabled"]


def wandb_mode(config: WandbConfig) -> WandbMode:
    """Where W&B data goes: the config's word, else the environment's WANDB_MODE, else online if a key is known."""
    if config.mode != "auto":
        return config.mode
    wished = os.environ.get("WANDB_MODE", "")
    if wished in ("online", "offline", "disabled"):
        return wished  # type: ignore[return-value]  # one of the three, as just checked
    return "online" if _knows_wandb_key() else "offline"


def build_loggers(config: Config, plain: dict[str, Any], run: Run, mode: WandbMode, run_id: str) -> list[Logger]:
    """All loggers of a run, for rank zero; other processes log nothing and need none.

    Args:
        config: The whole config.
        plain: The same as nested plain values; places on this machine are left out of what W&B gets.
        run: Where they write.
        mode: From `wandb_mode`.
        run_id: W&B's id of the run, the same when it is resumed.
    """
    loggers: list[Logger] = [MetricsCsv(run.metrics_csv)]
    if mode != "disabled":
        loggers.append(_wandb_logger(config, plain, run, mode, run_id))
    if config.run.tensorboard:
        try:
            loggers.append(TensorBoardLogger(run.folder, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            raise UserError("run.tensorboard: needs the extra: pip install 'lungseg[tensorboard]'") from error
    return loggers


def finish_wandb(exit_code: int) -> None:
    """End the W&B run that is open, if any, as failed: left to itself it would end as finished."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _wandb_logger(config: Config, plain: dict[str, Any], run: Run, mode: WandbMode, run_id: str) -> WandbLogger:
    """A logger that prints nothing and sends no paths, arguments, console output, code or host name."""
    import wandb

    wandb.setup(wandb.Settings(silent=True, mode=mode))
    sent = {section: dict(values) for section, values in plain.items()}
    sent["data"].pop("root")
    sent["data"]["phantom"] = {k: v for k, v in sent["data"]["phantom"].items() if k != "dir"}
    sent["run"].pop("dir")
    return WandbLogger(
        name=run.name,
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group,
        tags=config.wandb.tags,
        save_dir=run.folder,
        offline=mode == "offline",
        id=None if "WANDB_SWEEP_ID" in os.environ else run_id,
        config=sent,
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )


def _knows_wandb_key() -> bool:
    """Whether a key is in the environment or in the netrc file, where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
