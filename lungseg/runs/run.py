"""`Run`: one training and all that lies in its folder. The only place that knows what its files are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lungseg.config import Config
from lungseg.errors import UserError
from lungseg.runs.rank import detect_rank
from lungseg.runs.wandb_model import fetch_model, is_wandb_name

BOXED = Path(__file__).parents[1] / "models" / "boxed" / "lungseg.safetensors"  # The model that comes with the package.
BOXED_ONNX = BOXED.with_suffix(".onnx")  # The same one, exported: to predict without torch.
METRICS_FILE, ROWS_FILE = "metrics.json", "per_image.csv"  # Of an evaluation; the first is written last.
MIXED_DIVISIONS = "members of several divisions of the data"
"""In place of the fingerprint of the data, of an ensemble: between them its members may have learned from any image."""
HUB_CONFIG, HUB_WEIGHTS = "config.json", "model.safetensors"  # A folder in the layout of the Hugging Face Hub.

Kind = Literal["checkpoint", "safetensors", "onnx"]
_KINDS: dict[str, Kind] = {".ckpt": "checkpoint", ".safetensors": "safetensors", ".onnx": "onnx"}


class _Inside:
    """What lies at a path relative to the run folder."""

    def __init__(self, place: str):
        self.place = place

    def __get__(self, run: Run, owner: type[Run]) -> Path:
        return run.folder / self.place


@dataclass(frozen=True)
class Run:
    """A run where it lies: a folder with its files, or a model file that was taken out of one."""

    folder: Path  # The run folder; of a model file, the folder that holds it.
    model_file: Path | None = None  # What was opened by its own name; None stands for the run's best checkpoint.

    config_file = _Inside("config.yaml")  # The resolved config.
    environment_file = _Inside("environment.json")  # Versions, revision, host, devices, fingerprint of the data.
    best_checkpoint = _Inside("checkpoints/best.ckpt")  # Of the epoch that `run.monitor` picked.
    last_checkpoint = _Inside("checkpoints/last.ckpt")  # Of the last whole epoch; what a run is resumed from.
    metrics_csv = _Inside("metrics.csv")  # Every logged scalar with epoch and step.
    metrics_json = _Inside("metrics.json")  # The final numbers; written last, so a folder that has it is complete.
    overlays = _Inside("overlays")  # Folder of the contact sheets, one an epoch.
    calibration_file = _Inside("calibration.json")  # Temperature and operating points, chosen on Val.
    wandb_id_file = _Inside("wandb_id")  # W&B's id of this run.
    mlflow_id_file = _Inside("mlflow_id")  # MLflow's.

    @classmethod
    def open(cls, path: str | Path | None = None) -> Run:
        """Find a trained network.

        Args:
            path: A run folder, a .ckpt file in one, a .safetensors or .onnx file, a folder in the layout of the
                Hugging Face Hub, or `wandb:entity/project/name:alias` (see `fetch_model`); None takes the model that
                comes with the package.

        Raises:
            FileNotFoundError: Nothing there, or nothing in the folder that is a model.
            UserError: A file of another kind.
        """
        if path is None:
            if not BOXED.is_file():
                raise FileNotFoundError("this installation comes without a model; give one with --checkpoint RUN")
            return cls(BOXED.parent, BOXED)
        path = fetch_model(path) if is_wandb_name(path) else Path(path).expanduser()
        if path.is_dir():
            run = cls(path)
            hub = path / HUB_WEIGHTS
            if not (run.best_checkpoint.is_file() or run.last_checkpoint.is_file()) and hub.is_file():
                return cls(path, hub)
            run.model  # noqa: B018 - raises where there is none
            return run
        if not path.is_file():
            raise FileNotFoundError(f"no model at {str(path)!r}; give a run folder, .ckpt, .safetensors or .onnx file")
        if path.suffix.lower() not in _KINDS:
            raise UserError(f"{path}: not a model; give a run folder, .ckpt, .safetensors or .onnx file")
        # A checkpoint lies in RUN/checkpoints/; resolved, since `cd RUN/checkpoints` leaves a path without parents.
        is_checkpoint = path.suffix.lower() == ".ckpt"
        return cls(path.resolve().parents[1] if is_checkpoint else path.parent, path)

    @classmethod
    def create(cls, parent: Path, name: str | None, stem: str) -> Run:
        """Make the folder of a new run in `parent`, on rank zero, which tells the others.

        Without a name it counts up from `stem`, the config's (`demo`, `demo-2`, ...). FileExistsError: `name` is taken.
        """
        if name is not None:
            check_free(parent, name)
            (parent / name).mkdir(parents=True)
            return cls(parent / name)
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()  # atomic: two processes never get the same folder
            except FileExistsError:
                number += 1
            else:
                return cls(path)

    @classmethod
    def resume(cls, parent: Path, name: str | None) -> Run:
        """Find the run to continue; a FileNotFoundError if there is no such folder."""
        if name is None:
            raise UserError("run.resume: needs run.name, the run folder to continue, got null")
        if not (parent / name).is_dir():
            raise FileNotFoundError(
                f"run.resume: no run folder {str(parent / name)!r} to continue; set run.resume=false to start it"
            )
        return cls(parent / name)

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.folder.name

    def evaluation(self, scope: str) -> Path:
        """Folder of an evaluation: `test`, `val`, or `NAME-all` and the like of another data set."""
        return self.folder / "evaluation" / scope

    @property
    def model(self) -> Path:
        """The file with the weights: the one opened, else the best checkpoint, else the last; a FileNotFoundError."""
        for path in (self.model_file, self.best_checkpoint, self.last_checkpoint):
            if path is not None and path.is_file():
                return path
        raise FileNotFoundError(
            f"no model in {str(self.folder)!r}; it has neither checkpoints/best.ckpt (a run folder) nor {HUB_WEIGHTS}"
        )

    @property
    def kind(self) -> Kind:
        """What `model` is."""
        return _KINDS[self.model.suffix.lower()]

    def config(self, words: Sequence[str] = ()) -> Config:
        """The config of the run with words `key=value` over it, as `load_config` reads it.

        Raises:
            FileNotFoundError: A checkpoint that was taken out of its run folder.
        """
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.config_file}: not there; keep the checkpoint in its run folder")
        from lungseg.config.loading import load_config  # with OmegaConf, which a prediction does without

        config = load_config(self.config_file, list(words))
        named = "split_seed" in self.config_file.read_text() or any(
            word.startswith("data.split_seed=") for word in words
        )
        # Runs of earlier versions divided their data by the seed of the training.
        return config if named else replace(config, data=replace(config.data, split_seed=config.run.seed))

    def environment(self) -> dict[str, Any]:
        """What `environment.json` holds; empty where there is none."""
        path = self.environment_file
        content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return content

    @property
    def fingerprint(self) -> str | None:
        """Of the data that the run was trained on, as far as its folder tells."""
        return self.environment().get("data_fingerprint") or None


def check_free(parent: Path, name: str | None) -> None:
    """Raise FileExistsError if a new run of that name would have to overwrite a folder; on rank zero only."""
    if name is not None and detect_rank().is_zero and (parent / name).exists():
        raise FileExistsError(
            f"run.name: run folder {str(parent / name)!r} exists; "
            "choose another run.name, or continue it with run.resume=true"
        )
