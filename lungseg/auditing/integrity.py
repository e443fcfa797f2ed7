"""What is wrong with the files of one sample, each fault by file name; the audit calls it once a sample.

Every file is decoded once, and what the rest of the audit needs of it is kept in a few kilobytes.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.data.folders import lung_files
from lungseg.data.images import fit_mask, has_same_aspect, is_two_sided, read_image
from lungseg.data.likeness import Signature, is_blank, sign
from lungseg.data.lungs_apart import part_lungs
from lungseg.data.sample import Sample
from lungseg.errors import DataError

UNREADABLE = "file that cannot be read"
BLANK = "image of one grey value"
NO_GREY = "image that is nearly all black and white (a mask among the images?)"
SIZE = "mask of another size than its image"
VALUES = "mask not two-valued"
EMPTY_LUNG = "empty lung mask"
FRAME = "lung mask that touches the whole frame"
ONE_LUNG = "mask of one lung only"
OUTSIDE = "infection outside the lung"
NO_INFECTION = "infection in a class that has none"
EMPTY_INFECTION = "empty infection mask of a class that has infection"

HEALTHY = ("normal", "healthy", "no finding", "no_finding")
"""Names, in lower case, of a class that has no infection."""
THUMBNAIL_PX = 32
# The limits were read off 4,660 masks of COVID-QU-Ex, so that none of its sound masks counts as a fault.
MOST_FRAME = 0.5
"""Share of the frame's pixels in the mask above which it is whole, full or inverted; at most 0.2 in those masks."""
MOST_BLACK_OR_WHITE = 0.9
"""Share of an image's pixels within 15 of black or white, or of its two most frequent values; at most 0.68 in those."""
MOST_OUTSIDE = (
    0.01  # Share of an infection mask that may lie outside the lung, a pixel of its outline; none does there.
)

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Fault(NamedTuple):
    """One thing wrong with one file."""

    kind: str
    file: str  # Relative to the root, with forward slashes.
    detail: str = ""


class Inspection(NamedTuple):
    """What is known of a sample once its files have been read."""

    faults: list[Fault]
    signature: Signature | None  # None where the image cannot be read or is blank.
    lung_digest: bytes | None  # Hash of the lung mask, None without one.
    cover: Grey | None  # Share of each cell of a thumbnail that is lung, of 255; None without a lung mask.
    shape: tuple[int, int] | None  # Height and width of the image.


def inspect(sample: Sample, root: Path, infection_unknown: Collection[int]) -> Inspection:
    """Decode the files of a sample, which need not exist, and say what is wrong with them, relative to the root.

    `infection_unknown` are the labels whose empty infection masks are no fault: nobody drew any.
    """
    faults: list[Fault] = []
    image = _read(sample.image, root, faults)
    if image is not None and is_blank(image):
        faults.append(Fault(BLANK, name_of(sample.image, root)))
    elif image is not None and (share := _black_or_white(image)) > MOST_BLACK_OR_WHITE:
        faults.append(Fault(NO_GREY, name_of(sample.image, root), f"{100 * share:.0f} % of its pixels"))
    lung = _read_masks(lung_files(sample.lung) if sample.lung else (), root, faults)
    infection = _read_masks((sample.infection,) if sample.infection else (), root, faults)
    name = sample.class_name or ""
    of_lung = () if lung is None else _lung_faults(lung)
    of_infection = (
        ()
        if infection is None
        else _infection_faults(infection, lung, name, any(label in infection_unknown for label in sample.labels))
    )
    for path, mask, rules in ((sample.lung, lung, of_lung), (sample.infection, infection, of_infection)):
        if path is None or mask is None:
            continue
        fits = sample.fit_masks and image is not None and has_same_aspect(mask.shape, image.shape)
        if image is not None and mask.shape != image.shape and not fits:
            sizes = f"{_size(mask.shape)}, the image {_size(image.shape)}"
            faults.append(Fault(SIZE, name_of(path, root), sizes))
        faults += [Fault(kind, name_of(path, root), detail) for kind, detail in rules]
    digest = None if lung is None else hashlib.blake2b(lung.tobytes(), digest_size=16).digest()
    cover = None if lung is None else thumbnail(lung.view(np.uint8) * np.uint8(255))
    if image is None:
        return Inspection(faults, None, digest, cover, None)
    shape = (image.shape[0], image.shape[1])
    if lung is not None and lung.shape != shape:
        lung = fit_mask(lung, shape) if sample.fit_masks else None
    return Inspection(faults, None if is_blank(image) else sign(image, lung), digest, cover, shape)


