"""Each epoch, the same few images: lungs, class map, the map inside the lungs, and the evidence the crop hides."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import default_collate

from lungseg.cam.lung import describe_evidence, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.cam.state import evaluating
from lungseg.config import OverlayConfig
from lungseg.data.batch import unpack
from lungseg.data.dataset import LungDataset
from lungseg.data.sample import spread_over_classes
from lungseg.models.metrics import mask_dice
from lungseg.reporting.contact_sheet import Tile, draw_sheet, layer_on_sheet
from lungseg.reporting.drawing import Array, in_lung_units, png
from lungseg.runs.whole_files import write_whole
from lungseg.training.followed_samples import COLUMNS, add_epoch, caption_of, facts_of
from lungseg.training.trackers.tracker import Layer, Picture, Tracker

_MASKS = {1: "lung", 2: "infection"}
_QUARTERS = {1: "0-25 % of the lung maximum", 2: "25-50 %", 3: "50-75 %", 4: "75-100 % or above, outside"}
"""Labels of a class map: viewers have layers of labels, but none of a scale."""


class OverlayCallback(Callback):
    """Draws a contact sheet an epoch, on rank zero, without touching the training's state.

    The PNG is written first; then each logger that is a `Tracker` gets the sheet with mask layers over its X-rays.
    Names of files stay on this machine: what is sent names samples by number.

    Args:
        config: Section `overlays`; None: its defaults.
        folder: Takes `epoch_003.png`, ..., and `samples.csv`, with what the captions say in a row a sample and epoch.
    """

    def __init__(self, config: OverlayConfig | None = None, folder: str | Path = "overlays"):
        self.config, self.folder = config or OverlayConfig(), Path(folder)
        self.drawing_s = 0.0
        """Seconds it has taken."""
        self._batch: dict[str, Any] | None = None
        # An epoch that has ended and is not drawn; early stopping may make it the last one.
        self._pending: int | None = None
        self._drawn: int | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the weights that were validated, if it is this epoch's turn."""
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._end_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw where there is nothing to validate."""
        if trainer.is_global_zero and trainer.current_epoch not in (self._pending, self._drawn):
            self._end_epoch(trainer, pl_module)

    def _end_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending = trainer.current_epoch
        if self._is_due(trainer):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last epoch if training stopped early between two turns."""
        if trainer.is_global_zero and self._pending is not None and not trainer.interrupted:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = time.perf_counter()
        if self._batch is None:
            self._batch = self._choose(trainer)
        tiles = self.tiles(trainer, pl_module, self._batch)
        sheet = draw_sheet(tiles, f"epoch {self._pending}")
        # First the file: it is there even where a logger fails or sends nothing.
        assert self._pending is not None
        write_whole(self.folder / f"epoch_{self._pending:03d}.png", png(sheet))
        rows = add_epoch(self.folder / "samples.csv", self._pending, [tile.facts for tile in tiles])
        trackers = [logger for logger in trainer.loggers if isinstance(logger, Tracker)]
        pictures = [picture_of(tiles, sheet, rows)] if trackers else []
        for tracker in trackers:
            tracker.log_images("overlays", pictures, self._pending)
        self._drawn, self._pending = self._pending, None
        self.drawing_s += time.perf_counter() - start

    def tiles(self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any]) -> list[Tile]:
        """Run the network on the chosen samples and say what is to be drawn of each."""
        # The network itself, not DDP around it, whose forward pass would be a collective call on rank zero alone.
        network: Any = pl_module.network
        with evaluating(network), torch.no_grad(), trainer.precision_plugin.forward_context():
            output = network(batch["image"].to(pl_module.device))
        probs, lung = network.probabilities(output.class_logits.float()), output.lung()
        cam = resize_map(class_map_of(output, output.top_class()), network.stride, (lung.shape[-2], lung.shape[-1]))
        truth = batch["lung"][:, 0].to(lung.device) > 0.5
        known = batch["has_lung"].to(lung.device)  # elsewhere the evidence is measured inside the predicted lungs
        evidence = describe_evidence(cam, torch.where(known.view(-1, 1, 1), truth, lung), known | network.has_lung)
        dice = mask_dice(lung, truth)
        infection = output.mask_logits[:, 1] > 0 if output.mask_logits.shape[1] > 1 else None
        true_infection = batch["infection"][:, 0] > 0.5
        classes: Sequence[str] = pl_module.classes  # type: ignore[assignment]
        scores = [float(score) if network.has_lung else None for score in dice]
        facts = [facts_of(i, batch, classes, probs[i], scores[i], evidence) for i in range(len(lung))]
        return [
            Tile(
                image=batch["image"][i, 0].numpy(),
                true_lung=truth[i].cpu().numpy() if known[i] else None,
                predicted_lung=lung[i].cpu().numpy() if network.has_lung else None,
                cam=cam[i].cpu().numpy() if classes else None,
                caption=caption_of(facts[i]),
                facts=facts[i],
                true_infection=true_infection[i].numpy() if batch["has_infection"][i] else None,
                predicted_infection=None if infection is None else infection[i].cpu().numpy(),
                warning="EVIDENCE MOSTLY OUTSIDE THE LUNGS" if bool(evidence.evidence_outside[i]) else "",
            )
            for i in range(len(lung))
        ]

    def _is_due(self, trainer: Trainer) -> bool:
        """Every n epochs and at the last one, with n raised so that the sheets stay within their bound."""
        last = (trainer.max_epochs or 1) - 1
        if trainer.current_epoch == last:
            return True
        if self.config.max_sheets == 1:  # which is kept for the last epoch
            return False
        every = max(self.config.every_n_epochs, -(-last // (self.config.max_sheets - 1)))
        return trainer.current_epoch % every == 0

    def _choose(self, trainer: Trainer) -> dict[str, Any]:
        """A batch of fixed samples spread over the classes, from Val, or from Train where there is no Val."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = data.samples["val"] or data.samples["train"]
        chosen = [samples[index] for index in spread_over_classes(samples, self.config.samples)]
        dataset = LungDataset(chosen, data.config.image_size, None, data.seed, data.config.keep_aspect)
        batch: dict[str, Any] = unpack(default_collate([dataset[0, index] for index in range(len(chosen))]))
        return batch


def picture_of(tiles: Sequence[Tile], sheet: Array, rows: Sequence[Sequence[Any]]) -> Picture:
    """The sheet with what is known and predicted of each X-ray as layers over it."""
    layers = {}
    for whose in ("true", "predicted"):
        masks = [(getattr(tile, f"{whose}_lung"), getattr(tile, f"{whose}_infection")) for tile in tiles]
        there = [any(mask is not None for mask in kind) for kind in zip(*masks, strict=True)]
        names = {label: name for label, name in _MASKS.items() if there[label - 1]}
        if names:
            labels = [_labels(tile.image.shape, *pair) for tile, pair in zip(tiles, masks, strict=True)]
            layers[whose] = Layer(layer_on_sheet(labels, sheet), names)
    maps = [_quarters(tile.cam, tile.predicted_lung) for tile in tiles if tile.cam is not None]
    if maps:
        layers["class map"] = Layer(layer_on_sheet(maps, sheet), _QUARTERS)
    lines = [tile.caption + (f" | {tile.warning}" if tile.warning else "") for tile in tiles]
    return Picture(sheet, layers, "\n".join(lines), (COLUMNS, rows))


def _labels(shape: tuple[int, ...], lung: Array | None, infection: Array | None) -> Array:
    """Masks (H, W) bool as labels uint8: the lung, and the infection over it; of what is not known nothing."""
    labels = np.zeros(shape, np.uint8)
    for label, mask in enumerate((lung, infection), start=1):
        if mask is not None:
            labels[mask] = label
    return labels


def _quarters(cam: Array, lung: Array | None) -> Array:
    """A raw map (H, W) in quarters of its maximum inside the predicted lungs: uint8 0 (no evidence), then 1 to 4."""
    inside = np.ones(cam.shape, np.bool_) if lung is None else lung
    return np.asarray(np.ceil(in_lung_units(cam, inside) * 4).clip(0, 4).astype(np.uint8))
