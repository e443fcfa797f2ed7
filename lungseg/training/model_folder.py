"""A trained model as a small run folder that may leave this machine: every command takes it, and it names no place."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lungseg.config import WandbConfig
from lungseg.config.loading import dump_config, hide_places
from lungseg.models.checkpoint import read_checkpoint
from lungseg.runs.run import Run
from lungseg.runs.whole_files import digest, write_json, write_text
from lungseg.training.trackers.guarded import GuardedTracker

log = logging.getLogger(__name__)

NOT_SENT = "not-sent"  # In place of a folder or a file: a command that wants it says that there is none of this name.
_KEPT = (
    "lungseg",
    "packages",
    "data_fingerprint",
)  # Of `environment.json`; not who trained it, where and by what words.


def write_model_folder(run: Run, folder: Path) -> Run:
    """Write a run's best weights, config, fingerprint of the data, and what was chosen on Val.

    Args:
        run: A run folder with a best or a last checkpoint.
        folder: There, and empty. It takes `checkpoints/best.ckpt` without the optimiser's state, `config.yaml` without
            places and accounts, `environment.json` with versions and fingerprint, and `calibration.json` if the run
            has one.

    Returns:
        What was written.
    """
    made, content = Run(folder), read_checkpoint(run.model)
    write_text(made.config_file, dump_config(replace(hide_places(run.config(), NOT_SENT), wandb=WandbConfig())))
    environment = run.environment()
    write_json(made.environment_file, {name: environment[name] for name in _KEPT if name in environment})
    made.best_checkpoint.parent.mkdir(parents=True)
    kept = {name: content[name] for name in ("epoch", "global_step", "state_dict", "lungseg") if name in content}
    torch.save(kept, made.best_checkpoint)
    if run.calibration_file.is_file():
        chosen = json.loads(run.calibration_file.read_text(encoding="utf-8"))
        if chosen.get("checkpoint_digest") == digest(run.model):
            about = {"checkpoint": made.best_checkpoint.name, "checkpoint_digest": digest(made.best_checkpoint)}
            write_json(made.calibration_file, chosen | about)
    return made


def send_model(run: Run, trackers: Sequence[object], about: Mapping[str, Any]) -> None:
    """Hand the model of a run, with what is known about it, to those of its trackers that take models."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_model_folder(run, Path(folder))
        except (OSError, RuntimeError, ValueError) as error:  # of torch's, too, where the disk is full
            log.warning("the model is not sent: %s", error)
            return
        for tracker in trackers:
            if isinstance(tracker, GuardedTracker):
                tracker.log_model(Path(folder), about)