def name_of(path: Path, root: Path) -> str:
    """Name a file relative to the root, or in full where it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def thumbnail(image: Grey) -> Grey:
    """Average an image (H, W) uint8 down to (THUMBNAIL_PX, THUMBNAIL_PX)."""
    return np.asarray(cv2.resize(image, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _read(path: Path, root: Path, faults: list[Fault]) -> Grey | None:
    try:
        return read_image(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        faults.append(Fault(UNREADABLE, name_of(path, root), reason))
        return None


def _black_or_white(image: Grey) -> float:
    """Share of the pixels that are nearly black or white, or of the two most frequent values, whichever is more."""
    counts = np.bincount(image.reshape(-1), minlength=256)
    most = max(counts[:16].sum() + counts[240:].sum(), np.sort(counts)[-2:].sum())
    return float(most / image.size)


def _read_masks(files: Sequence[Path], root: Path, faults: list[Fault]) -> Mask | None:
    """Unite the files of one mask; None without any, or where one of them cannot be read or fits no other.

    `images.read_mask` would refuse a faulty mask; here it is read as an image, so that all its faults are found.
    """
    union: Mask | None = None
    for file in files:
        grey = _read(file, root, faults)
        if grey is None:
            return None
        levels = _odd_levels(grey)
        apart = levels != "" and is_two_sided(grey)
        if levels and not apart:
            faults.append(Fault(VALUES, name_of(file, root), levels))
        mask = grey > (127 if int(grey.max()) > 127 and not apart else 0)
        if union is not None and union.shape != mask.shape:
            sizes = f"{_size(mask.shape)}, the other side {_size(union.shape)}"
            faults.append(Fault(SIZE, name_of(file, root), sizes))
            return None
        union = mask if union is None else union | mask
    return union


def _odd_levels(grey: Grey) -> str:
    """Say which values a mask holds if they are not 0 and one other, which is 1 or near 255; else nothing."""
    top = int(grey.max())
    if top == 0 or ((top == 1 or top > 127) and np.count_nonzero(grey) == np.count_nonzero(grey == top)):
        return ""
    levels = np.unique(grey).tolist()
    shown = ", ".join(map(str, levels if len(levels) <= 4 else [*levels[:3], "...", levels[-1]]))
    return f"holds {shown}" + (f" ({len(levels)} values)" if len(levels) > 4 else "")


def _lung_faults(lung: Mask) -> Iterator[tuple[str, str]]:
    """At most one: the later ones follow from the earlier."""
    frame = np.concatenate([lung[0], lung[-1], lung[:, 0], lung[:, -1]]).mean()
    if not lung.any():
        yield EMPTY_LUNG, ""
    elif frame > MOST_FRAME:
        yield FRAME, f"{100 * frame:.0f} % of the frame's pixels"
    elif not all(side.any() for side in part_lungs(lung)):
        yield ONE_LUNG, ""


def _infection_faults(infection: Mask, lung: Mask | None, name: str, is_unknown: bool) -> Iterator[tuple[str, str]]:
    area = np.count_nonzero(infection)
    if area and name.casefold() in HEALTHY:
        yield NO_INFECTION, f"{area} pixels in {name}"
    if not area and name and name.casefold() not in HEALTHY and not is_unknown:
        yield EMPTY_INFECTION, name
    if area and lung is not None and lung.shape == infection.shape:
        outside = np.count_nonzero(infection & ~lung)
        if outside > MOST_OUTSIDE * area:
            yield OUTSIDE, f"{outside} of {area} pixels"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
