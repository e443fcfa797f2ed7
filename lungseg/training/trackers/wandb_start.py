"""How a run is opened at W&B: online or offline, under which id, with settings that send no place, host or console."""

import logging
import netrc
import os
import socket
import uuid
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from lungseg.config import Config, WandbConfig
from lungseg.config.loading import without_places
from lungseg.errors import UserError
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_text
from lungseg.training.trackers.wandb_tracker import FINISH_S, WandbTracker

WandbMode = Literal["online", "offline", "disabled"]

log = logging.getLogger(__name__)

_CONNECT_S, _INIT_S = 5.0, 30.0
"""How long W&B's server is waited for: for a connection, and for a new run."""


def wandb_mode(config: WandbConfig) -> WandbMode:
    """Where W&B data goes: the config's word, else the environment's WANDB_MODE, else online if a key is known."""
    if config.mode != "auto":
        return config.mode
    wished = os.environ.get("WANDB_MODE", "")
    if wished in ("online", "offline", "disabled"):
        return wished  # type: ignore[return-value]  # one of the three, as just checked
    return "online" if _knows_wandb_key() else "offline"


def start_wandb(config: Config, run: Run) -> WandbTracker | None:
    """The tracker of a run, for rank zero; None where W&B is disabled."""
    mode = wandb_mode(config.wandb)
    if mode == "disabled":
        return None
    return _online_tracker(config, run) if mode == "online" else _wandb_tracker(config, run, offline=True)


def _online_tracker(config: Config, run: Run) -> WandbTracker:
    """A logger that has reached its server; else one that stays offline, unless the config insists (`wandb.mode`)."""
    import wandb

    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        _connect(url)
        tracker = _wandb_tracker(config, run, offline=False)
        _ = tracker.experiment  # opens the run
        return tracker
    except (OSError, wandb.errors.Error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if config.wandb.mode == "online":
            raise UserError(
                f"wandb.mode: online, but {url} does not take the run ({reason}); set it to auto"
            ) from error
        log.warning("W&B: %s does not take the run (%s); it is logged offline", url, reason)
        wandb.teardown()
        return _wandb_tracker(config, run, offline=True)


def _connect(url: str) -> None:
    """Raise an OSError within seconds where nobody listens: W&B's client would try for minutes."""
    if getproxies():  # then it is not this machine that connects
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()


def _wandb_tracker(config: Config, run: Run, offline: bool) -> WandbTracker:
    """A logger that prints nothing and sends no paths, arguments, console output, code or host name."""
    import wandb

    if os.name == "posix" and "HOME" not in os.environ:  # wandb-core would fill the screen with complaints
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 (which fails where nobody has one)
        os.environ["HOME"] = str(run.folder / "wandb" if home == Path("~") else home)
    # Before WandbTracker, whose own settings come too late for what wandb prints when it is set up.
    wandb.setup(wandb.Settings(silent=True, mode="offline" if offline else "online"))
    return WandbTracker(
        name=run.name,
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group,
        tags=config.wandb.tags,
        save_dir=run.folder,
        images=config.wandb.images,
        before=MetricsCsv(run.metrics_csv).rows(),
        offline=offline,
        id=None if "WANDB_SWEEP_ID" in os.environ else _wandb_id(run),  # inside a sweep its agent gives the id
        config=without_places(config),
        settings=wandb.Settings(
            silent=True,
            host="",  # None would be filled in, and sent
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=_INIT_S,
            finish_timeout=FINISH_S,
            finish_timeout_raises=True,
        ),
    )


def _wandb_id(run: Run) -> str:
    """W&B's id of this run: made once, kept in the run folder, so that resuming continues the same run.

    A new folder takes `WANDB_RUN_ID` where it is set, as W&B's own client would.
    """
    path = run.wandb_id_file
    if path.is_file():
        return path.read_text().strip()
    run_id = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
    write_text(path, run_id + "\n")
    return run_id


def _knows_wandb_key() -> bool:
    """Whether a key is in the environment or in the netrc file, where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
