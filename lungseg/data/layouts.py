"""Layouts of other data sets: COVID-19 Radiography Database, plain folders. `index` chooses among them and `manifest`.

A finder says which folders hold its layout, a reader turns them into samples and phrases on what is wrong. Readers
raise only where nothing can be read, so that `index` reports every fault at once.
"""

from collections.abc import Sequence
from dataclasses import replace

from lungseg.data.folders import PART_FOLDERS, SPLIT_FOLDERS, Folders, Reading, join, phrase
from lungseg.data.sample import Sample, Split

RADIOGRAPHY = "COVID-19 Radiography Database"
RADIOGRAPHY_CLASSES = {"COVID": "COVID-19", "Lung_Opacity": "Non-COVID", "Viral Pneumonia": "Non-COVID"}
"""Class folders of the COVID-19 Radiography Database beside `Normal`, and the class of COVID-QU-Ex that each one is."""


def read_radiography(folders: Folders) -> Reading | None:
    """Read `{COVID,Normal,Lung_Opacity,Viral Pneumonia}/{images,masks}` in the root or one folder in it.

    It has no splits. Its masks are 256 px, its images 299 px: they are fitted when decoded. None where it is not there.
    """
    names = {name.casefold() for name in RADIOGRAPHY_CLASSES}
    for folder in ("", *folders.dirs("")):
        classes = [join(folder, name) for name in folders.dirs(folder) if name.casefold() in names]
        if any(folders.child(one, ("images",)) and folders.child(one, ("masks",)) for one in classes):
            break
    else:
        return None
    samples = read_classes(folders, folder, "train")
    _warn_of_missing_masks(folders, samples)
    samples = [replace(sample, fit_masks=True) for sample in samples]
    return Reading(RADIOGRAPHY, samples, folders.problems(), False)


def read_plain(folders: Folders) -> Reading | None:
    """Read folders of images, with or without masks, one folder a class or none, below split folders or not.

    A folder's masks lie beside its `images` (or `CXR_png`) in `masks`, `mask` or `lung masks`, named as the image or
    with `_mask` added, or among the images, marked by name, or one file a side (`folders.SIDES`). Images right below
    a split folder or the root have no label. An image may lack its mask. None where there are no images.
    """
    splits = [name for name in folders.dirs("") if name.casefold() in SPLIT_FOLDERS]
    found = [one for one in splits or [""] if any(map(folders.holds_images, (one, *_image_folders(folders, one))))]
    if not found:
        return None
    samples: list[Sample] = []
    for folder in found:
        split = SPLIT_FOLDERS.get(folder.casefold(), "train")
        samples += folders.samples(folder, None, split) if folders.holds_images(folder) else []
        samples += read_classes(folders, folder, split)
    _warn_of_missing_masks(folders, samples)
    has_splits = found[0] != ""
    stray = [name for name in _image_folders(folders, "") if name not in found] if has_splits else []
    problems = [
        *phrase("folder of images beside the split folders", stray, "move it into one of them"),
        *folders.problems(),
    ]
    layout = "plain folders" + (", lung masks among the images" if folders.beside else "")
    return Reading(layout, samples, problems, has_splits)


def read_classes(folders: Folders, folder: str, split: Split) -> list[Sample]:
    """Give the samples of the class folders in a folder, each with the name of its folder."""
    samples: list[Sample] = []
    for inside in _image_folders(folders, folder):
        samples += folders.samples(inside, inside.rpartition("/")[2], split)
    return samples


def _warn_of_missing_masks(folders: Folders, samples: Sequence[Sample]) -> None:
    """Warn once of images without a lung mask in folders where others have one."""
    masked = {sample.image.parent for sample in samples if sample.lung is not None}
    bare = [sample.id for sample in samples if sample.lung is None and sample.image.parent in masked]
    folders.warn("image without a lung mask, used without", bare, "add the mask if there should be one")


def _image_folders(folders: Folders, folder: str) -> list[str]:
    """The folders in a folder that hold images and may be classes."""
    inside = (join(folder, name) for name in folders.dirs(folder) if name.casefold() not in PART_FOLDERS)
    return [one for one in inside if folders.holds_images(one)]
