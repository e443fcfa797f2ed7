"""Training batches from the cache against what a plain albumentations loader does, on phantoms, in one process.

Both draw the same augmentations with the same strengths and are timed in turns, in CPU time: other load on the machine
touches both alike. One more way shows what transforms of albumentations, as in `augment.transforms`, cost on top; the
plain loader goes without them.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from lungseg.benchmarks.timing import medians, one_thread
from lungseg.config import AugmentConfig, PhantomConfig
from lungseg.data.batch import unpack
from lungseg.data.cache import ImageCache
from lungseg.data.dataset import LungDataset, TrainSampler
from lungseg.data.index import load_index
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.data.sample import Sample

BATCH = 32
TRANSFORMS = ["CLAHE(clip_limit=4, p=0.3)", "ElasticTransform(p=0.3)"]


class PlainDataset(Dataset[dict[str, Any]]):
    """What most training scripts do: decode image and lung mask, augment both, make floats of them."""

    def __init__(self, samples: Sequence[Sample], image_size: int, config: AugmentConfig):
        self.samples, self.image_size = samples, image_size
        self.pipeline = _albumentations(config)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image and lung (1, S, S) float32, and the label."""
        sample = self.samples[index]
        image: Any = cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE)
        lung: Any = cv2.imread(str(sample.lung), cv2.IMREAD_GRAYSCALE)
        if image.shape[0] != self.image_size:
            square = (self.image_size, self.image_size)
            image = cv2.resize(image, square, interpolation=cv2.INTER_AREA)
            lung = cv2.resize(lung, square, interpolation=cv2.INTER_NEAREST)
        changed = self.pipeline(image=image, mask=lung)
        return {
            "image": torch.from_numpy(changed["image"])[None].float().div_(255),
            "lung": torch.from_numpy(changed["mask"])[None].float().div_(255),
            "label": sample.label,
        }


def run(quick: bool = False) -> Iterator[str]:
    """Give the lines: images a second and core of each way, and the ratio to the plain one."""
    count, written_px, sizes, repeats = (6, 64, (64,), 1) if quick else (96, 256, (256, 128), 9)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root = write_phantoms(PhantomConfig(train=count, val=3, test=3, size_px=written_px, dir=folder))
        samples = [replace(sample, infection=None) for sample in load_index(root) if sample.split == "train"]
        yield f"{count} pairs of {written_px} px, batches of {BATCH}, 1 core, medians of {repeats}, images a second:"
        for size in sizes:
            for name, seconds, ratio in medians(_epochs(samples, size, Path(folder)), repeats):
                yield f"{size} px  {name:<36}{count / seconds:7.0f}{1 / ratio:7.1f} x"


def _epochs(samples: Sequence[Sample], image_size: int, folder: Path) -> dict[str, Callable[[], None]]:
    """What is compared, by name; the first is the yardstick."""
    config = AugmentConfig()
    cache = ImageCache.open_or_build(samples, image_size, folder=folder)
    cached = LungDataset(samples, image_size, config, 0, cache=cache)
    transformed = LungDataset(samples, image_size, replace(config, transforms=TRANSFORMS), 0, cache=cache)
    order = TrainSampler([sample.label for sample in samples], seed=0, balanced=False)
    return {
        "PNG, albumentations, floats": _epoch(PlainDataset(samples, image_size, config), RandomSampler(samples)),
        "cache, fused, bytes for the device": _epoch(cached, order),
        "cache, fused, floats on the CPU": _epoch(cached, order, unpack),
        "bytes, CLAHE and elastic at p=0.3": _epoch(transformed, order),
    }


def _epoch(
    dataset: Dataset[Any], order: Sampler[Any], finish: Callable[[dict[str, Any]], object] = id
) -> Callable[[], None]:
    loader = DataLoader(dataset, batch_size=BATCH, sampler=order)

    def epoch() -> None:
        for batch in loader:
            finish(batch)

    return epoch


def _albumentations(config: AugmentConfig) -> Any:
    """The albumentations pipeline that `augment` stands for, step by step, everything switched on."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the package index for news
    import albumentations as A

    gamma = (100 * (1 - config.gamma), 100 * (1 + config.gamma))
    affine = A.Affine(
        translate_percent=(-config.shift, config.shift),
        scale=(1 - config.scale, 1 + config.scale),
        rotate=(-config.rotate, config.rotate),
        border_mode=cv2.BORDER_CONSTANT,
        p=1.0,
    )
    flip = [A.HorizontalFlip(p=config.flip)] if config.flip else []
    tone = [A.RandomBrightnessContrast(config.brightness, config.contrast, p=1.0), A.RandomGamma(gamma, p=1.0)]
    return A.Compose([affine, *flip, *tone, A.GaussNoise(std_range=(0.0, config.noise), p=1.0)])
