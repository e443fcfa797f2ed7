"""Samples to tensors, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lungseg.config import AugmentConfig
from lungseg.data.augment import augment, build_augmentation
from lungseg.data.geometry import Letterbox
from lungseg.data.images import read_image, read_mask
from lungseg.data.sample import DataError, Sample

Visit = tuple[int, int]
"""Epoch and position in the list of samples: all that a worker needs to know to make a sample."""


class LungDataset(Dataset[dict[str, Any]]):
    """Decoded, resized, augmented samples.

    An item is `image`, `lung`, `infection` (1, S, S) float32 (image in [0, 1], masks {0, 1}), `label` int, `has_lung`,
    `has_infection`, `has_label` bool, `id` str. A missing mask is all 0 and a missing label -1, with its `has_` False.

    Args:
        samples: What to read.
        image_size: Side S, pixels.
        augmentation: Section `augment`, or None for images as they are.
        seed: Of the augmentation.
    """

    def __init__(self, samples: Sequence[Sample], image_size: int, augmentation: AugmentConfig | None, seed: int):
        self.samples = samples
        self.image_size = image_size
        self.seed = seed
        self._pipeline = build_augmentation(augmentation) if augmentation else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        """Make the sample of one visit."""
        epoch, index = visit
        sample = self.samples[index]
        image, masks = self._read(sample)
        if self._pipeline is not None:
            image, masks = augment(self._pipeline, image, masks, f"{self.seed}/{epoch}/{sample.id}")
        lung, infection = (torch.from_numpy(mask)[None].float() for mask in masks)
        return {
            "image": torch.from_numpy(image)[None].float().div_(255),
            "lung": lung,
            "infection": infection,
            "label": -1 if sample.label is None else sample.label,
            "has_lung": sample.lung is not None,
            "has_infection": sample.infection is not None,
            "has_label": sample.label is not None,
            "id": sample.id,
        }

    def _read(self, sample: Sample) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
        """Image uint8 (S, S) and the masks of lung and infection, uint8 {0, 1} (S, S)."""
        image = read_image(sample.image)
        box = Letterbox.of(image.shape, self.image_size)
        masks = []
        for path in (sample.lung, sample.infection):
            if path is None:
                masks.append(np.zeros((self.image_size, self.image_size), np.uint8))
            else:
                masks.append(box.apply_mask(read_mask(path, image.shape)).astype(np.uint8))
        return box.apply(image), masks


class TrainSampler(Sampler[Visit]):
    """A new seeded order every epoch, every process its own share, the same share size on each.

    Args:
        labels: Label of each sample, None where unknown.
        seed: Of the order.
        balanced: Draw with replacement so that each class comes equally often.
        rank: Of this process.
        processes: How many there are.
    """

    def __init__(self, labels: Sequence[int | None], seed: int, balanced: bool, rank: int = 0, processes: int = 1):
        self.labels, self.seed, self.balanced = labels, seed, balanced
        self.rank, self.processes = rank, processes
        self.epoch = 0
        if balanced and all(label is None for label in labels):
            raise DataError("data.balanced: no training image has a class label; set it to false")

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.processes)

    def __iter__(self) -> Iterator[Visit]:
        order = self._order()
        order += order[: len(self) * self.processes - len(order)]  # equal shares: training steps must match on all
        return iter([(self.epoch, index) for index in order[self.rank :: self.processes]])

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        if not self.balanced:
            return torch.randperm(len(self.labels), generator=generator).tolist()
        classes = [-1 if label is None else label for label in self.labels]
        share = np.bincount(np.asarray(classes) + 1)
        weights = torch.tensor([1 / share[label + 1] for label in classes])
        return torch.multinomial(weights, len(classes), replacement=True, generator=generator).tolist()


class ShardSampler(Sampler[Visit]):
    """Every sample exactly once over all processes: shards may differ in length, nothing is repeated."""

    def __init__(self, length: int, rank: int = 0, processes: int = 1):
        self.visits = [(0, index) for index in range(rank, length, processes)]

    def __len__(self) -> int:
        return len(self.visits)

    def __iter__(self) -> Iterator[Visit]:
        return iter(self.visits)
