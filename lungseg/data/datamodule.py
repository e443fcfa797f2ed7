"""The LightningDataModule: finds the samples of a data set, or makes phantoms, and feeds batches."""

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lungseg.config import AugmentConfig, DataConfig
from lungseg.data.batch import Batch, unpack
from lungseg.data.cache import ImageCache, say_what_comes
from lungseg.data.classes import unknown_infections
from lungseg.data.dataset import LungDataset, ShardSampler, TrainSampler
from lungseg.data.duplicates import without_training_copies
from lungseg.data.index import fingerprint, load_data_set
from lungseg.data.mixup import draw_pairs, mix
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.data.sample import SPLITS, Sample, Split
from lungseg.errors import DataError
from lungseg.runs.progress import cores
from lungseg.runs.rank import detect_rank, own_cores

# Training is not listed: it checks and decodes all splits before it starts, so that a broken test image is not found
# after hours of work.
_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {"validate": ("val",), "test": ("test",)}


class LungDataModule(LightningDataModule):
    """COVID-QU-Ex, or phantoms where `data.root` is null; the seed is that of order and augmentation.

    `samples` are found already, as those of a data set that is only evaluated, which needs no Train split; None finds
    those of `data.root`. Once they are found, `config` names their classes, and those of unknown infection. Keys of the
    section may be given by name, as `root` and `image_size`, instead of the section or over it.
    """

    def __init__(
        self,
        config: DataConfig | None = None,
        augmentation: AugmentConfig | None = None,
        seed: int = 0,
        samples: Sequence[Sample] | None = None,
        **keys: Any,
    ):
        super().__init__()
        config = replace(config or DataConfig(), **keys)
        self.config, self.augmentation, self.seed = config, augmentation or AugmentConfig(), seed
        self._cache_folder = Path(config.cache_dir) if config.cache_dir is not None else None
        self.samples: dict[Split, list[Sample]] = {}
        self.caches: dict[Split, ImageCache] = {}
        self.fingerprint, self.layout = "", ""
        self.excluded = 0  # training images left out as copies of Val or Test images
        self.always_the_same = False
        """Training images come in one order and without augmentation: to overfit on the first batches."""
        # When a run is resumed, Lightning draws the first order before it says which epoch it is.
        self.first_epoch = 0
        if samples is not None:
            self._take(samples, config.classes or ())

    @property
    def classes(self) -> list[str]:
        """Names of the classes in label order; empty until the samples are found."""
        return self.config.classes or []

    def prepare_data(self) -> None:
        """Write the phantom set if one is wanted and not there (on one process a node)."""
        if self.config.root is None:
            write_phantoms(self.config.phantom)

    def setup(self, stage: str | None = None) -> None:
        """Index the data set, once, and open the caches of the splits that the stage needs, or build them."""
        if not self.samples:
            self.find_samples()
        config = self.config
        cached = config.cache if isinstance(config.cache, list) else SPLITS if config.cache else ()
        new = {
            split: ImageCache.locate(samples, config.image_size, config.keep_aspect, self._cache_folder)
            for split in _SPLITS_OF_STAGE.get(stage, SPLITS)
            if split in cached and split not in self.caches and (samples := self.samples[split])
        }
        say_what_comes(list(new.values()))
        for split, cache in new.items():
            self.caches[split] = cache.build(self.samples[split], config.keep_aspect)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Say which items of a training batch are views of one image, and draw which are mixed, where that is on."""
        if self.trainer is None or not self.trainer.training:
            return batch
        if self.augmentation.views > 1:  # here, on the host: a device knows no ids
            batch = {**batch, "view_of": torch.from_numpy(np.unique(batch["id"], return_inverse=True)[1])}
        alpha = self.augmentation.mixup
        if alpha == 0 or self.always_the_same:
            return batch
        return draw_pairs(batch, alpha, f"mixup/{self.seed}/{self.trainer.current_epoch}")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make floats of a batch's bytes, and mix what is to be mixed, on the device."""
        batch = unpack(batch)
        return mix(batch) if "share" in batch else batch

    def find_samples(self) -> None:
        """Index the data set and check it; no image is read but for `data.exclude_leaks`."""
        config = self.config
        root = Path(config.root) if config.root is not None else write_phantoms(config.phantom)
        share, labels = config.test_fraction, dict(pair.split("=") for pair in config.label_map)
        reading = load_data_set(
            root,
            test_fraction=share,
            seed=config.split_seed,
            fold=config.fold,
            folds=config.folds,
            label_map=labels,
            classes=config.classes,
            multi_label=config.multi_label,
        )
        if len(reading.classes) == 1 and not config.multi_label:
            raise DataError(
                f"{root}: all images are of one class, {reading.classes[0]!r}; data.classes may name others"
            )
        index = reading.samples
        if config.exclude_leaks:
            kept = without_training_copies(index, self._cache_folder)
            index, self.excluded = kept, len(index) - len(kept)
        self.layout = reading.layout
        self._take(index, reading.classes)
        if not self.samples["train"]:
            raise DataError(f"{root}: no training images; give a root with a Train folder")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches: shuffled anew every epoch, and augmented."""
        samples = self.samples["train"]
        sampler = TrainSampler(
            [sample.stratum for sample in samples],
            self.seed,
            self.config.balanced,
            *self._rank(),
            self.always_the_same,
            self.augmentation.views,
        )
        sampler.set_epoch(self.first_epoch)
        drop_last = len(sampler) >= self.config.batch_size  # one image alone has no batch statistics
        return self._loader(self.dataset("train"), sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Validation batches in order, each sample once; an empty list without a Val split."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Test batches in order, each sample once; an empty list without a Test split."""
        return self._evaluation_loader("test")

    def dataset(self, split: Split) -> LungDataset:
        """The samples of a split; only `train` is augmented."""
        augmentation = self.augmentation if split == "train" and not self.always_the_same else None
        size_px = self.config.image_size
        samples, cache = self.samples[split], self.caches.get(split)
        unknown = unknown_infections(self.config.infection_unknown, self.classes)
        return LungDataset(samples, size_px, augmentation, self.seed, self.config.keep_aspect, cache, unknown)

    def balanced_class_weights(self) -> list[float]:
        """Inverse of each class's share of the training labels, scaled to a mean of 1 over the labels.

        Of several findings an image: how many images without each there are for one with it.
        """
        if self.config.multi_label:
            marks = np.array([sample.findings for sample in self.samples["train"]], np.int8)
            there, absent = (np.count_nonzero(marks == mark, axis=0) for mark in (1, 0))
            return [float(no / yes) if yes and no else 1.0 for yes, no in zip(there, absent, strict=True)]
        counts = Counter(sample.label for sample in self.samples["train"] if sample.label is not None)
        total, classes = sum(counts.values()), len(self.classes)
        return [total / (classes * counts[label]) if counts[label] else 1.0 for label in range(classes)]

    def _take(self, index: Sequence[Sample], classes: Sequence[str]) -> None:
        unknown = [classes[label] for label in unknown_infections(self.config.infection_unknown, classes)]
        self.config = replace(self.config, classes=list(classes), infection_unknown=unknown)
        self.samples = {split: [sample for sample in index if sample.split == split] for split in SPLITS}
        self.fingerprint = fingerprint(index)

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch] | list[Any]:
        if not self.samples[split]:
            return []
        return self._loader(self.dataset(split), ShardSampler(len(self.samples[split]), *self._rank()))

    def _loader(
        self, dataset: LungDataset, sampler: TrainSampler | ShardSampler, drop_last: bool = False
    ) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        asked = self.config.workers
        workers = default_workers(on_gpu, *self._nodes()) if asked is None else asked
        return TimedLoader(
            dataset,
            batch_size=self.config.batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=on_gpu,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_parent,
        )

    def _rank(self) -> tuple[int, int]:
        """Rank of this process and world size."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _nodes(self) -> tuple[int, int]:
        """World size and number of nodes."""
        return (self.trainer.world_size, self.trainer.num_nodes) if self.trainer is not None else (1, 1)


class TimedLoader(DataLoader[Batch]):
    """Counts the seconds that whoever takes its batches has to wait for them.

    Only the time inside of `next` counts: not what is done with a batch, nor its way to the device. The very first
    batch is left out, as it also waits for the workers to start; the first of a later epoch is not.
    """

    waited_s = 0.0
    _has_started = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises a class of its own, private
        start = time.perf_counter()
        for batch in super().__iter__():
            if self._has_started:
                self.waited_s += time.perf_counter() - start
            self._has_started = True
            yield batch
            start = time.perf_counter()


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore Ctrl-C and a closed terminal, which reach all processes: the training ends its workers itself.

    And SIGTERM in the workers of a child of Lightning's launcher, which ignores it itself until rank zero has ended.
    What signals do come must not be told to the parent, by the socket of its that was forked along.
    """
    signal.set_wakeup_fd(-1)
    ignored = {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}  # Windows has no SIGHUP
    for number in ignored | ({signal.SIGTERM} if detect_rank().is_child else set()):
        signal.signal(number, signal.SIG_IGN)


def default_workers(on_gpu: bool, world_size: int, nodes: int = 1) -> int:
    """Loader processes of this training process: as many as it has cores of its own, at most 8; on a CPU at most 1.

    On a CPU the network itself fills the cores and one loader stays far ahead of it.
    """
    return min(8, own_cores(cores(), -(-world_size // nodes))) if on_gpu else min(1, cores() - 1)
