"""Decode one file to grey pixels or to a mask: PNG, JPEG, TIFF, BMP and DICOM all arrive as the same range.

First stage after the index. Files are checked before they are decoded: a cut file, or a PNG with one wrong byte, is an
error and never a half-grey picture. (JPEG, TIFF and BMP carry no checksum: a wrong byte in their middle may pass.)
"""

import importlib
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.data.codestreams import UnreadableError, check_jpeg, check_size, check_tiff
from lungseg.data.dicom import full_scale, read_dicom
from lungseg.data.dicom_file import has_dicom_marker
from lungseg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
"""Suffixes (lower case) to look for in a folder; `read_image` goes by content. See also `dicom_file.is_dicom`."""
UNREAD_SUFFIXES = (
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".jxl",
    ".heic",
    ".avif",
    ".nii",
    ".nii.gz",
    ".mha",
    ".nrrd",
    ".npy",
)
"""Suffixes of pictures of other kinds: left out where a folder holds them, and that is said (`folders.tell_unread`)."""

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as (H, W) uint8, 0 black to 255 white.

    - 16 bit: scaled by the full scale of the smallest detector depth (8, 10, 12, 14, 16 bit) that holds the
      image's maximum, rounded; 12-bit data in a 16-bit file is not dark.
    - Colour and palette: luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). Transparency: laid over black.
    - Orientation: the EXIF tag of a JPEG and the tag of a TIFF are applied, metadata of a PNG is ignored.
    - TIFF: white-is-zero is inverted. DICOM: see `dicom.read_dicom`.

    Raises:
        DataError: One line naming the file: missing, cut, damaged, several frames, more than `codestreams.MOST_PIXELS`,
            or none of these formats.
    """
    return _to_8bit(_read_grey(path, dicom=True))


def read_mask(path: Path, shape: tuple[int, int] | None = None, resize: bool = False) -> npt.NDArray[np.bool_]:
    """Read a mask as (H, W) bool: true above half of full scale (255; 16 bit as in `read_image`); never a DICOM file.

    A mask whose maximum is 1 holds 0 and 1; all zero is an empty mask. Two values beside 0, each on a side of its own
    (1 and 2, or one grey or colour a lung), are both mask; any other third value is refused, for it would be lost. With
    a `shape` it must be (H, W) of its image; `resize` brings one of another size but the same aspect ratio (within 1 %)
    to it, nearest neighbour.

    Raises:
        DataError: One line naming the file, as in `read_image`; also for another size, or values that are no mask.
    """
    grey = _read_grey(path)
    top = int(grey.max())
    middle = full_scale(top) // 2
    value = _lost_value(grey, middle)
    if (1 < top <= middle or value) and is_two_sided(grey):
        middle, value, top = 0, 0, 1
    # A grey picture saved as a mask would be cut at an arbitrary value, so it is refused.
    if 1 < top <= middle:
        reason = f"its highest value is {top!r}, neither 1 nor near {full_scale(top)}; save it as 0/255"
        raise DataError(f"{path}: not a mask: {reason}")
    mask = np.asarray(grey > (middle if top > 1 else 0))
    if value:
        reason = f"besides {top} it holds {value}, which would count as background; save what is to be found as 255"
        raise DataError(f"{path}: not a two-valued mask: {reason}")
    if shape is None or mask.shape == shape:
        return mask
    sizes = f"{mask.shape[1]}x{mask.shape[0]} pixels for an image of {shape[1]}x{shape[0]}"
    if not resize:
        raise DataError(f"{path}: mask has another size than its image ({sizes}); replace it or drop both")
    if not has_same_aspect(mask.shape, shape):
        raise DataError(f"{path}: mask has another aspect ratio than its image ({sizes}); replace it or drop both")
    return fit_mask(mask, shape)


def is_two_sided(grey: Pixels) -> bool:
    """Whether a mask (H, W) holds, beside 0, exactly two values, each on a side of its own: the lungs kept apart."""
    values = np.unique(grey)
    if len(values) != 3 or values[0] != 0:
        return False
    first, second = (np.nonzero(grey == value)[1] for value in values[1:])
    left, right = sorted((first, second), key=lambda columns: float(columns.mean()))
    return bool(np.quantile(left, 0.9) < np.quantile(right, 0.1)) and 0.2 < len(left) / len(right) < 5


def _lost_value(grey: Pixels, middle: int) -> int:
    """Value, not near black, that no threshold at `middle` keeps, of a tenth or more of all that is not black; or 0.

    What JPEG and resizing leave at outlines is spread over many values.
    """
    dark = grey[(grey > middle // 5) & (grey <= middle)]
    least = np.count_nonzero(grey > middle // 5) // 10
    if dark.size <= least or dark.size == 0:
        return 0
    counts = np.bincount(dark)
    value = int(counts.argmax())
    # An outline, and be it one of straight lines, is thin: nothing of it lies within a square of its own value.
    inside = cv2.erode((grey == value).view(np.uint8), np.ones((3, 3), np.uint8))
    return value if counts[value] > least and np.count_nonzero(inside) > counts[value] // 4 else 0


def has_same_aspect(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes (H, W) have the same aspect ratio within 1 %: what rounding to whole pixels may do."""
    return abs(shape[1] * other[0] / (shape[0] * other[1]) - 1) <= 0.01


