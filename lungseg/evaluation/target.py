"""What is evaluated: the network of a checkpoint and one split of a data set, as the run's own config describes it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from lungseg.config import Config, PhantomConfig
from lungseg.data.batch import Batch, unpack
from lungseg.data.cache import SUFFIX
from lungseg.data.datamodule import LungDataModule
from lungseg.data.sample import SPLITS, Sample, Split, spread_over_classes
from lungseg.errors import UserError, check
from lungseg.evaluation.distributed import ALONE, ProcessGroup
from lungseg.evaluation.find_data import Origin, find_data
from lungseg.models.checkpoint import load_network
from lungseg.models.network import LungNetwork
from lungseg.runs.memory import keep_freed_memory
from lungseg.runs.progress import Track, silent
from lungseg.runs.run import MIXED_DIVISIONS, Run

K = TypeVar("K")
_LEARNED_VAL = (
    "an ensemble of several divisions of the data: nothing was chosen on Val, which members have learned from"
)


@dataclass(frozen=True)
class EvaluationTarget:
    """A network in evaluation mode and the data to measure it on."""

    run: Run
    network: LungNetwork
    classes: tuple[str, ...]
    config: Config  # Of the run, with the words for `data` applied.
    data: LungDataModule
    split: Split
    device: torch.device
    data_origin: Origin = "own"
    all_images: bool = False  # All images of another data set are measured, whatever their split; they stand as `test`.
    caveats: tuple[str, ...] = ()  # What a reader must know of the data, a sentence each.
    track: Track = silent  # Shows how far a pass is.
    processes: ProcessGroup = ALONE  # Processes that share the forward passes.

    @property
    def samples(self) -> list[Sample]:
        """Those of the split, in the order of the batches."""
        return self.data.samples[self.split]

    @property
    def split_name(self) -> str:
        """`test`, `val`, or `all`."""
        return "all" if self.all_images else self.split

    @property
    def data_name(self) -> str:
        """What the data set is called, without the path to it."""
        root = self.config.data.root
        return "phantoms" if root is None else Path(root).expanduser().resolve().name

    @property
    def val_is_learned(self) -> bool:
        """Whether Val is part of what a member of an ensemble was trained on, so that nothing may be chosen on it."""
        return self.run.fingerprint == MIXED_DIVISIONS and self.data_origin != "other"

    @property
    def output(self) -> Path:
        """Folder that an evaluation is written to by default; one for each data set."""
        return self.run.evaluation(
            f"{self.data_name}-{self.split_name}" if self.data_origin == "other" else self.split_name
        )

    def batches(self, split: Split | None = None) -> Iterator[Batch]:
        """Batches of a split, by default the one evaluated, each sample once, in order, on the device."""
        split = split or self.split
        self.data.setup("validate" if split == "val" else "test")
        loader = self.data.val_dataloader() if split == "val" else self.data.test_dataloader()
        for batch in self.track(loader):
            yield self.on_device(batch)

    def on_device(self, batch: Mapping[str, Any]) -> Batch:
        """A collated batch where the network is, unpacked there: packed it is a quarter of the bytes to move."""
        return unpack({k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()})

    def halves(self) -> NDArray[np.int64]:
        """Half (N,), 0 or 1, that each image of the split is in: every other one, what belongs together in the same."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(s.group or s.id, len(numbers)) % 2 for s in self.samples], np.int64)


