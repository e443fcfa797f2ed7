"""Read one DICOM X-ray as grey pixels (extra `dicom`). Called by `images.read_image`; patient data stays in the file.

No message, log line or warning from here holds anything of a header but an absurd size: they name the file only.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungseg.data.codestreams import (
    UnreadableError,
    check_jpeg,
    check_jpeg2000,
    check_size,
)
from lungseg.data.dicom_file import open_dataset
from lungseg.errors import DataError
from lungseg.runs.progress import only_errors

Values = npt.NDArray[np.integer[Any] | np.floating[Any]]
Shares = npt.NDArray[np.float64]  # (H, W), 0 black to 1 white.

_FEWEST_GREY = 0.01
"""Share of the values in an image, of a hundred or more, that its window must show between black and white."""
_BLOCK = 1_000_000  # Pixels looked up at a time: NumPy makes an index of eight bytes of each.
_log = logging.getLogger(__name__)
_INSTALL = "pip install 'lungseg[dicom]'"
_JPEG = "1.2.840.10008.1.2.4."
"""Start of the transfer syntaxes of JPEG (numbers below 80), JPEG-LS (80, 81) and JPEG 2000 (90, 91, 201 to 203)."""


@dataclass(frozen=True, eq=False)
class DicomImage:
    """One X-ray, ready to look at."""

    pixels: npt.NDArray[np.uint8]  # (H, W), 0 black to 255 white, after rescale, VOI and inversion of MONOCHROME1.
    spacing_mm: tuple[float, float] | None
    """Height and width of a pixel in mm, or None. In order: PixelSpacing, ImagerPixelSpacing (at the detector, so
    magnified), NominalScannedPixelSpacing."""


def full_scale(maximum: int) -> int:
    """Full scale of the smallest usual detector depth (8, 10, 12, 14, 16 bit) that holds `maximum`.

    X-rays of 10 to 14 bit mostly come in 16-bit files; scaled by 65535 they would be almost black.
    """
    return next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if 2**bits > maximum), maximum)


def read_dicom(path: Path) -> DicomImage:
    """Read a single-frame grey DICOM file.

    Stored values pass the modality LUT or rescale, then the first VOI LUT, else the first window (DICOM PS3.3,
    C.11.2), and MONOCHROME1 is inverted. Without either, values with no rescale are scaled like a 16-bit PNG (by
    `full_scale`), others from their minimum to their maximum. Padding is black and never sets a range.

    Raises:
        DataError: One line naming the file: not DICOM, broken, colour, several frames, larger than `MOST_PIXELS`, or no
            decoder installed.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError(f"{path}: reading DICOM needs pydicom; {_INSTALL}") from None
    with only_errors("pydicom", level=logging.CRITICAL + 1):  # whatever it logs or warns of quotes header values
        try:
            dataset = open_dataset(path.read_bytes())
            return DicomImage(_shown(dataset, _stored(dataset), path), spacing_mm(dataset))
        except UnreadableError as fault:
            reason = str(fault)
        except OSError as error:
            reason = error.strerror or "the file ends too early"
        except pydicom.errors.InvalidDicomError:
            reason = "not a DICOM file"
        except Exception as error:  # pydicom raises a dozen types; their texts quote header values
            reason = f"its header is broken or incomplete: {type(error).__name__}"
    raise DataError(f"{path}: cannot be read as an X-ray ({reason}); replace it or drop it from the data set")


def _stored(dataset: Any) -> Values:
    """Decode the pixels, (H, W) of the stored integer type, or say why not."""
    if "PixelData" not in dataset:
        raise UnreadableError("it holds no pixels")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableError("it is not grey: neither MONOCHROME1 nor MONOCHROME2")
    if (_first(dataset, "NumberOfFrames") or 1) > 1:
        raise UnreadableError("it holds several frames")
    check_size(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0))
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        _check_stream(dataset, syntax)
        pixels: Values = dataset.pixel_array
    except UnreadableError:
        raise
    except BaseException as error:  # any decoder's own error; its text may quote the header
        # Decoders written in Rust panic with a BaseException of their own; Ctrl-C must go through all the same.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if syntax.is_compressed:
            raise UnreadableError(f"its compressed pixels are broken or need a decoder: {_INSTALL}") from None
        raise UnreadableError("its pixels are truncated or do not match its header") from None
    if pixels.ndim != 2:
        raise UnreadableError("it is not one grey image")
    return pixels


def _check_stream(dataset: Any, syntax: Any) -> None:
    """Look at the one compressed frame of a data set before it is decoded."""
    from pydicom.encaps import get_frame

    if not syntax.startswith(_JPEG):
        return
    frame, number = get_frame(dataset.PixelData, 0, number_of_frames=1), int(syntax.removeprefix(_JPEG).split(".")[0])
    if number <= 81:
        check_jpeg(frame)
    elif number in (90, 91, 201, 202, 203):
        check_jpeg2000(frame)
    if number in (80, 81):
        # The other decoder fills up what a cut stream lacks, and says nothing.
        dataset.pixel_array_options(decoding_plugin="pyjpegls")


def _shown(dataset: Any, stored: Values, path: Path) -> npt.NDArray[np.uint8]:
    """The pixels as they are to be shown, (H, W), 0 black to 255 white."""
    if stored.dtype.itemsize > 2 or not np.issubdtype(stored.dtype, np.integer):
        return _show(dataset, stored, path)
    # Of 16 bits there are few values, whatever the size of the image: each is worked out once, and looked up.
    low = int(stored.min())
    there = np.zeros(int(stored.max()) - low + 1, np.bool_)
    blocks = [slice(start, start + _BLOCK) for start in range(0, stored.size, _BLOCK)]
    flat, pixels = stored.reshape(-1), np.empty(stored.size, np.uint8)
    for block in blocks:
        there[flat[block].astype(np.intp) - low] = True
    table = np.zeros(there.size, np.uint8)
    values = np.flatnonzero(there)
    table[values] = _show(dataset, (values + low).astype(stored.dtype)[None], path)[0]
    for block in blocks:
        pixels[block] = table[flat[block].astype(np.intp) - low]
    return pixels.reshape(stored.shape)


