"""What one pass of the network over a split leaves: little enough to keep for all images, enough to measure anything.

Masks are kept compressed (under a kilobyte an image), class maps at their own small size; images are not kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.cam.layers import FEATURES, layer_stride
from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import METHODS, class_activation_map, class_map_of
from lungseg.data.batch import Batch
from lungseg.data.sample import Sample, Split
from lungseg.errors import UserError
from lungseg.evaluation.statistics import Flags, Floats, Integers
from lungseg.evaluation.target import EvaluationTarget
from lungseg.models.network import LungOutput
from lungseg.runs.progress import cores

MapClass = Literal["predicted", "label"]
"""Whose class map is measured: that of the predicted class, as a user sees it, or of the true one where it is known."""
MASKS = ("lung", "predicted_lung", "infection", "predicted_infection")


class CamMethod(NamedTuple):
    """A method of `cam.methods.METHODS` and the layer that it is applied at."""

    method: str
    layer: str = FEATURES

    @staticmethod
    def parse(text: str) -> CamMethod:
        """`NAME` or `NAME@LAYER`."""
        method, _, layer = text.strip().partition("@")
        return CamMethod(method, layer or FEATURES)

    @property
    def name(self) -> str:
        """The inverse of `parse`: what metrics.json calls it."""
        return self.method if self.layer == FEATURES else f"{self.method}@{self.layer}"


CLOSED_FORM = CamMethod("cam")


@dataclass
class BatchOutputs:
    """What is kept of the network's outputs for a batch of B images."""

    logits: Floats  # (B, C) of the classes.
    label: Integers
    """(B,), -1 where unknown; (B, C) 1 there, 0 not there, -1 unknown where an image may have several classes."""
    known: dict[str, Flags]  # (B,) whether there is a true mask: `lung`, `infection`.
    finite_masks: Flags
    """(B,): no NaN or infinity in the mask logits; where there is, what is not above zero is no mask."""
    maps: dict[CamMethod, Tensor]  # (B, h, w) float32 raw, of the class that is asked for.
    size: tuple[int, int]  # Height and width of the images, pixels.
    packed: dict[str, bytes]  # Masks by name, one bit a pixel, compressed; `mask` unpacks them.
    packed_probs: bytes | None = None  # What `infection_probs` unpacks.
    disagreement: Floats | None = None  # (B, 2) of an ensemble: classes, lungs; as `LungOutput.disagreement`.

    @property
    def single_label(self) -> Integers:
        """(B,) class of each image, -1 where it is unknown or there may be several."""
        return self.label if self.label.ndim == 1 else np.full(len(self.label), -1, np.int64)

    @property
    def lung_known(self) -> Flags:
        """(B,) whether `lung` gives lungs: true ones, or predicted ones."""
        return self.known["lung"] | ("predicted_lung" in self.packed)

    def mask(self, name: str) -> Tensor:
        """(B, H, W) bool, one of `MASKS`; all False where there is none."""
        shape = (len(self.label), *self.size)
        if name not in self.packed:
            return torch.zeros(shape, dtype=torch.bool)
        bits = np.frombuffer(zlib.decompress(self.packed[name]), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape))).astype(np.bool_)).view(shape)

    def infection_probs(self) -> Tensor:
        """(B, H, W) float32 in steps of 1/255: probabilities of infection; all 0 if no image of the batch has any."""
        shape = (len(self.label), *self.size)
        if self.packed_probs is None:
            return torch.zeros(shape)
        levels = np.frombuffer(zlib.decompress(self.packed_probs), np.uint8)
        return torch.from_numpy(levels.astype(np.float32)).view(shape) / 255

    def lung(self) -> Tensor:
        """(B, H, W) bool: the true lungs where they are known, else those predicted."""
        known = torch.from_numpy(self.known["lung"]).view(-1, 1, 1)
        return torch.where(known, self.mask("lung"), self.mask("predicted_lung"))


class Picture(NamedTuple):
    """One image with all that is shown of it."""

    number: int  # Place in the split, from 0.
    image: NDArray[np.float32]  # (H, W) in [0, 1].
    lung: Flags | None  # (H, W) true lungs; None where they are not known.
    predicted_lung: Flags | None  # (H, W); None if the network predicts none.
    infection: Flags | None  # (H, W); None where it is not known.
    predicted_infection: Flags | None  # (H, W); None if the network predicts none.
    cam: NDArray[np.float32] | None
    """(H, W) raw map of the first CAM method, any sign; NaN if the network's output is, None if it knows no classes."""


def check_cam_methods(target: EvaluationTarget, cam_methods: Sequence[CamMethod]) -> None:
    """Raise UserError for an unknown method or layer, before anything is computed."""
    for method, layer in cam_methods:
        if method not in METHODS:
            raise UserError(f"method: unknown method {method!r}; choose from {', '.join(METHODS)}")
        layer_stride(target.network, layer)