def load_target(
    run: Path,
    words: Sequence[str],
    split: str | None = None,
    track: Track = silent,
    processes: ProcessGroup = ALONE,
) -> EvaluationTarget:
    """Load a run's best checkpoint and the split of its data, or of another data set.

    Args:
        run: A run folder, or a .ckpt file in one.
        words: `data.key=value` over the run's config; the network is the checkpoint's and cannot be changed.
        split: `test`, `val`, or, of another data set, `all`; None: `test`, or `all` where that has no splits.
        track: Shows how far a pass over batches is.
        processes: Share the forward passes; by default there are no others.

    Raises:
        UserError: No such split, a word that is not of `data`, a file that is no checkpoint of lungseg.
        FileNotFoundError: No checkpoint, or no config beside it.
    """
    if split not in ("val", "test", "all", None):
        raise UserError(f"data.split: must be 'val' or 'test' (or 'all' of another data set), got {split!r}")
    wrong = next((word for word in words if not word.startswith("data.")), None)
    if wrong is not None:
        raise UserError(f"{wrong}: only keys of 'data' can be changed here, the rest is the checkpoint's")
    opened, network, classes, config = _open(run, words)
    data, data_origin, all_images, caveats = find_data(opened, config, split)
    config = replace(config, data=data.config)
    chosen: Split = "test" if all_images else cast(Split, split or "test")
    if not data.samples[chosen]:
        there = [f"{name} {len(data.samples[name])}" for name in SPLITS if data.samples[name]]
        every = "; data.split=all measures every image" if data_origin == "other" else ""
        raise UserError(f"data.split: {chosen!r} has no images here (there are: {', '.join(there)}){every}")
    if opened.fingerprint == MIXED_DIVISIONS and data_origin != "other":
        check(chosen != "val", "data.split", "'test': members of this ensemble have learned from Val", chosen)
        caveats = [_LEARNED_VAL]
    data.setup("validate" if chosen == "val" else "test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    return EvaluationTarget(
        run=opened,
        network=network.to(device),
        classes=tuple(classes),
        config=config,
        data=data,
        split=chosen,
        device=device,
        data_origin=data_origin,
        all_images=all_images,
        caveats=tuple(caveats),
        track=track,
        processes=processes,
    )


def _open(run: Path, words: Sequence[str]) -> tuple[Run, LungNetwork, list[str], Config]:
    """A run with its network and its classes, and its config with the words applied."""
    opened = Run.open(run)
    if opened.kind != "checkpoint":
        raise UserError(f"{run}: an exported model does not say what data it is measured on; give its run folder")
    network, classes = load_network(opened.model)
    config = _with_own_places(opened.config(words), words)
    if config.data.multi_label != network.multi_label:
        raise UserError(
            f"data.multi_label: the checkpoint's is {str(network.multi_label).lower()}, and cannot be changed"
        )
    config = replace(config, data=replace(config.data, classes=list(classes)))  # the network's, whatever the data's are
    return opened, network, classes, config


def _with_own_places(config: Config, words: Sequence[str]) -> Config:
    """The config of a run, which may be someone else's and name folders to write to: what is not in use is not made."""
    data, named = config.data, {word.partition("=")[0] for word in words}
    if "data.cache_dir" not in named and data.cache_dir is not None:
        in_use = any(Path(data.cache_dir).expanduser().glob(f"*{SUFFIX}"))
        data = data if in_use else replace(data, cache_dir=None)
    if "data.phantom.dir" not in named and not Path(data.phantom.dir).is_dir():
        data = replace(data, phantom=replace(data.phantom, dir=PhantomConfig().dir))
    return replace(config, data=data)


def show_images(
    target: EvaluationTarget,
    of_batch: Callable[[Batch], dict[K, Tensor]],
    study: str,
    say: Callable[[str], None],
    images: int | None,
) -> tuple[list[Sample], dict[K, NDArray[Any]]]:
    """Run a study that shows the network changed images; the forward passes are shared by the processes.

    `of_batch` runs the network on a batch on the device; each tensor that it gives has a row an image. `say` gets what
    is done, in words: `study`, with the images for `{}`. So many `images` are shown, spread over the classes; None, or
    more than there are, shows all of the split.

    Returns:
        The images shown, and their rows on rank zero; no rows on other processes.
    """
    chosen = list(range(len(target.samples)))
    if images is not None and images < len(chosen):
        chosen = sorted(spread_over_classes(target.samples, images))
    say(study.format(f"{len(chosen)} images of {target.split}"))

    def on_cpu(batch: Batch) -> dict[K, NDArray[Any]]:
        return {name: values.cpu().numpy() for name, values in of_batch(batch).items()}

    parts = target.processes.share(on_cpu, _batches_of(target, chosen))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    return [target.samples[index] for index in chosen], rows


def _batches_of(target: EvaluationTarget, chosen: Sequence[int]) -> Iterator[Batch]:
    if len(chosen) == len(target.samples):
        # the split's own loader reads ahead with workers, which pays off for the whole split only
        yield from target.batches()
        return
    dataset, size = target.data.dataset(target.split), target.config.data.batch_size
    starts = range(0, len(chosen), size)
    for start in target.track(starts, len(starts)):
        yield target.on_device(default_collate([dataset[0, index] for index in chosen[start : start + size]]))