def _show(dataset: Any, stored: Values, path: Path) -> npt.NDArray[np.uint8]:
    """What `_shown` does, pixel by pixel; only which values there are counts, not where or how often they are."""
    padding = _padding(dataset, stored)
    shares = _contrast(dataset, _modality(dataset, stored), padding, path)
    shares = 1 - shares if dataset.PhotometricInterpretation == "MONOCHROME1" else shares
    return np.where(padding, 0, np.rint(shares * 255)).astype(np.uint8)


def _padding(dataset: Any, stored: Values) -> npt.NDArray[np.bool_]:
    """Return where the file says there is no image, (H, W); nowhere, should that be all of it."""
    low = _first(dataset, "PixelPaddingValue")
    if low is None:
        return np.zeros(stored.shape, dtype=bool)
    high = _first(dataset, "PixelPaddingRangeLimit")
    ends = sorted((low, low if high is None else high))
    padding = (stored >= ends[0]) & (stored <= ends[1])
    return np.asarray(padding & ~padding.all())


def _modality(dataset: Any, stored: Values) -> Values:
    """Apply the modality LUT or the rescale; integers stay integers where there is neither."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(dataset, dataset.ModalityLUTSequence[0], stored)
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0 or not math.isfinite(slope + intercept):
        raise UnreadableError("its rescale has no meaning")
    return stored if (slope, intercept) == (1, 0) else stored.astype(np.float64) * slope + intercept


def _contrast(dataset: Any, values: Values, padding: npt.NDArray[np.bool_], path: Path) -> Shares:
    """Map values to [0, 1] as the file asks; by content, with a warning, where that would show next to nothing."""
    inside = values[~padding]
    asked = _voi(dataset, values)
    if asked is not None:
        shown = asked[~padding]
        # Of many values a few may miss a window that stands beside the rest: a stray pixel is no picture.
        grey = np.abs(shown - 0.5) < 0.5 - 1 / 510  # neither black nor white, rounded to 8 bit
        least = _FEWEST_GREY * shown.size if shown.size >= 1 / _FEWEST_GREY else 0
        if (shown.min() < shown.max() and np.count_nonzero(grey) >= least) or inside.min() == inside.max():
            return asked
        _log.warning("%s: its VOI LUT or window shows next to nothing; contrast taken from its content", path)
    low, high = float(inside.min()), float(inside.max())
    if np.issubdtype(values.dtype, np.integer) and low >= 0:
        low, high = 0.0, float(full_scale(int(high)))
    return np.clip((values.astype(np.float64) - low) / (high - low or 1.0), 0.0, 1.0)


def _voi(dataset: Any, values: Values) -> Shares | None:
    """Apply the first VOI LUT, else the first window, to [0, 1]; None where the file has neither."""
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        return _look_up(dataset, item, values) / full_scale(int(_table(dataset, item).max()))
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    return _window(values, center, width, dataset.get("VOILUTFunction") or "LINEAR")


def _window(values: Values, center: float, width: float, function: str) -> Shares:
    """Window to [0, 1] by DICOM PS3.3 C.11.2.1; all 0 where center and width have no meaning."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_windowing

    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableError("its VOI LUT function is unknown")
    if not math.isfinite(center) or not (1 if function == "LINEAR" else 0) <= width < math.inf:
        return np.zeros(values.shape)
    # pydicom scales to the range that bits and rescale allow; with one bit and no rescale that is 0 to 1.
    window = Dataset()
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 1
    window.VOILUTFunction, window.WindowCenter = function, center
    window.WindowWidth = width if function == "LINEAR" else max(width, 1e-6)  # width 0 is a threshold
    return np.asarray(apply_windowing(values, window))


def _look_up(dataset: Any, item: Any, values: Values) -> npt.NDArray[np.int64]:
    """Look values up in the table of a LUT item; those beyond either end take the end's entry.

    pydicom's own look-up wraps round where the index does not fit the type of the entries (a table of 4,096 bytes) or
    of the pixels (a negative first value), and takes no table that is packed to bytes.
    """
    table, first = _table(dataset, item), int(item.LUTDescriptor[1])
    index = np.rint(values.astype(np.float64)).astype(np.int64) - first
    return table[np.clip(index, 0, table.size - 1)]


def _table(dataset: Any, item: Any) -> npt.NDArray[np.int64]:
    """Return the entries of a LUT item; kept as numbers, or as bytes of 16 or (packed) 8 bit each."""
    count, data = int(item.LUTDescriptor[0]) or 2**16, item.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if dataset.original_encoding[1] else ">u2"
        data = np.frombuffer(data, wide if len(data) >= 2 * count else "u1")
    return np.atleast_1d(np.asarray(data, dtype=np.int64))[:count]


def _first(dataset: Any, keyword: str) -> float | None:
    """Return the first value of a numeric element, None where it is absent or empty."""
    value = dataset.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def spacing_mm(dataset: Any) -> tuple[float, float] | None:
    """Give height and width of a pixel in mm as `DicomImage` has them, of a pydicom data set."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        try:
            height_mm, width_mm = (float(value) for value in dataset.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if all(0.001 < side < 100 for side in (height_mm, width_mm)):  # else it is no X-ray's, whatever it says
            return height_mm, width_mm
    return None
