"""W&B as a tracker: Lightning's logger for the scalars, and an epoch's pictures, the result and the evaluation."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from lungseg.reporting.formatting import of_main_classes
from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.evaluation_tables import evaluation_tables, headline_values, thin
from lungseg.training.trackers.tracker import Picture

log = logging.getLogger(__name__)

FINISH_S = 60.0  # How long W&B's server is waited for at the end, for what is still to be sent.
_CURVES = {
    "roc": ("1 - specificity", "sensitivity"),
    "precision_recall": ("sensitivity (recall)", "precision"),
}


class WandbTracker(WandbLogger):
    """A W&B run.

    Args:
        images: Send pictures, which hold the X-rays' pixels.
        **settings: As of Lightning's `WandbLogger`.
    """

    def __init__(self, images: bool = True, **settings: Any):
        super().__init__(**settings)
        self._images = images

    def log_images(self, name: str, pictures: Sequence[Picture], epoch: int) -> None:
        """Log the pictures with their layers as masks that a reader switches on and off."""
        if not self._images:
            return
        self.experiment.log({name: [_wandb_image(picture) for picture in pictures], "epoch": epoch})

    def log_result(self, numbers: Mapping[str, float]) -> None:
        """Nothing yet: the scalars are there."""

    def log_evaluation(self, reported: Reported) -> None:
        """Log numbers, tables and curves, all in one step that goes on from the last."""
        import wandb

        results = of_main_classes(reported.results)
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
        self.experiment.log(logged)
        if results.verdict is not None:
            self.experiment.summary[f"{prefix}/shortcuts"] = results.verdict.flag


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
