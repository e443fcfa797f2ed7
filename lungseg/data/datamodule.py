"""The LightningDataModule: finds the samples of a data set, or makes phantoms, and feeds batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lungseg.config import AugmentConfig, DataConfig
from lungseg.data.batch import Batch, unpack
from lungseg.data.cache import ImageCache
from lungseg.data.dataset import LungDataset, ShardSampler, TrainSampler
from lungseg.data.duplicates import without_training_copies
from lungseg.data.index import fingerprint, load_index
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.data.sample import CLASSES, SPLITS, Sample, Split
from lungseg.errors import DataError

_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {"validate": ("val",), "test": ("test",)}
"""Training checks and decodes all splits before it starts, not Test after it."""


class LungDataModule(LightningDataModule):
    """COVID-QU-Ex, or phantoms where `data.root` is null.

    Args:
        config: Section `data`.
        augmentation: Section `augment`.
        seed: Of order, augmentation and carving a Test split.
        samples: Found already, as those of a data set that is only evaluated, which needs no Train split; None finds
            those of `data.root`.
    """

    def __init__(
        self, config: DataConfig, augmentation: AugmentConfig, seed: int, samples: Sequence[Sample] | None = None
    ):
        super().__init__()
        self.config, self.augmentation, self.seed = config, augmentation, seed
        self.samples: dict[Split, list[Sample]] = {}
        self.caches: dict[Split, ImageCache] = {}
        self.fingerprint = ""
        self.excluded = 0
        """Training images left out as copies of Val or Test images."""
        self.first_epoch = 0
        """Epoch that training starts with, when resumed; Lightning draws the first order before it says which epoch."""
        if samples is not None:
            self._take(samples)

    def prepare_data(self) -> None:
        """Write the phantom set if one is wanted and not there (on one process a node)."""
        if self.config.root is None:
            write_phantoms(self.config.phantom)

    def setup(self, stage: str | None = None) -> None:
        """Index the data set, once, and open the caches of the splits that the stage needs, or build them.

        Raises:
            DataError: What is wrong with it, in one line.
        """
        if not self.samples:
            self.find_samples()
        if self.config.cache:
            folder = Path(self.config.cache_dir) if self.config.cache_dir is not None else None
            for split in _SPLITS_OF_STAGE.get(stage, SPLITS):
                if self.samples[split] and split not in self.caches:
                    self.caches[split] = ImageCache.open_or_build(
                        self.samples[split], self.config.image_size, self.config.keep_aspect, folder
                    )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make floats of a batch's bytes, on the device."""
        return unpack(batch)

    def find_samples(self) -> None:
        """Index the data set and check it; no image is read but for `data.exclude_leaks`."""
        root = Path(self.config.root) if self.config.root is not None else write_phantoms(self.config.phantom)
        config = self.config
        index = load_index(
            root,
            test_fraction=config.test_fraction,
            seed=self.seed,
            fold=config.fold,
            folds=config.folds,
            label_map=dict(pair.split("=") for pair in config.label_map),
        )
        if config.exclude_leaks:
            found = len(index)
            index = without_training_copies(index, Path(config.cache_dir) if config.cache_dir is not None else None)
            self.excluded = found - len(index)
        self._take(index)
        if not self.samples["train"]:
            raise DataError(f"{root}: no training images; give a root with a Train folder")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented."""
        samples = self.samples["train"]
        sampler = TrainSampler([sample.label for sample in samples], self.seed, self.config.balanced, *self._place())
        sampler.set_epoch(self.first_epoch)
        drop_last = len(sampler) >= self.config.batch_size
        return self._loader(self.dataset("train"), sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """In order, each sample once; an empty list without a Val split."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """In order, each sample once; an empty list without a Test split."""
        return self._evaluation_loader("test")

    def dataset(self, split: Split) -> LungDataset:
        """The samples of a split; only `train` is augmented."""
        augmentation = self.augmentation if split == "train" else None
        config = self.config
        return LungDataset(
            self.samples[split], config.image_size, augmentation, self.seed, config.keep_aspect, self.caches.get(split)
        )

    def balanced_class_weights(self) -> list[float]:
        """Inverse of each class's share of the training labels, scaled to a mean of 1 over the labels."""
        counts = Counter(sample.label for sample in self.samples["train"] if sample.label is not None)
        total, classes = sum(counts.values()), len(CLASSES)
        return [total / (classes * counts[label]) if counts[label] else 1.0 for label in range(classes)]

    def _take(self, index: Sequence[Sample]) -> None:
        self.samples = {split: [sample for sample in index if sample.split == split] for split in SPLITS}
        self.fingerprint = fingerprint(index)

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch] | list[Any]:
        if not self.samples[split]:
            return []
        return self._loader(self.dataset(split), ShardSampler(len(self.samples[split]), *self._place()))

    def _loader(
        self, dataset: LungDataset, sampler: TrainSampler | ShardSampler, drop_last: bool = False
    ) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.config.workers
        if workers is None:
            workers = default_workers(on_gpu, self._place()[1])
        return DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=on_gpu,
            persistent_workers=workers > 0,
        )

    def _place(self) -> tuple[int, int]:
        """Rank of this process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def default_workers(on_gpu: bool, processes: int) -> int:
    """Loader processes for this machine: its cores shared by the training processes, at most 8; on a CPU at most 1.

    On a CPU the network itself fills the cores and one loader stays far ahead of it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes)) if on_gpu else min(1, cores - 1)
