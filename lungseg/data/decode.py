"""One sample's files to two small arrays at the network's size; what `cache` keeps and `dataset` reads without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungseg.data.folders import lung_parts
from lungseg.data.geometry import Letterbox
from lungseg.data.images import read_image, read_mask
from lungseg.data.sample import Sample

Plane = npt.NDArray[np.uint8]
"""(S, S) uint8: grey values, or the bits `LUNG` and `INFECTION`."""
LUNG, INFECTION = 1, 2
"""Bits of a pixel in the plane of masks."""


def read_sample(sample: Sample, image_size: int, keep_aspect: bool = True) -> tuple[Plane, Plane]:
    """Decode a sample and bring it to the network's square.

    Args:
        sample: A mask made of several files (`folders.lung_parts`) is their union.
        image_size: Side S of the square, pixels.
        keep_aspect: Letterbox, or else stretch.

    Returns:
        The image (S, S), and both masks as bits of one plane (S, S); a missing mask leaves its bit 0.

    Raises:
        DataError: One line naming the file that is missing, damaged, no mask, or of another size than its image
            (where `sample.fit_masks`, of another aspect ratio).
    """
    image = read_image(sample.image)
    box = Letterbox.of((image.shape[0], image.shape[1]), image_size, keep_aspect)
    masks = np.zeros((image_size, image_size), np.uint8)
    if sample.lung is not None:
        masks |= _read_bits(LUNG, lung_parts(sample.lung), box, sample.fit_masks)
    if sample.infection is not None:
        masks |= _read_bits(INFECTION, [sample.infection], box, sample.fit_masks)
    return box.apply(image), masks


def _read_bits(bit: int, parts: Sequence[Path], box: Letterbox, fit: bool) -> Plane:
    """Unite the files of one mask; `bit` where it is true."""
    union = read_mask(parts[0], box.shape, resize=fit)
    for part in parts[1:]:
        union = union | read_mask(part, box.shape, resize=fit)
    return box.apply_mask(union).view(np.uint8) * np.uint8(bit)