def fit_mask(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Bring a mask (H, W) to another shape, nearest neighbour."""
    # INTER_NEAREST would shift by half a pixel.
    resized = cv2.resize(mask.view(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8).view(np.bool_)


def _read_grey(path: Path, dicom: bool = False) -> Pixels:
    """Decode to (H, W), 8 or 16 bit, values as stored; DICOM, where it is wanted, as `read_dicom` shows it."""
    try:
        if path.exists() and not path.is_file():  # it might never end
            raise UnreadableError("it is a folder" if path.is_dir() else "it is a pipe or a device, not a file")
        data = path.read_bytes()
        if dicom and has_dicom_marker(data):
            return read_dicom(path).pixels
        for magic, decode in _DECODERS.items():
            if data.startswith(magic):
                return decode(data)
        reason = "not a PNG, JPEG, TIFF, BMP or DICOM file" if data else "the file is empty"
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
    except UnreadableError as fault:
        reason = str(fault)
    raise DataError(f"{path}: cannot be read as an image ({reason}); replace it or drop it from the data set")


def _decode_png(data: bytes) -> Pixels:
    """Check every chunk, then decode what makes the picture: libpng complains on stderr about the rest (profiles)."""
    check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    kept, start, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            raise UnreadableError("truncated PNG")
        kind = data[start + 4 : start + 8]
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise UnreadableError("damaged PNG: a checksum is wrong")
        if kind == b"acTL":
            raise UnreadableError("animated PNG; one frame is needed")
        if kind[:1].isupper() or kind == b"tRNS":  # a capital marks the chunks that no reader may skip
            kept.append(data[start:end])
        start = end
    return _to_grey(_opencv(b"".join(kept)))


def _decode_jpeg(data: bytes) -> Pixels:
    precision = check_jpeg(data)
    if precision != 8:
        return _decode_deep_jpeg(data, precision)
    return _to_grey(_opencv(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH))  # flags that apply EXIF orientation


def _decode_deep_jpeg(data: bytes, precision: int) -> Pixels:
    """Decode 12- and 16-bit grey JPEG, which OpenCV does not read."""
    try:
        libjpeg: Any = importlib.import_module("libjpeg")  # untyped, and optional
    except ImportError:
        raise UnreadableError(f"a JPEG of {precision} bit needs: pip install 'lungseg[dicom]'") from None
    try:
        pixels = libjpeg.decode(data)
    except Exception:  # its RuntimeErrors hold several lines
        raise UnreadableError("damaged JPEG") from None
    if pixels.ndim != 2:
        raise UnreadableError(f"a colour JPEG of {precision} bit; save it in grey or as 8 bit")
    return _known_depth(pixels)


def _decode_tiff(data: bytes) -> Pixels:
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [struct.unpack_from(f"{order}HHI4s", data, start + 2 + 12 * i) for i in range(count)]
        (next_page,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)
    except struct.error:
        raise UnreadableError("truncated TIFF") from None
    if next_page:
        raise UnreadableError("several pages; one is needed")
    # A value of 16 bit (type 3) fills the first half of its field only.
    tags = {tag: struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", value)[0] for tag, kind, _, value in entries}
    check_size(tags.get(256, 0), tags.get(257, 0))
    if tags.get(259, 1) != 1:  # compressed
        check_tiff(data)
    grey = _to_grey(_opencv(data))
    # OpenCV inverts 8-bit white-is-zero, and leaves 16 bit as it is.
    return 255 - _to_8bit(grey) if tags.get(262) == 0 and grey.dtype == np.uint16 else grey


def _decode_bmp(data: bytes) -> Pixels:
    wide = 2 if data[14:15] == b"\x0c" else 4  # bytes of a side; the first BMP, whose header has 12 bytes, had 2
    sides = (int.from_bytes(data[at : at + wide], "little", signed=wide == 4) for at in (18, 18 + wide))
    check_size(*map(abs, sides))  # a negative height says that the rows go from top to bottom
    return _to_grey(_opencv(data))


_DECODERS: dict[bytes, Callable[[bytes], Pixels]] = {
    b"\x89PNG\r\n\x1a\n": _decode_png,
    b"\xff\xd8\xff": _decode_jpeg,
    b"II*\0": _decode_tiff,
    b"MM\0*": _decode_tiff,
    b"BM": _decode_bmp,
}


def _opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> Pixels:
    """Decode to (H, W) or (H, W, 3 or 4) BGR(A), 8 or 16 bit."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error raised here says it in one line
    try:
        # Typed as always an array; in fact None where OpenCV gives up.
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise UnreadableError("damaged, truncated, or of a kind that OpenCV does not read")
    return _known_depth(pixels)


def _known_depth(pixels: npt.NDArray[Any]) -> Pixels:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"{pixels.dtype} pixels have no known black and white; save it as 8 or 16 bit unsigned")
    return pixels


def _to_grey(pixels: Pixels) -> Pixels:
    """Turn (H, W), or (H, W, 3 or 4) BGR(A) with what is transparent over black, into (H, W) of the same depth."""
    if pixels.ndim == 2:
        return pixels
    code = cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY
    grey: Pixels = cv2.cvtColor(pixels, code)  # type: ignore[assignment]  # keeps its input's depth
    opaque = int(np.iinfo(pixels.dtype).max)
    if pixels.shape[2] == 3 or int(pixels[..., 3].min()) == opaque:
        return grey
    blended = (grey.astype(np.uint32) * pixels[..., 3] + opaque // 2) // opaque
    return blended.astype(np.uint8) if opaque == 255 else blended.astype(np.uint16)


def _to_8bit(grey: Pixels) -> npt.NDArray[np.uint8]:
    if grey.dtype == np.uint8:
        return grey.astype(np.uint8, copy=False)
    return np.asarray(_scale_table(full_scale(int(grey.max())))[grey])


@lru_cache  # most images of a data set share one depth
def _scale_table(top: int) -> npt.NDArray[np.uint8]:
    return np.asarray(np.rint(np.arange(top + 1) * (255 / top)), np.uint8)
