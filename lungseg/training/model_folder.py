"""A trained model as a small run folder that may leave this machine: every command takes it, and it names no place."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from lungseg.config.loading import dump_config
from lungseg.models.checkpoint import read_checkpoint
from lungseg.runs.run import Run
from lungseg.runs.whole_files import digest, write_json, write_text

_NOT_SENT = "not-sent"  # In place of a folder: a command that wants it says that there is none of this name.
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
            places, `environment.json` with versions and fingerprint, and `calibration.json` if the run has one.

    Returns:
        What was written.
    """
    made, config, content = Run(folder), run.config(), read_checkpoint(run.model)
    data = replace(config.data, root=config.data.root and _NOT_SENT, cache_dir=None)
    own = replace(config.run, dir="runs", init=config.run.init and _NOT_SENT)
    loss = replace(config.loss, teacher=config.loss.teacher and _NOT_SENT)
    config = replace(config, data=data, run=own, loss=loss, model=config.model.without_paths())
    write_text(made.config_file, dump_config(config))
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
