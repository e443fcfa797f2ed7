"""Samples to tensors, and the order in which an epoch visits them."""

import pickle
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lungseg.config import AugmentConfig
from lungseg.data.augment import augment
from lungseg.data.batch import to_item
from lungseg.data.cache import ImageCache
from lungseg.data.decode import read_sample
from lungseg.data.sample import Sample
from lungseg.errors import DataError

Visit = tuple[int, int]
"""Number of the draw of a sample, from 0 (the epoch, where it is drawn once an epoch), and its position in the list:
all that a worker needs to know to make it."""


class LungDataset(Dataset[dict[str, Any]]):
    """Samples, read from their cache (in its order) or decoded, and augmented; items as `batch.to_item` makes them.

    Without an augmentation images are as they are; what is not square is letterboxed, or else stretched, to a side of
    `image_size` pixels. The seed is that of the augmentation. `infection_unknown` are the labels whose empty infection
    masks say nothing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        augmentation: AugmentConfig | None,
        seed: int,
        keep_aspect: bool = True,
        cache: ImageCache | None = None,
        infection_unknown: Collection[int] = (),
    ):
        # One block of bytes: a list of objects would be copied into every worker, page by page, because Python counts
        # the references to each that is looked at.
        packed = [pickle.dumps(sample) for sample in samples]
        self._packed, self._ends = b"".join(packed), np.cumsum([0, *map(len, packed)])
        self.image_size, self.keep_aspect = image_size, keep_aspect
        self.augmentation, self.seed = augmentation, seed
        self.cache, self.infection_unknown = cache, frozenset(infection_unknown)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        """Make the sample of one visit: its bytes depend on seed, draw and id alone."""
        draw, index = visit
        sample: Sample = pickle.loads(self._packed[self._ends[index] : self._ends[index + 1]])
        if self.cache is not None:
            image, masks = self.cache.read(index)
        else:
            image, masks = read_sample(sample, self.image_size, self.keep_aspect)
        if self.augmentation is not None:
            image, masks = augment(self.augmentation, image, masks, f"{self.seed}/{draw}/{sample.id}")
        return to_item(sample, image, masks, self.infection_unknown.isdisjoint(sample.labels))


class TrainSampler(Sampler[Visit]):
    """A new seeded order every epoch, every rank its own share, the same share size on each.

    With `balanced`, samples are drawn with replacement so that each class comes equally often; no label is None. With
    `always_the_same`, every epoch has the order of the first. All `views` of an image follow each other.
    """

    def __init__(
        self,
        labels: Sequence[int | None],
        seed: int,
        balanced: bool,
        rank: int = 0,
        world_size: int = 1,
        always_the_same: bool = False,
        views: int = 1,
    ):
        self.labels, self.seed, self.balanced, self.always_the_same = labels, seed, balanced, always_the_same
        self.rank, self.world_size, self.views = rank, world_size, views
        self.epoch = 0
        if balanced and all(label is None for label in labels):
            raise DataError("data.balanced: no training image has a class label; set it to false")

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each."""
        self.epoch = 0 if self.always_the_same else epoch

    def __len__(self) -> int:
        return self.views * -(-len(self.labels) // self.world_size)

    def __iter__(self) -> Iterator[Visit]:
        order = self._order()
        # Equal shares: a rank with one more step than the others would wait for them for ever.
        order += order[: -len(order) % self.world_size]
        draws = range(self.epoch * self.views, (self.epoch + 1) * self.views)
        return iter([(draw, index) for index in order[self.rank :: self.world_size] for draw in draws])

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        if not self.balanced:
            return torch.randperm(len(self.labels), generator=generator).tolist()
        classes = [-1 if label is None else label for label in self.labels]
        share = np.bincount(np.asarray(classes) + 1)
        # What has no label counts as a class of its own, so that its images are drawn too.
        weights = torch.tensor([1 / share[label + 1] for label in classes])
        return torch.multinomial(weights, len(classes), replacement=True, generator=generator).tolist()


class ShardSampler(Sampler[Visit]):
    """Every sample exactly once over all processes: shards may differ in length, nothing is repeated."""

    def __init__(self, length: int, rank: int = 0, world_size: int = 1):
        self.visits = [(0, index) for index in range(rank, length, world_size)]

    def __len__(self) -> int:
        return len(self.visits)

    def __iter__(self) -> Iterator[Visit]:
        return iter(self.visits)
