"""What is wrong with the files of one sample, each fault by file name; the audit calls it once a sample.

Every file is decoded once, and what the other parts of the audit need of it is kept in a few kilobytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.data.folders import lung_parts
from lungseg.data.images import read_image
from lungseg.data.likeness import Signature, is_blank, sign
from lungseg.data.sample import CLASSES, Sample
from lungseg.errors import DataError

UNREADABLE = "file that cannot be read"
BLANK = "image of one grey value"
SIZE = "mask of another size than its image"
VALUES = "mask not two-valued"
EMPTY_LUNG = "empty lung mask"
FRAME = "lung mask that touches the whole frame"
ONE_LUNG = "mask of one lung only"
OUTSIDE = "infection outside the lung"
NO_INFECTION = "infection in a class that has none"
EMPTY_INFECTION = "empty infection mask of COVID-19"

COVER_PX = 32
LEAST_LUNG = 0.1
"""Share of a lung mask below which a part of it is a speck, no lung. The least second part of 4,660 masks of
COVID-QU-Ex has 0.23."""
LEAST_SIDE = 0.2
"""Two lungs in one part have at least this share of it on each side of the image's middle; of those masks 99.9 % have
more than 0.24, and 99 % of lungs alone less than 0.14."""
MOST_FRAME = 0.5
"""Share of the frame's pixels in the mask above which it is whole, full or inverted; at most 0.2 in those masks."""
MOST_OUTSIDE = 0.01
"""Share of an infection mask that may lie outside the lung: a pixel of the outline. None does in those masks."""

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Fault(NamedTuple):
    """One thing wrong with one file."""

    kind: str
    file: str
    """Relative to the root, with forward slashes."""
    detail: str = ""


class Inspection(NamedTuple):
    """What one look at the files of a sample gives."""

    faults: list[Fault]
    signature: Signature | None
    """None where the image cannot be read or is blank."""
    lung_digest: bytes | None
    """Hash of the lung mask, None without one."""
    cover: Grey | None
    """(COVER_PX, COVER_PX) uint8: share of each cell that is lung, of 255; None without a lung mask."""
    shape: tuple[int, int] | None
    """Height and width of the image."""


def inspect(sample: Sample, root: Path) -> Inspection:
    """Decode the files of a sample, which need not exist, and say what is wrong with them, relative to the root."""
    faults: list[Fault] = []
    image = _read(sample.image, root, faults)
    if image is not None and is_blank(image):
        faults.append(Fault(BLANK, place_of(sample.image, root)))
    lung = _read_masks(lung_parts(sample.lung) if sample.lung else (), root, faults)
    infection = _read_masks((sample.infection,) if sample.infection else (), root, faults)
    for path, mask in ((sample.lung, lung), (sample.infection, infection)):
        if path and mask is not None and image is not None:
            faults += _size_faults(place_of(path, root), mask.shape, image.shape, sample.fit_masks)
    if sample.lung and lung is not None:
        faults += [Fault(kind, place_of(sample.lung, root), detail) for kind, detail in _lung_faults(lung)]
    if sample.infection and infection is not None:
        told = _infection_faults(infection, lung, sample.label)
        faults += [Fault(kind, place_of(sample.infection, root), detail) for kind, detail in told]
    return Inspection(
        faults,
        _signature(image, lung, sample.fit_masks),
        None if lung is None else hashlib.blake2b(lung.tobytes(), digest_size=16).digest(),
        None if lung is None else _cover(lung),
        None if image is None else (image.shape[0], image.shape[1]),
    )


def place_of(path: Path, root: Path) -> str:
    """Name a file relative to the root, or in full where it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _read(path: Path, root: Path, faults: list[Fault]) -> Grey | None:
    try:
        return read_image(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        faults.append(Fault(UNREADABLE, place_of(path, root), reason))
        return None


def _read_masks(parts: Sequence[Path], root: Path, faults: list[Fault]) -> Mask | None:
    """Unite the files of one mask; None without any, or where one of them cannot be read or fits no other."""
    union: Mask | None = None
    for part in parts:
        grey = _read(part, root, faults)
        if grey is None:
            return None
        levels = _odd_levels(grey)
        if levels:
            faults.append(Fault(VALUES, place_of(part, root), levels))
        mask = grey > (127 if int(grey.max()) > 127 else 0)
        if union is not None and union.shape != mask.shape:
            faults.append(
                Fault(SIZE, place_of(part, root), f"{_size(mask.shape)}, the other side {_size(union.shape)}")
            )
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


def _size_faults(file: str, mask: Sequence[int], image: Sequence[int], fit: bool) -> Iterator[Fault]:
    """The rule of `read_mask`."""
    same_aspect = abs(mask[1] * image[0] / (mask[0] * image[1]) - 1) <= 0.01
    if tuple(mask) != tuple(image) and not (fit and same_aspect):
        yield Fault(SIZE, file, f"{_size(mask)}, the image {_size(image)}")


def _lung_faults(lung: Mask) -> Iterator[tuple[str, str]]:
    """At most one: the later ones follow from the earlier."""
    frame = np.concatenate([lung[0], lung[-1], lung[:, 0], lung[:, -1]]).mean()
    if not lung.any():
        yield EMPTY_LUNG, ""
    elif frame > MOST_FRAME:
        yield FRAME, f"{100 * frame:.0f} % of the frame's pixels"
    elif _is_one_lung(lung):
        yield ONE_LUNG, ""


def _is_one_lung(lung: Mask) -> bool:
    """Whether, specks aside, the mask is one connected part and lies on one side of the middle."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(lung.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if np.count_nonzero(areas > LEAST_LUNG * areas.sum()) > 1:
        return False
    part = parts == 1 + int(areas.argmax())
    left = np.count_nonzero(part[:, : part.shape[1] // 2])
    area = int(areas.max())
    return bool(min(left, area - left) < LEAST_SIDE * area)


def _infection_faults(infection: Mask, lung: Mask | None, label: int | None) -> Iterator[tuple[str, str]]:
    area = np.count_nonzero(infection)
    name = "" if label is None else CLASSES[label]
    if area and name == "Normal":
        yield NO_INFECTION, f"{area} pixels in {name}"
    if not area and name == "COVID-19":
        yield EMPTY_INFECTION, ""
    if area and lung is not None and lung.shape == infection.shape:
        outside = np.count_nonzero(infection & ~lung)
        if outside > MOST_OUTSIDE * area:
            yield OUTSIDE, f"{outside} of {area} pixels"


def _signature(image: Grey | None, lung: Mask | None, fit: bool) -> Signature | None:
    if image is None or is_blank(image):
        return None
    if lung is not None and lung.shape != image.shape:
        size = (image.shape[1], image.shape[0])
        resized = cv2.resize(lung.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) if fit else None
        lung = None if resized is None else np.asarray(resized, np.uint8).view(np.bool_)
    return sign(image, lung)


def _cover(lung: Mask) -> Grey:
    full = lung.view(np.uint8) * np.uint8(255)
    return np.asarray(cv2.resize(full, (COVER_PX, COVER_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
