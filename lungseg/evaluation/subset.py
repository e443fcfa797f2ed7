"""A part of a split for what shows the network each image many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.utils.data import default_collate

from lungseg.data.batch import Batch, unpack
from lungseg.data.sample import spread_over_classes
from lungseg.errors import UserError
from lungseg.evaluation.target import EvaluationTarget


def choose_images(target: EvaluationTarget, images: int | None) -> list[int]:
    """Positions in the split of so many images spread over the classes; None, or more than there are: all.

    Raises:
        ValueError: Fewer than one image.
    """
    if images is None or images >= len(target.samples):
        return list(range(len(target.samples)))
    if images < 1:
        raise UserError(f"images: a network must be shown 1 or more images, got {images}")
    return sorted(spread_over_classes(target.samples, images))


def batches_of(target: EvaluationTarget, chosen: Sequence[int]) -> Iterator[Batch]:
    """Batches of the images chosen, on the device; of all of them, by the split's own loader."""
    if len(chosen) == len(target.samples):
        yield from target.batches()
        return
    dataset, size = target.data.dataset(target.split), target.config.data.batch_size
    starts = range(0, len(chosen), size)
    for start in target.track(starts, len(starts)):
        batch = default_collate([dataset[0, index] for index in chosen[start : start + size]])
        yield unpack({k: v.to(target.device) if isinstance(v, Tensor) else v for k, v in batch.items()})
