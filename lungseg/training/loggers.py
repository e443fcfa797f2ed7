"""The loggers of a run: `metrics.csv` always, W&B online or offline, TensorBoard on request.

W&B also gets the evaluation at the end: numbers, tables, curves and the confusion matrix; no file name, no picture.
"""

import logging
import netrc
import os
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from lungseg.config import Config, WandbConfig
from lungseg.config.loading import without_places
from lungseg.errors import UserError
from lungseg.evaluation.intervals import Number
from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.scoreboard import HEADLINES
from lungseg.reporting.formatting import confusion_names, of_main_classes
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_text

WandbMode = Literal["online", "offline", "disabled"]

log = logging.getLogger(__name__)

_CONNECT_S, _INIT_S, _FINISH_S = 5.0, 30.0, 60.0
"""How long W&B's server is waited for: for a connection, for a new run, and at the end for what is still to be sent."""
MOST_POINTS = 200  # Of a curve: W&B draws no more than a few thousand rows of a table.
_CURVES = {
    "roc": ("1 - specificity", "sensitivity"),
    "precision_recall": ("sensitivity (recall)", "precision"),
}
_INTERVAL = ("value", "low", "high")


def wandb_mode(config: WandbConfig) -> WandbMode:
    """Where W&B data goes: the config's word, else the environment's WANDB_MODE, else online if a key is known."""
    if config.mode != "auto":
        return config.mode
    wished = os.environ.get("WANDB_MODE", "")
    if wished in ("online", "offline", "disabled"):
        return wished  # type: ignore[return-value]  # one of the three, as just checked
    return "online" if _knows_wandb_key() else "offline"


