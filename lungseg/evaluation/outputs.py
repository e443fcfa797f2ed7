"""What one pass of the network over a split leaves: little enough to keep for all images, enough to measure anything.

Masks are kept compressed (under a kilobyte an image), class maps at their own small size; images are not kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.cam.layers import FEATURES, layer_stride
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import METHODS, class_activation_map, class_map_of
from lungseg.data.batch import Batch
from lungseg.data.sample import Split
from lungseg.errors import UserError
from lungseg.evaluation.statistics import Flags, Floats, Integers
from lungseg.evaluation.target import Subject
from lungseg.runs.progress import cores

Target = Literal["predicted", "label"]
Way = tuple[str, str]
"""A method of `METHODS` and a layer."""
MASKS = ("lung", "predicted_lung", "infection", "predicted_infection")


@dataclass
class Look:
    """What is left of a batch of B images."""

    logits: Floats
    """(B, C) of the classes."""
    label: Integers
    """(B,), -1 where unknown."""
    known: dict[str, Flags]
    """(B,) whether there is a true mask: `lung`, `infection`."""
    finite_masks: Flags
    """(B,): no NaN or infinity in the mask logits; where there is, what is not above zero is no mask."""
    maps: dict[Way, Tensor]
    """(B, h, w) float32 raw, of the class that is asked for."""
    size: tuple[int, int]
    """Height and width of the images, pixels."""
    packed: dict[str, bytes]

    def mask(self, name: str) -> Tensor:
        """(B, H, W) bool, one of `MASKS`; all False where there is none."""
        shape = (len(self.label), *self.size)
        if name not in self.packed:
            return torch.zeros(shape, dtype=torch.bool)
        bits = np.frombuffer(zlib.decompress(self.packed[name]), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape))).astype(np.bool_)).view(shape)

    def lung(self) -> Tensor:
        """(B, H, W) bool: the true lungs where they are known, else those predicted."""
        known = torch.from_numpy(self.known["lung"]).view(-1, 1, 1)
        return torch.where(known, self.mask("lung"), self.predicted_lung())

    def predicted_lung(self) -> Tensor:
        """(B, H, W) bool."""
        return self.mask("predicted_lung")


class Picture(NamedTuple):
    """One image with all that is shown of it."""

    number: int
    """Place in the split, from 0."""
    image: NDArray[np.float32]
    """(H, W) in [0, 1]."""
    lung: Flags | None
    """(H, W) true lungs; None where they are not known."""
    predicted_lung: Flags
    """(H, W)."""
    infection: Flags | None
    """(H, W); None where it is not known."""
    predicted_infection: Flags | None
    """(H, W); None if the network predicts none."""
    cam: NDArray[np.float32]
    """(H, W) raw map of the first way, any sign; NaN if the network's output is."""


def check_ways(subject: Subject, ways: Sequence[Way]) -> None:
    """Raise ValueError for an unknown method or layer, before anything is computed."""
    for method, layer in ways:
        if method not in METHODS:
            raise UserError(f"method: unknown method {method!r}; choose from {', '.join(METHODS)}")
        layer_stride(subject.network, layer)


def look_at(
    subject: Subject,
    ways: Sequence[Way],
    target: Target = "predicted",
    split: Split | None = None,
    show: Callable[[Picture], None] | None = None,
) -> list[Look]:
    """Pass over a split, by default the one evaluated.

    Args:
        subject: Network and data.
        ways: Methods and the layers they are applied at.
        target: Whose map: of the predicted class, as a user sees it, or of the true one where it is known.
        split: Of the same data.
        show: Given every image, several at a time, each on a thread of its own.

    Returns:
        A look for each batch; on a process of a team other than rank zero, none.
    """
    if show is None or subject.team.size > 1:
        looks = subject.team.share(lambda batch: _look(subject, batch, ways, target), subject.batches(split))
        if show is not None and looks:
            _show_all(subject, zip(subject.batches(split), looks, strict=True), show)
        return looks
    looks = []

    def looked() -> Iterator[tuple[Batch, Look]]:
        for batch in subject.batches(split):
            looks.append(_look(subject, batch, ways, target))
            yield batch, looks[-1]

    _show_all(subject, looked(), show)
    return looks


def _show_all(subject: Subject, looked: Iterable[tuple[Batch, Look]], show: Callable[[Picture], None]) -> None:
    number = 0
    with ThreadPoolExecutor(cores()) as pool:
        for batch, look in looked:
            for _ in pool.map(show, _pictures(subject, batch, look, number)):
                pass
            number += len(look.label)


def _look(subject: Subject, batch: Batch, ways: Sequence[Way], target: Target) -> Look:
    """Run the network and every method on a batch."""
    network, images = subject.network, batch["image"]
    with torch.no_grad():
        output = network(images)
    predicted = output.class_logits.argmax(1)
    classes = torch.where(batch["has_label"], batch["label"], predicted) if target == "label" else predicted
    maps = {
        way: class_map_of(output, classes)
        if way == ("cam", FEATURES)
        else class_activation_map(network, images, classes, *way)
        for way in ways
    }
    known = {name: batch[f"has_{name}"] for name in ("lung", "infection")}
    masks = {name: (batch[name][:, 0] > 0.5) & here.view(-1, 1, 1) for name, here in known.items() if here.any()}
    for logits, name in zip(output.mask_logits.unbind(1), ("predicted_lung", "predicted_infection"), strict=False):
        masks[name] = logits > 0
    return Look(
        logits=output.class_logits.double().cpu().numpy(),
        label=torch.where(batch["has_label"], batch["label"], -1).cpu().numpy(),
        known={name: here.cpu().numpy() for name, here in known.items()},
        finite_masks=output.mask_logits.isfinite().flatten(1).all(1).cpu().numpy(),
        maps={way: cam.float().cpu() for way, cam in maps.items()},
        size=(images.shape[-2], images.shape[-1]),
        packed={name: zlib.compress(np.packbits(mask.cpu().numpy()).tobytes(), 1) for name, mask in masks.items()},
    )


def _pictures(subject: Subject, batch: Batch, look: Look, first: int) -> Iterator[Picture]:
    """Every image of a batch with what is shown of it."""
    way = next(iter(look.maps))
    cam = resize_map(look.maps[way], layer_stride(subject.network, way[1]), look.size).numpy()
    image = batch["image"][:, 0].cpu().numpy()
    masks = {name: look.mask(name).numpy() for name in MASKS}
    for i in range(len(image)):
        true = {name: masks[name][i] if look.known[name][i] else None for name in ("lung", "infection")}
        infection = masks["predicted_infection"][i] if "predicted_infection" in look.packed else None
        yield Picture(
            first + i, image[i], true["lung"], masks["predicted_lung"][i], true["infection"], infection, cam[i]
        )
