"""Damages X-ray files of every format at random and reads them; `python mutations.py SEED COUNT` prints the faults.

A fault is an exception that is no DataError, more than 20 s, more than 2 GB, or a cut file read as another picture.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from test_dicom import dataset_of

from lungseg.data.images import read_image
from lungseg.data.phantom.generator import draw_phantom
from lungseg.errors import DataError

EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"\0\0\1\0")


def originals() -> dict[str, bytes]:
    """Whole files by name."""
    grey = np.ascontiguousarray(draw_phantom(3, 0, 64).image[:, :56])
    deep = grey.astype(np.uint16) * 16
    found = {
        "png": cv2.imencode(".png", grey)[1].tobytes(),
        "png16": cv2.imencode(".png", deep)[1].tobytes(),
        "png_colour": cv2.imencode(".png", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))[1].tobytes(),
        "jpg": cv2.imencode(".jpg", grey)[1].tobytes(),
        "jpg_progressive": cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
        "jpg_colour": cv2.imencode(".jpg", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))[1].tobytes(),
        "bmp": cv2.imencode(".bmp", grey)[1].tobytes(),
    }
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "TIFF", compression=kind)
        found[f"tiff_{kind}"] = file.getvalue()
    found["dcm"] = _dicom(deep, 12)
    found["dcm_bare"] = found["dcm"][132:]
    found["dcm_implicit"] = _dicom(deep, 12, ImplicitVRLittleEndian)
    found["dcm_deflated"] = _dicom(deep, 12, DeflatedExplicitVRLittleEndian)
    for name, syntax in (("rle", RLELossless), ("jpegls", JPEGLSLossless), ("jpeg2000", JPEG2000Lossless)):
        found[f"dcm_{name}"] = _dicom(deep, 12, syntax)
    found["dcm_jpeg"] = _dicom(grey, 8, JPEGBaseline8Bit, found["jpg"])
    return found


def damage(data: bytes, random: np.random.Generator) -> tuple[bytes, bool]:
    """A damaged copy, and whether it was only cut."""
    kind, broken = random.integers(7), bytearray(data)
    # Half of the places lie in the header, where a byte means most.
    end = min(len(data), 600) if random.random() < 0.5 else len(data)
    place = int(random.integers(end))
    if kind == 0:
        return data[: int(random.integers(len(data)))], True
    if kind == 1:
        broken[place] ^= 1 << int(random.integers(8))
    elif kind == 2:
        broken[place : place + 4] = EXTREMES[int(random.integers(len(EXTREMES)))]
    elif kind == 3:
        del broken[place : place + int(random.integers(1, 64))]
    elif kind == 4:
        broken[place:place] = random.bytes(int(random.integers(1, 64)))
    elif kind == 5:
        broken[place : place + 16] = random.bytes(16)
    else:
        start = int(random.integers(len(data)))
        broken[place : place + 32] = data[start : start + 32]
    return bytes(broken), False


def faults(seed: int, count: int, folder: Path) -> Iterator[dict[str, object]]:
    """What goes wrong with `count` damaged files."""
    random, path, files = np.random.default_rng(seed), folder / "x", originals()
    pictures = {}
    for name, data in files.items():
        path.write_bytes(data)
        pictures[name] = read_image(path)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        data, is_cut = damage(files[name], random)
        path.write_bytes(data)
        signal.alarm(20)
        try:
            image = read_image(path)
            if is_cut and not np.array_equal(image, pictures[name]):
                yield {"seed": seed, "number": number, "file": name, "fault": "half a picture"}
        except DataError as error:
            if "\n" in str(error):
                yield {"seed": seed, "number": number, "file": name, "fault": "several lines"}
        except BaseException as error:
            yield {"seed": seed, "number": number, "file": name, "fault": f"{type(error).__name__}: {error}"}
        finally:
            signal.alarm(0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if memory > 2 * 10**9:
        yield {"seed": seed, "fault": f"{memory / 1e9:.1f} GB"}


def _dicom(pixels: np.ndarray, bits: int, syntax: str = ExplicitVRLittleEndian, frame: bytes | None = None) -> bytes:
    dataset = dataset_of(pixels, bits)
    if frame is not None:
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return file.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for fault in faults(int(sys.argv[1]), int(sys.argv[2]), Path(folder)):
            print(json.dumps(fault), flush=True)
