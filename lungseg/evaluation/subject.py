"""What is evaluated: the network of a checkpoint and one split of a data set, as the run's own config describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from lungseg.config import Config
from lungseg.configuration import load_config
from lungseg.data.batch import Batch, unpack
from lungseg.data.datamodule import LungDataModule
from lungseg.data.sample import SPLITS, Sample, Split
from lungseg.models.checkpoint import find_checkpoint, load_network
from lungseg.models.network import LungNetwork


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode and the data to measure it on."""

    checkpoint: Path
    network: LungNetwork
    classes: tuple[str, ...]
    config: Config
    """Of the run, with the words for `data` applied."""
    data: LungDataModule
    split: Split
    device: torch.device

    @property
    def samples(self) -> list[Sample]:
        """Those of the split, in the order of the batches."""
        return self.data.samples[self.split]

    def batches(self, split: Split | None = None) -> Iterator[Batch]:
        """Batches of a split, by default the one evaluated, each sample once, in order, on the device."""
        loader = self.data.val_dataloader() if (split or self.split) == "val" else self.data.test_dataloader()
        for batch in loader:
            moved = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            yield unpack(moved)


def load_subject(run: Path, words: Sequence[str], split: str = "test") -> Subject:
    """Load a run's best checkpoint and the split of its data.

    Args:
        run: A run folder, or a .ckpt file in one.
        words: `data.key=value` over the run's config; the network is the checkpoint's and cannot be changed.
        split: `test` or `val`.

    Raises:
        ValueError: No such split, a word that is not of `data`, a file that is no checkpoint of lungseg.
        FileNotFoundError: No checkpoint, or no config beside it.
    """
    if split not in ("val", "test"):
        raise ValueError(f"data.split: must be 'val' or 'test', got {split!r}")
    for word in words:
        if not word.startswith("data."):
            raise ValueError(f"{word}: only keys of 'data' can be changed here, the rest is the checkpoint's")
    checkpoint = find_checkpoint(run)
    network, classes = load_network(checkpoint)
    folder = run if run.is_dir() else run.parent.parent
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder / 'config.yaml'}: not there; keep the checkpoint in its run folder")
    config = load_config(folder / "config.yaml", list(words))
    data = LungDataModule(config.data, config.augment, config.run.seed)
    data.prepare_data()
    data.find_samples()
    if not data.samples[cast(Split, split)]:
        there = [f"{name} {len(data.samples[name])}" for name in SPLITS if data.samples[name]]
        raise ValueError(f"data.split: {split!r} has no images here (there are: {', '.join(there)})")
    data.setup("validate" if split == "val" else "test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Subject(checkpoint, network.to(device), tuple(classes), config, data, cast(Split, split), device)


def plain(subject: Subject) -> dict[str, Any]:
    """What was evaluated, as plain values for a JSON file; no path of an image."""
    return {
        "checkpoint": str(subject.checkpoint),
        "split": subject.split,
        "images": len(subject.samples),
        "data": dataclasses.asdict(subject.config.data),
        "data_fingerprint": subject.data.fingerprint,
    }