def build_loggers(config: Config, run: Run) -> list[Logger]:
    """Make all loggers of a run, for rank zero; the other ranks log nothing and need none."""
    loggers: list[Logger] = [MetricsCsv(run.metrics_csv)]
    mode = wandb_mode(config.wandb)
    if mode == "online":
        loggers.append(_online_logger(config, run))
    elif mode == "offline":
        loggers.append(_wandb_logger(config, run, offline=True))
    if config.run.tensorboard:
        try:
            loggers.append(TensorBoardLogger(run.folder, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            raise UserError("run.tensorboard: needs the extra: pip install 'lungseg[tensorboard]'") from error
    return loggers


def finish_wandb(exit_code: int) -> None:
    """End the W&B run that is open, if any, with this code: left to itself it would end as finished, and in silence.

    What a slow server has not taken within `_FINISH_S` stays on the disk, and a line says how to send it.
    """
    # Importing wandb, which takes seconds, only to find that there is no run would delay every end.
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    folder, is_online = Path(wandb.run.dir).parent, not wandb.run.offline
    if is_online:
        print(f"W&B         sending what is left, for {_FINISH_S:.0f} s at most", flush=True)
    try:
        wandb.finish(exit_code=exit_code)
    except TimeoutError:
        log.warning("W&B: not all was sent in %.0f s; send the rest with: wandb sync %s", _FINISH_S, folder)


def send_evaluation(run: Any, results: EvaluationResults) -> None:
    """Log an evaluation to a W&B run, all in one step that goes on from the last.

    Args:
        run: What `wandb.init` gave, or stands for it.
        results: What `evaluate` gave.
    """
    import wandb

    results = of_main_classes(results)
    prefix = f"evaluation_{results.setup.split}"
    logged: dict[str, Any] = {f"{prefix}/{name}": value for name, value in headline_values(results).items()}
    for name, (columns, rows) in evaluation_tables(results).items():
        logged[f"{prefix}/{name}"] = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    for kind, axes in _CURVES.items():
        curves = getattr(results.curves, kind)
        if curves:
            thinned = {name: (thin(curve.x), thin(curve.y)) for name, curve in curves.items()}
            logged[f"{prefix}/{kind}_curve"] = wandb.plot.line_series(
                xs=[x for x, _ in thinned.values()],
                ys=[y for _, y in thinned.values()],
                keys=list(thinned),
                title=f"{axes[1]} over {axes[0]}",
                xname=axes[0],
            )
    # One call and no step of ours: W&B drops what comes with a lower step than it has seen.
    run.log(logged)
    if results.verdict is not None:
        run.summary[f"{prefix}/shortcuts"] = results.verdict.flag


def headline_values(results: EvaluationResults) -> dict[str, float | None]:
    """The numbers of the summary by name, those that are defined."""
    found = {name: results.headline(section, name) for section, name, _ in HEADLINES}
    return {name: number.value for name, number in found.items() if number is not None}


def evaluation_tables(results: EvaluationResults) -> dict[str, tuple[Sequence[str], list[Sequence[Any]]]]:
    """Columns and rows by name: `scores`, `confusion_matrix`, `reliability`, `robustness`, `scoreboard`."""
    classes = confusion_names(results)
    sections = {"segmentation": results.segmentation, "classification": results.classification}
    scores = [(section, name, *_ends(n)) for section, numbers in sections.items() for name, n in numbers.items()]
    cells = [
        (true, guess, count)
        for true, row in zip(classes, results.confusion, strict=True)
        for guess, count in zip(classes, row, strict=True)
    ]
    cells = cells if sum(map(sum, results.confusion)) else []
    diagram = results.calibration.reliability if results.calibration else []
    board = [(row.what, row.value, row.low, row.high, row.data, row.source) for row in results.scoreboard]
    tables: dict[str, tuple[Sequence[str], list[Sequence[Any]]]] = {
        "scores": (("section", "name", *_INTERVAL), [*scores]),
        "confusion_matrix": (("true", "predicted", "images"), [*cells]),
        "reliability": (
            ("low", "images", "confidence", "accuracy"),
            [(entry.low, entry.images, entry.confidence, entry.accuracy) for entry in diagram],
        ),
        "robustness": (("perturbation", "strength", "score", *_INTERVAL), _robustness(results)),
        "scoreboard": (("what", "value", "low", "high", "data", "source"), [*board]),
    }
    return {name: table for name, table in tables.items() if table[1]}


def thin(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of a curve's values, spread evenly, both ends among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int)
    return [values[place] for place in places]


def _online_logger(config: Config, run: Run) -> WandbLogger:
    """A logger that has reached its server; else one that stays offline, unless the config insists (`wandb.mode`)."""
    import wandb

    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        _connect(url)
        logger = _wandb_logger(config, run, offline=False)
        _ = logger.experiment  # opens the run
        return logger
    except (OSError, wandb.errors.Error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if config.wandb.mode == "online":
            raise UserError(
                f"wandb.mode: online, but {url} does not take the run ({reason}); set it to auto"
            ) from error
        log.warning("W&B: %s does not take the run (%s); it is logged offline", url, reason)
        wandb.teardown()
        return _wandb_logger(config, run, offline=True)


def _connect(url: str) -> None:
    """Raise an OSError within seconds where nobody listens: W&B's client would try for minutes."""
    if getproxies():  # then it is not this machine that connects
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()


def _wandb_logger(config: Config, run: Run, offline: bool) -> WandbLogger:
    """A logger that prints nothing and sends no paths, arguments, console output, code or host name."""
    import wandb

    if os.name == "posix" and "HOME" not in os.environ:  # wandb-core would fill the screen with complaints
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 (which fails where nobody has one)
        os.environ["HOME"] = str(run.folder / "wandb" if home == Path("~") else home)
    # Before WandbLogger, whose own settings come too late for what wandb prints when it is set up.
    wandb.setup(wandb.Settings(silent=True, mode="offline" if offline else "online"))
    return WandbLogger(
        name=run.name,
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group,
        tags=config.wandb.tags,
        save_dir=run.folder,
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
            finish_timeout=_FINISH_S,
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


def _robustness(results: EvaluationResults) -> list[Sequence[Any]]:
    curves = results.robustness.curves if results.robustness else {}
    return [
        (name, point.strength, score, *_ends(number))
        for name, curve in curves.items()
        for point in curve.points
        for score, number in point.scores.items()
    ]


def _ends(number: Number) -> Sequence[float | None]:
    return [getattr(number, end) for end in _INTERVAL]