def collect_outputs(
    target: EvaluationTarget,
    cam_methods: Sequence[CamMethod],
    map_class: MapClass = "predicted",
    split: Split | None = None,
    show: Callable[[Picture], None] | None = None,
) -> list[BatchOutputs]:
    """Pass over a split, by default the one evaluated: one element a batch, on rank zero.

    `show` gets every image, several at a time, each on a thread of its own.
    """
    alone, shown = target.processes.size == 1, 0

    def show_batch(batch: Batch, batch_outputs: BatchOutputs) -> None:
        nonlocal shown
        if show is not None:
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(show, _pictures(target, batch, batch_outputs, shown)))
            shown += len(batch_outputs.label)

    def run(batch: Batch) -> BatchOutputs:
        batch_outputs = _outputs_of(target, batch, cam_methods, map_class)
        if alone:
            show_batch(batch, batch_outputs)
        return batch_outputs

    outputs = target.processes.share(run, target.batches(split))
    if show is not None and outputs and not alone:
        # other processes hold the images of their batches, so rank zero reads them once more to show them
        for batch, batch_outputs in zip(target.batches(split), outputs, strict=True):
            show_batch(batch, batch_outputs)
    return outputs


def _outputs_of(
    target: EvaluationTarget, batch: Batch, cam_methods: Sequence[CamMethod], map_class: MapClass
) -> BatchOutputs:
    """Run the network and every method on a batch."""
    network, images = target.network, batch["image"]
    with torch.no_grad():
        output = network(images)
    classes = output.top_class()
    if map_class == "label" and target.network.multi_label:  # of the findings that are there, the likeliest
        there = batch["findings"] == 1
        likeliest = output.class_logits.masked_fill(~there, -torch.inf).argmax(1)
        classes = torch.where(there.any(1), likeliest, classes)
    elif map_class == "label":
        classes = torch.where(batch["has_label"], batch["label"], classes)
    maps = {
        method: class_map_of(output, classes)
        if method == CLOSED_FORM
        else class_activation_map(network, images, classes, *method)
        for method in cam_methods
    }
    known = {name: batch[f"has_{name}"] for name in ("lung", "infection")}
    masks = {name: (batch[name][:, 0] > 0.5) & here.view(-1, 1, 1) for name, here in known.items() if here.any()}
    for logits, name in zip(output.mask_logits.unbind(1), ("predicted_lung", "predicted_infection"), strict=False):
        masks[name] = logits > 0
    probs = None
    if "infection" in masks and "predicted_infection" in masks and masks["infection"].any():
        levels = output.mask_logits[:, 1].float().sigmoid().nan_to_num(0) * 255
        probs = zlib.compress(levels.round().byte().cpu().numpy().tobytes(), 1)
    return BatchOutputs(
        logits=output.class_logits.double().cpu().numpy(),
        label=label_of(batch).cpu().numpy(),
        known={name: here.cpu().numpy() for name, here in known.items()},
        finite_masks=output.mask_logits.isfinite().flatten(1).all(1).cpu().numpy(),
        maps={method: cam.float().cpu() for method, cam in maps.items()},
        size=(images.shape[-2], images.shape[-1]),
        packed={name: zlib.compress(np.packbits(mask.cpu().numpy()).tobytes(), 1) for name, mask in masks.items()},
        packed_probs=probs,
        disagreement=None if output.disagreement is None else output.disagreement.double().cpu().numpy(),
    )


def _pictures(target: EvaluationTarget, batch: Batch, batch_outputs: BatchOutputs, first: int) -> Iterator[Picture]:
    """Every image of a batch with what is shown of it."""
    method, cam = next(iter(batch_outputs.maps), None), None
    if method is not None:
        stride = layer_stride(target.network, method.layer)
        cam = resize_map(batch_outputs.maps[method], stride, batch_outputs.size).numpy()
    image = batch["image"][:, 0].cpu().numpy()
    masks = {name: batch_outputs.mask(name).numpy() for name in MASKS}
    for i in range(len(image)):
        true = {name: masks[name][i] if batch_outputs.known[name][i] else None for name in ("lung", "infection")}
        found = [masks[name][i] if name in batch_outputs.packed else None for name in MASKS[1::2]]
        shown = None if cam is None else cam[i]
        yield Picture(first + i, image[i], true["lung"], found[0], true["infection"], found[1], shown)


def label_of(batch: Batch) -> Tensor:
    """(B,) int64, -1 where unknown; the findings (B, C) int64 where an image may have several classes."""
    if "findings" in batch:
        findings: Tensor = batch["findings"]
        return findings.long()
    return torch.where(batch["has_label"], batch["label"], -1)


def labels_of(samples: Sequence[Sample]) -> Integers:
    """The same of samples: (N,), or (N, C) where an image may have several classes."""
    if samples and samples[0].findings is not None:
        return np.array([sample.findings for sample in samples], np.int64)
    return np.array([-1 if sample.label is None else sample.label for sample in samples], np.int64)


def lungs_of(batch: Batch, output: LungOutput) -> Tensor:
    """(B, H, W) bool: the true lungs of a batch where they are known, else those that the network predicts."""
    return torch.where(batch["has_lung"].view(-1, 1, 1), batch["lung"][:, 0] > 0.5, output.lung())


def evidence_shares(output: LungOutput, lung: Tensor, stride: int) -> Tensor:
    """Share (B,) float64 of the evidence for the predicted class that lies in the lungs (B, H, W) bool."""
    cam = class_map_of(output, output.top_class())
    return evidence_in_lungs(resize_map(cam, stride, (lung.shape[-2], lung.shape[-1])), lung).double()
