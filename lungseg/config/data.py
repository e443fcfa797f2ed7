"""Sections `data` and `augment`: where images come from and how they reach the network."""

from dataclasses import dataclass, field
from typing import Literal

from lungseg.errors import check


@dataclass(frozen=True)
class PhantomConfig:
    """The synthetic set used when `data.root` is null."""

    train: int = 140
    """Images in Train, spread evenly over the classes."""
    val: int = 30
    test: int = 30
    size_px: int = 256
    """Side of the square images written, pixels."""
    seed: int = 0
    shortcut: Literal["none", "train", "all"] = "none"
    """Plant a class-coded marker outside the lungs: nowhere, in Train and Val only, or in all splits."""
    dir: str = "phantoms"
    """Folder that takes one sub-folder per distinct phantom set."""

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            check(getattr(self, name) >= 3, f"data.phantom.{name}", ">= 3 (one a class)", getattr(self, name))
        check(64 <= self.size_px <= 2048, "data.phantom.size_px", "in 64..2048 pixels", self.size_px)
        check(self.seed >= 0, "data.phantom.seed", ">= 0", self.seed)


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they reach the network."""

    root: str | None = None
    """A data set (configs/README.md says which layouts) or a CSV manifest; null writes and uses the phantom set."""
    label_map: list[str] = field(default_factory=list)
    """`FOLDER=CLASS` for class folders that bear other names than the classes."""
    fold: int | None = None
    """Val is this one of `folds` parts of what is not Test; null keeps the splits that the data has."""
    folds: int = 5
    exclude_leaks: bool = False
    """Leave out training images that are copies, exact or near, of Val or Test images."""
    image_size: int = 256
    """Side of the square the network sees, pixels; any size works, multiples of 32 waste nothing."""
    batch_size: int = 32
    """Images per process and step."""
    workers: int | None = None
    """Loader processes per training process; null chooses from the cores there are."""
    balanced: bool = False
    """Draw each class equally often in training."""
    test_fraction: float = 0.0
    """Share of Train carved out as Test (seeded, stratified) when the data has no Test split; in [0, 0.5]."""
    keep_aspect: bool = True
    """Letterbox images that are not square; false stretches them."""
    cache: bool = True
    """Decode all images once into a file that later epochs, runs and processes share; 1.25 bytes a pixel."""
    cache_dir: str | None = None
    """Folder of these files; null takes `$LUNGSEG_CACHE`, else `~/.cache/lungseg`. Old ones may be deleted any time."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        check(32 <= self.image_size <= 2048, "data.image_size", "in 32..2048 pixels", self.image_size)
        check(self.batch_size >= 1, "data.batch_size", ">= 1", self.batch_size)
        check(self.workers is None or self.workers >= 0, "data.workers", ">= 0 or null", self.workers)
        check(self.fold is None or 0 <= self.fold < self.folds, "data.fold", f"in 0..{self.folds - 1}", self.fold)
        check(all(m.count("=") == 1 for m in self.label_map), "data.label_map", "FOLDER=CLASS each", self.label_map)
        check(0 <= self.test_fraction <= 0.5, "data.test_fraction", "in [0, 0.5]", self.test_fraction)


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; every strength 0 switches its transform off."""

    shift: float = 0.05
    """Largest shift as a share of the side, in [0, 0.5]."""
    scale: float = 0.1
    """Largest relative change of size, in [0, 0.5]."""
    rotate: float = 10.0
    """Largest rotation, degrees, in [0, 180]."""
    flip: float = 0.0
    """Probability of a left-right flip, in [0, 1]; off by default because it moves the heart."""
    brightness: float = 0.15
    """Largest change of brightness as a share of full scale, in [0, 1]."""
    contrast: float = 0.15
    """Largest relative change of contrast, in [0, 1]."""
    gamma: float = 0.2
    """Largest relative change of gamma, in [0, 0.9]."""
    noise: float = 0.02
    """Largest standard deviation of Gaussian noise as a share of full scale, in [0, 0.5]."""

    def __post_init__(self) -> None:
        highest = {"rotate": 180, "flip": 1, "brightness": 1, "contrast": 1, "gamma": 0.9}
        for name, value in vars(self).items():
            high = highest.get(name, 0.5)
            check(0 <= value <= high, f"augment.{name}", f"in [0, {high}]", value)
