"""W&B as a tracker: Lightning's logger for the scalars, and an epoch's pictures, the result and the evaluation."""

import logging
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lungseg.reporting.formatting import of_main_classes
from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.evaluation_tables import evaluation_tables, headline_values, image_table, thin
from lungseg.training.trackers.tracker import STEP_LOSS, Picture, of_best_epoch

log = logging.getLogger(__name__)

FINISH_S = 60.0  # How long W&B's server is waited for at the end, for what is still to be sent.
_EPOCH, _STEP = "epoch", "trainer/global_step"
_OF_EPOCHS = ("train/", "val/")  # Starts of the names of scores that every epoch has.
_COUNTS = ("empty_truth", "empty_prediction", "evidence_undefined")  # Of images: the fewer the better.
_CURVES = {
    "roc": ("1 - specificity", "sensitivity"),
    "precision_recall": ("sensitivity (recall)", "precision"),
}


class WandbTracker(WandbLogger):
    """A W&B run in which all that belongs to an epoch stands in one row, so that charts and pictures move together.

    What comes is collected: an epoch's pictures, its validation, and last its training scores, with which the row is
    logged. A row also ends where something of another step comes, or a name that it has; so of several validations
    within an epoch each has a row. Losses of single steps have rows of their own. The run's summary holds the best
    value so far of each score of an epoch, and at the end `best_epoch` and, as `best/...`, the numbers of that epoch.

    Args:
        images: Send pictures, which hold the X-rays' pixels.
        before: Rows of `metrics.csv` of a run that is resumed: offline, W&B's client does not know its best values.
        **settings: As of Lightning's `WandbLogger`.
    """

    def __init__(self, images: bool = True, before: Sequence[Mapping[str, str]] = (), **settings: Any):
        super().__init__(**settings)
        self._images = images
        self._row: dict[str, Any] = {}  # Not logged yet.
        self._defined: set[str] = set()
        self._tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = {}  # Of pictures, each the latest.
        self._best: dict[str, float] = {}
        for row in before:
            self._improve(
                {name: float(v) for name, v in row.items() if v and name.startswith(_OF_EPOCHS) and name != STEP_LOSS}
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Collect scalars; log at once what is of a single step, and the row of an epoch with its training scores."""
        row = dict(metrics) | ({} if step is None else {_STEP: step})
        if STEP_LOSS in metrics:
            self._commit()
            self.experiment.log(row)
            return
        self._collect(row)
        if any(name.startswith("train/") for name in metrics):
            self._commit()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log what is left: the test, the picture of an epoch that early stopping made the last, or a failed epoch."""
        self._commit()
        super().finalize(status)

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Log the pictures with their layers as masks that a reader switches on and off; keep their table."""
        self._tables |= {f"{name}_samples": picture.table for picture in pictures if picture.table[1]}
        if not self._images:
            return
        self._collect({_EPOCH: epoch, name: [_wandb_image(picture) for picture in pictures]})

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Put the numbers beside the best values in the summary, and log the tables, each once: they grow by epoch."""
        import wandb

        self.experiment.summary.update(of_best_epoch(numbers))
        if self._tables:
            tables = {name: wandb.Table(list(columns), list(rows)) for name, (columns, rows) in self._tables.items()}
            self.experiment.log(tables)

    def alert(self, title: str, text: str) -> None:
        """Send a message to those who follow the project."""
        self.experiment.alert(title, text, level="WARN")

    def log_model(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Log a model's folder as an artifact called as the run is; `best` is the newest of that name."""
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]", "-", str(self.experiment.name))[:128]
        artifact = wandb.Artifact(name, type="model", metadata=dict(about))
        artifact.add_dir(str(folder))
        self.experiment.log_artifact(artifact, aliases=["best", name])

    def log_evaluation(self, reported: Reported) -> None:
        """Log numbers, tables and curves, all in one step that goes on from the last."""
        import wandb

        results = of_main_classes(reported.results)
        prefix = f"evaluation_{results.setup.split}"
        logged: dict[str, Any] = {f"{prefix}/{name}": value for name, value in headline_values(results).items()}
        for name, (columns, rows) in (evaluation_tables(results) | {"images": image_table(reported)}).items():
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
        self.experiment.log(logged)
        if results.verdict is not None:
            self.experiment.summary[f"{prefix}/shortcuts"] = results.verdict.flag

    def _collect(self, row: Mapping[str, Any]) -> None:
        here = self._row
        other_place = any(here.get(axis, row[axis]) != row[axis] for axis in (_EPOCH, _STEP) if axis in row)
        if other_place or (here.keys() & row.keys()) - {_EPOCH, _STEP}:
            self._commit()
        self._row = {**self._row, **row}

    def _commit(self) -> None:
        row, self._row = self._row, {}
        if not row:
            return
        run, scores = self.experiment, [name for name in row if name.startswith(_OF_EPOCHS)]
        # Lightning has made the step the axis of everything; what an epoch has one of is drawn over epochs.
        for name in row.keys() - self._defined - {_EPOCH, _STEP}:
            # A summary of W&B's own kind would stand under `val/dice.max`, where no sweep looks for `val/dice`.
            run.define_metric(name, step_metric=_EPOCH, summary="none" if name in scores else None)
        self._defined |= row.keys()
        run.log(row)  # without a step of ours: W&B drops what comes with a lower one than it has seen
        if self._improve({name: row[name] for name in scores}):
            run.summary.update(self._best)

    def _improve(self, scores: Mapping[str, float]) -> bool:
        """Keep those of an epoch's scores that are the best so far; whether there are any."""
        better = {name: v for name, v in scores.items() if _is_better(name, v, self._best.get(name, math.nan))}
        self._best |= better
        return bool(better)


def _is_better(name: str, value: float, than: float) -> bool:
    """Whether a score has improved: losses fall, all others rise; anything is better than NaN."""
    falls = name.endswith(("loss", "cross_entropy", *_COUNTS))
    return not math.isnan(value) and (math.isnan(than) or (value < than if falls else value > than))


def finish_wandb(exit_code: int) -> None:
    """End the W&B run that is open, if any, with this code: left to itself it would end as finished, and in silence.

    What a slow server has not taken within `FINISH_S` stays on the disk, and a line says how to send it.
    """
    # Importing wandb, which takes seconds, only to find that there is no run would delay every end.
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    folder, is_online = Path(wandb.run.dir).parent, not wandb.run.offline
    if is_online:
        print(f"W&B         sending what is left, for {FINISH_S:.0f} s at most", flush=True)
    try:
        wandb.finish(exit_code=exit_code)
    except TimeoutError:
        log.warning("W&B: not all was sent in %.0f s; send the rest with: wandb sync %s", FINISH_S, folder)
    except Exception as error:  # its service may have died; the run is complete without it
        log.warning("W&B: its run could not be ended: %s", " ".join(str(error).split())[:200] or type(error).__name__)


def unsent_folder(run_folder: Path) -> Path | None:
    """Where the W&B run that is open lies if it is offline; None if there is none, or it is sent as it goes.

    A run that was resumed has a folder for each time, and gets the pattern of their names.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None or not wandb.run.offline:
        return None
    folders = sorted(run_folder.glob("wandb/offline-run-*"))
    return folders[-1] if len(folders) == 1 else run_folder / "wandb" / "offline-run-*"


def _wandb_image(picture: Picture) -> Any:
    import wandb

    masks = {
        name: {"mask_data": layer.labels, "class_labels": layer.names}  # label 0, which has no name, is not shown
        for name, layer in picture.layers.items()
    }
    return wandb.Image(picture.pixels, caption=picture.caption, masks=masks or None)
