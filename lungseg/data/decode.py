"""One sample's files to two small arrays at the network's size, and these arrays to one row of the cache and back."""

import numpy as np
import numpy.typing as npt

from lungseg.data.folders import lung_files
from lungseg.data.geometry import Letterbox
from lungseg.data.images import read_image, read_mask
from lungseg.data.sample import Sample

Plane = npt.NDArray[np.uint8]  # (S, S) uint8: grey values, or the bits `LUNG` and `INFECTION`.
LUNG, INFECTION = 1, 2  # Bits of a pixel in the plane of masks.


def read_sample(sample: Sample, image_size: int, keep_aspect: bool = True) -> tuple[Plane, Plane]:
    """Decode a sample and bring it to the network's square of side S = `image_size`: letterboxed, or else stretched.

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
        masks |= _to_bits(LUNG, read_lung(sample, box.shape), box)
    if sample.infection is not None:
        masks |= _to_bits(INFECTION, read_mask(sample.infection, box.shape, sample.fit_masks), box)
    return box.apply(image), masks


def read_lung(sample: Sample, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read the lung mask of a sample that has one, all its files united: (H, W) bool, `shape` being its image's."""
    assert sample.lung is not None
    masks = [read_mask(file, shape, sample.fit_masks) for file in lung_files(sample.lung)]
    return np.asarray(np.any(masks, axis=0))


def row_bytes(image_size: int) -> int:
    """Bytes of a row: S * S of the image and a quarter of that, rounded up, for the masks."""
    return image_size**2 + -(-(image_size**2) // 4)


def pack_row(image: Plane, masks: Plane) -> bytes:
    """Put image and masks (S, S) into a row: the image byte by byte, its masks two bits a pixel.

    Pixel i of quarter j of the masks goes to bits 2j and 2j + 1 of byte i; the last quarter may be short.
    """
    quarters = np.zeros((4, -(-masks.size // 4)), np.uint8)
    quarters.reshape(-1)[: masks.size] = masks.reshape(-1)
    # Whole arrays are shifted, not pixels: packing neighbours into a byte would need a strided copy.
    packed: Plane = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return image.tobytes() + packed.tobytes()


def unpack_row(row: Plane, image_size: int) -> tuple[Plane, Plane]:
    """Give image and masks (S, S) of a row (`row_bytes`,) uint8; the image is a view of it."""
    pixels, square = image_size**2, (image_size, image_size)
    packed = row[pixels:]
    quarters = np.empty((4, packed.size), np.uint8)
    for quarter in range(4):
        np.right_shift(packed, 2 * quarter, out=quarters[quarter])
    quarters &= 3
    return row[:pixels].reshape(square), quarters.reshape(-1)[:pixels].reshape(square)


def _to_bits(bit: int, mask: npt.NDArray[np.bool_], box: Letterbox) -> Plane:
    return box.apply_mask(mask).view(np.uint8) * np.uint8(bit)
