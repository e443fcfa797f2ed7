"""What a file claims, and whether its compressed pixels are all there, looked at before anything is decoded.

A decoder makes room for whatever size a header claims, and most of them fill up grey what a cut stream lacks. Half an
image is no image, so both are found here, for pictures and for what lies inside DICOM.
"""

import io
import os
import zlib

import simplejpeg
from PIL import Image, UnidentifiedImageError

from lungseg.errors import check

_LIMIT = "LUNGSEG_MOST_MEGAPIXELS"
_megapixels = os.environ.get(_LIMIT) or "100"
check(_megapixels.isdecimal() and int(_megapixels) > 0, _LIMIT, "a whole number above 0", _megapixels)
MOST_PIXELS = int(_megapixels) * 1_000_000
"""Of an image; a film has 20 million. `LUNGSEG_MOST_MEGAPIXELS` in the environment sets another limit."""
_HARMLESS = "extraneous bytes before marker 0xd9"  # Between the last pixel and the end marker: the picture is whole.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # Markers of a frame's header, that of JPEG-LS the last.
_PIECE = 1_000_000  # Bytes inflated at a time.


class UnreadableError(Exception):
    """What is wrong with a file, in words that hold nothing of its header; becomes a DataError that names the file."""


def check_size(width: int, height: int) -> None:
    """Raise an UnreadableError for an image that claims more than `MOST_PIXELS`."""
    if width * height > MOST_PIXELS:
        most = f"{MOST_PIXELS // 10**6} megapixels"
        raise UnreadableError(f"its header claims {width}x{height} pixels; the most that is read are {most}")


def check_jpeg(data: bytes) -> int:
    """Check the size that a JPEG or JPEG-LS claims, and that its pixels do not end early; give the bits of a sample.

    Of 12-bit and lossless JPEG only the end marker is looked for: no decoder tells what it has filled up.
    """
    precision, kind, start = 8, 0, 2  # behind the marker that every JPEG starts with
    while start + 4 < len(data) and data[start] == 0xFF and (marker := data[start + 1]) != 0xDA:  # until the first scan
        if marker in _FRAMES:
            precision, kind = data[start + 4], marker
            check_size(*(int.from_bytes(data[at : at + 2], "big") for at in (start + 7, start + 5)))
        start += 1 if marker == 0xFF else 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if data[start : start + 2] != b"\xff\xda":
        raise UnreadableError("truncated or damaged JPEG")
    if data.find(b"\xff\xd9", start) < 0:  # the end marker cannot occur inside a scan; bytes after it are ignored
        raise UnreadableError("truncated JPEG")
    if precision == 8 and kind in (0xC0, 0xC1, 0xC2):
        _decode_strictly(data)
    return precision


def check_jpeg2000(data: bytes) -> None:
    """Check the size that a JPEG 2000 codestream claims, and that its parts have the lengths that they say."""
    if data[2:4] != b"\xff\x51":
        raise UnreadableError("damaged JPEG 2000")
    right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    check_size(max(0, right - left), max(0, bottom - top))
    start = 2
    while (marker := data[start : start + 2]) != b"\xff\xd9":  # of the end
        length = int.from_bytes(data[start + 2 : start + 4], "big") + 2
        if marker == b"\xff\x90":  # of a tile's part, which may say 0: up to the end
            length = int.from_bytes(data[start + 6 : start + 10], "big") or len(data.rstrip(b"\0")) - 2 - start
        start += length
        if marker[:1] != b"\xff" or length < 4 or start + 2 > len(data):
            raise UnreadableError("truncated or damaged JPEG 2000")


def check_tiff(data: bytes) -> None:
    """Decode every strip as Pillow does: OpenCV takes what it can of a damaged one, and leaves the rest black."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UnidentifiedImageError:
        return  # of a kind that only OpenCV may know
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError("damaged or truncated TIFF") from error


def check_deflated(data: bytes, most: int) -> None:
    """Inflate bytes piece by piece, keeping none, and raise an UnreadableError should they become more than `most`."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while data and not inflater.eof:
            total += len(inflater.decompress(data, _PIECE))
            if total > most:
                raise UnreadableError(f"it inflates to more than {most // 10**6} MB")
            data = inflater.unconsumed_tail
    except zlib.error:
        raise UnreadableError("its deflated data are damaged") from None


def _decode_strictly(data: bytes) -> None:
    """Decode an 8-bit JPEG as libjpeg-turbo does, but take what it only warns of as an error."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY", strict=True)
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise UnreadableError("damaged or truncated JPEG") from None
