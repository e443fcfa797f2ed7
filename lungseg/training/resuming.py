"""Continuing a run from its last whole epoch, as the run that it is: words cannot change what has been learned."""

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from lungseg.config import Config
from lungseg.config.fields import field_types
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import UserError
from lungseg.models.checkpoint import read_checkpoint
from lungseg.runs.run import Run

_MAY_CHANGE = (
    *("trainer.", "overlays.", "wandb.", "run.dir", "run.name", "run.resume", "run.report", "run.tensorboard"),
    *("run.mlflow", "data.root", "data.phantom.dir", "data.cache", "data.workers"),
)
"""Starts of the keys that a run takes up anew when it goes on. Of the others the optimiser, or what is best so far,
would keep what was, and `config.yaml` would tell of what never was."""


def last_row(run: Run) -> dict[str, Any]:
    """Epoch, step and training scores of the last whole epoch, after which a run can go on; empty without one.

    Raises:
        UserError: Its last checkpoint cannot be read.
    """
    last = run.last_checkpoint
    if not last.is_file():
        return {}
    try:
        content = read_checkpoint(last)
    except UserError as error:
        best = run.best_checkpoint
        hint = f"; to go on from the best epoch, copy {best} over it" if _is_readable(best) else ""
        raise UserError(f"run.resume: {error}{hint}") from error
    place: dict[str, Any] = {"epoch": content["epoch"], "step": int(content.get("global_step", 0)) - 1}
    return place | dict(content.get("train_scores", {}))


def seconds_before(run: Run) -> float:
    """What a run had taken by its last whole epoch; 0 in checkpoints of earlier versions."""
    return float(read_checkpoint(run.last_checkpoint).get("fit_seconds", 0.0))


def check_continues(run: Run, config: Config, data: LungDataModule, done: int) -> None:
    """Refuse to continue a run with other settings, on other data, or to an epoch that lies behind it.

    Args:
        run: The run folder.
        config: That it shall go on with.
        data: Of that config, its samples found.
        done: Whole epochs. Where that is 0 anything may change: nothing has been learned.

    Raises:
        UserError: In one line, with the first key.
    """
    if done == 0:
        return
    before = run.config()
    differing = [
        f"{key} is {_value(before, key)!r} in {run.config_file} and {_value(config, key)!r} here"
        for key in field_types()
        if not key.startswith(_MAY_CHANGE) and _value(before, key) != _value(config, key)
    ]
    anew = f"start a new run from its weights with run.init={run.folder}"
    go_on = f"go on with --config {run.config_file} run.name={run.name} run.resume=true"
    if differing:
        more = f" (and {len(differing) - 1} more)" if differing[1:] else ""
        raise UserError(f"run.resume: {differing[0]}{more}; {go_on}, or {anew}")
    if run.fingerprint not in (None, data.fingerprint):
        raise UserError(
            f"run.resume: images, labels or their division are not those that {run.folder} was trained on (fingerprint "
            f"{run.fingerprint}, here {data.fingerprint}); give it the same data, or {anew}"
        )
    if config.trainer.max_epochs < done:
        raise UserError(f"trainer.max_epochs: {done} epochs of {run.folder} are done, got {config.trainer.max_epochs}")


def keep_config(run: Run, config: Config, done: int) -> None:
    """Put the config aside that a run has had for its first `done` epochs, if it goes on with another."""
    if done == 0:
        return
    before = run.config()
    if replace(before, run=replace(before.run, resume=config.run.resume)) != config:
        run.config_file.replace(run.config_file.with_name(f"config.epoch-{done - 1}.yaml"))


def _value(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


def _is_readable(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except (UserError, OSError):
        return False
    return True
