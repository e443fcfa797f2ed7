"""The shell of a DICOM file: whether a file is one, with preamble or without; its data set, opened within bounds."""

from io import BytesIO
from pathlib import Path
from typing import Any

from lungseg.data.codestreams import MOST_PIXELS, check_deflated

_META = b"\x02\0\0\0UL\4\0"
"""Start of the meta information: its length, whose own four bytes come next."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(path: Path) -> bool:
    """Whether the file, whatever its name, begins as DICOM does (`has_dicom_marker`)."""
    try:
        if not path.is_file():  # a pipe or a device would be waited for
            return False
        with path.open("rb") as file:
            return has_dicom_marker(file.read(132))
    except OSError:
        return False


def has_dicom_marker(head: bytes) -> bool:
    """Whether a file that starts with these bytes (132 or more) is DICOM, be it without preamble and marker.

    Old archives and some research exports start at once with the first element.
    """
    return head[128:132] == b"DICM" or head.startswith(_META) or _is_bare(head)


def open_dataset(data: bytes) -> Any:
    """Parse the bytes of a DICOM file into a pydicom data set whose meta information names the transfer syntax.

    Raises:
        UnreadableError: It would inflate without bounds.
        Exception: Whatever pydicom raises of a broken file.
    """
    import pydicom

    if data.startswith(_META):
        data = bytes(128) + b"DICM" + data
    # The length of the meta information counts from the end of its own element.
    start = 144 + int.from_bytes(data[140:144], "little")
    if _DEFLATED in data[144:start]:
        check_deflated(data[start:], most=4 * MOST_PIXELS)  # 16-bit pixels, and as much again
    dataset = pydicom.dcmread(BytesIO(data), force=_is_bare(data))
    if "TransferSyntaxUID" not in dataset.file_meta:  # then the pixels are as the header is, and not compressed
        implicit, explicit = pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = implicit if dataset.original_encoding[0] else explicit
    return dataset


def _is_bare(head: bytes) -> bool:
    """Whether this starts with an element of group 8, as a data set without meta information does."""
    is_group = head[:2] == b"\x08\0" and head[3:4] == b"\0"
    return is_group and ((head[4:6].isalpha() and head[4:6].isupper()) or head[6:8] == b"\0\0")
