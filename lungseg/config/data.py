"""Sections `data` and `augment`: which images, and how a training changes them."""

from dataclasses import dataclass, field
from typing import Literal

from lungseg.config.transforms import check_calls
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
    classes: list[str] | None = None
    """Names of the classes, in the order of all outputs; null takes them from the data, [] learns masks alone."""
    multi_label: bool = False
    """An image may have several of the classes, or none: labels `A|B`, a column a class, or the label files of
    ChestX-ray14 and CheXpert; each class is then decided by itself."""
    label_map: list[str] = field(default_factory=list)
    """`NAME=CLASS` for what a folder or a manifest calls otherwise; `NAME=` leaves those images out."""
    infection_unknown: list[str] | None = None
    """Classes whose empty infection masks say nothing, because nobody drew any; an empty mask of any other class says
    that there is no infection. Null: Non-COVID, where that is a class, as in COVID-QU-Ex."""
    fold: int | None = None
    """Val is this one of `folds` parts of what is not Test; null keeps the splits that the data has."""
    folds: int = 5
    split_seed: int = 0
    """Seeds what is carved out, divided and cut into folds, which `run.seed` does not move; 0 or more."""
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
    """Share of Train carved out as Test (by `split_seed`, stratified) when the data has no Test split; in [0, 0.5]."""
    keep_aspect: bool = True
    """Letterbox images that are not square; false stretches them."""
    cache: bool | list[str] = True
    """Decode all images once into a file a split that later epochs, runs and processes share; 1.25 bytes a pixel. A
    list of splits (`[val,test]`) leaves the others, which are decoded in every epoch."""
    cache_dir: str | None = None
    """Folder of these files; null takes `$LUNGSEG_CACHE`, else `~/.cache/lungseg`. Old ones may be deleted any time."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        check(32 <= self.image_size <= 2048, "data.image_size", "in 32..2048 pixels", self.image_size)
        check(self.batch_size >= 1, "data.batch_size", ">= 1", self.batch_size)
        check(self.workers is None or self.workers >= 0, "data.workers", ">= 0 or null", self.workers)
        check(self.fold is None or 0 <= self.fold < self.folds, "data.fold", f"in 0..{self.folds - 1}", self.fold)
        check(all(m.count("=") == 1 for m in self.label_map), "data.label_map", "NAME=CLASS each", self.label_map)
        names = [name.strip().casefold() for name in self.classes or ()]
        unique = all(names) and len(set(names)) == len(names) and (len(names) != 1 or self.multi_label)
        rule = "names, none empty, twice (in lower case) or alone; [] for masks alone; or null"
        check(unique, "data.classes", rule, self.classes)
        single = not (self.multi_label and any("|" in name for name in names))
        check(single, "data.classes", "names without |, which stands between findings", self.classes)
        check(not (self.multi_label and self.classes == []), "data.multi_label", "false without classes", True)
        known = isinstance(self.cache, bool) or set(self.cache) <= {"train", "val", "test"}
        check(known, "data.cache", "true, false, or a list of train, val and test", self.cache)
        check(self.split_seed >= 0, "data.split_seed", ">= 0", self.split_seed)
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
    transforms: list[str] = field(default_factory=list)
    """Transforms of albumentations that come after these, each as a call: `CLAHE(clip_limit=4, p=0.3)`."""
    mixup: float = 0.0
    """Half of the images of a batch are mixed with others of it, by shares from Beta(mixup, mixup); in [0, 10]."""
    views: int = 1
    """Times that each training image comes in an epoch, one right after the other, each augmented anew; in 1..8."""

    def __post_init__(self) -> None:
        highest = {"rotate": 180, "flip": 1, "brightness": 1, "contrast": 1, "gamma": 0.9, "mixup": 10}
        check_calls(self.transforms)
        check(1 <= self.views <= 8, "augment.views", "in 1..8", self.views)
        for name, value in vars(self).items():
            if name in ("transforms", "views"):
                continue
            high = highest.get(name, 0.5)
            check(0 <= value <= high, f"augment.{name}", f"in [0, {high}]", value)
