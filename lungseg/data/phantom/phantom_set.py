"""The phantom set: phantoms written once as files in COVID-QU-Ex's own layout, then read like any data set."""

import shutil
import uuid
from pathlib import Path

import cv2
import numpy as np

from lungseg.config import PhantomConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.phantom.generator import VERSION, draw_phantom
from lungseg.runs.whole_files import write_whole

_LUNG_TREE = Path("Lung Segmentation Data", "Lung Segmentation Data")
_INFECTION_TREE = Path("Infection Segmentation Data", "Infection Segmentation Data")
_FILE_NAMES = ("covid_{}.png", "non_COVID ({}).png", "Normal ({}).png")


def write_phantoms(config: PhantomConfig) -> Path:
    """Write the phantom set once and give its folder; a set that stands is returned untouched.

    Both trees of COVID-QU-Ex hold all images. Other than there, Non-COVID has exact infection masks too: here the
    consolidation is known.
    Files go to a folder beside it that is renamed at the end, so no half-written set bears the final name and
    several processes may call this at once.
    """
    folder = Path(config.dir) / set_name(config)
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _write_images(config, unfinished)
        unfinished.replace(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def set_name(config: PhantomConfig) -> str:
    """Folder name: all that decides the pixels, and the generator's version."""
    shortcut = "" if config.shortcut == "none" else f"_shortcut-{config.shortcut}"
    counts = f"{config.train}-{config.val}-{config.test}"
    return f"{counts}_{config.size_px}px_seed{config.seed}{shortcut}_v{VERSION}"


def _write_images(config: PhantomConfig, root: Path) -> None:
    """Draw and write every split; images are numbered through all of them and take their class in turn."""
    number = 0
    for split, count in (("Train", config.train), ("Val", config.val), ("Test", config.test)):
        marked = config.shortcut == "all" or (config.shortcut == "train" and split != "Test")
        for label in (place % len(CLASSES) for place in range(count)):
            number += 1
            # Numbers that follow each other would give similar streams; the sequence mixes them.
            seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1, np.uint64)[0])
            phantom = draw_phantom(seed, label, config.size_px, shortcut=marked)
            lung, infection = phantom.lung * np.uint8(255), phantom.infection * np.uint8(255)
            pictures = {"images": phantom.image, "lung masks": lung, "infection masks": infection}
            for kind, picture in pictures.items():
                # Encoded in memory because cv2 cannot open every path on every system.
                png = cv2.imencode(".png", picture)[1].tobytes()
                for tree in (_INFECTION_TREE,) if kind == "infection masks" else (_LUNG_TREE, _INFECTION_TREE):
                    write_whole(root / tree / split / CLASSES[label] / kind / _FILE_NAMES[label].format(number), png)
