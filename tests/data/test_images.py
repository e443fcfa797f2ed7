"""Decoding: every format and depth arrives as the same range, and no damaged file passes."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lungseg.data.images import read_image, read_mask
from lungseg.data.phantom.generator import draw_phantom
from lungseg.errors import DataError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 64), dtype=np.uint8)
BLURRED = cv2.GaussianBlur(NOISE.astype(np.float32), (0, 0), 6)
SMOOTH = ((BLURRED - BLURRED.min()) * (255 / np.ptp(BLURRED))).astype(np.uint8)


def save(path: Path, pixels: npt.NDArray[np.generic], mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)  # type: ignore[arg-type]
    return path


def save_cv(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_tiff(path: Path, pixels: npt.NDArray[np.generic], photometric: int) -> Path:
    """Write the smallest TIFF there is: one strip, little endian."""
    (height, width), data = pixels.shape, pixels.tobytes()
    bits = pixels.dtype.itemsize * 8
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 279 else 3, 1, value) for tag, value in values.items())
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", 9) + entries + bytes(4))
    return path


def lossless_jpeg(pixels: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Encode as JPEG process 14 (lossless, predictor 1), with a code of 5 bits for each size of difference."""
    values = pixels.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 1 << (bits - 1)
    code = ""
    for d in ((values - predicted + 32767) % 65536 - 32767).ravel().tolist():
        assert d < 32768, "its code would have no bits of its own"
        size = abs(d).bit_length()
        code += f"{size:05b}" + (format(d if d > 0 else d + (1 << size) - 1, f"0{size}b") if size else "")
    code += "1" * (-len(code) % 8)
    scan = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    frame = segment(0xC3, struct.pack(">BHHB", bits, *pixels.shape, 1) + b"\1\x11\0")
    table = segment(0xC4, b"\0" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17)))
    return b"\xff\xd8" + frame + table + segment(0xDA, b"\1\1\0\1\0\0") + scan + b"\xff\xd9"


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_8_bit_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path / f"x.{suffix}", NOISE))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, NOISE)


@pytest.mark.parametrize(
    ("suffix", "mode"), [*product(["png", "bmp", "tif"], ["RGB", "RGBA", "P"]), ("png", "LA"), ("tif", "LA")]
)
def test_grey_stored_in_colour_is_the_same_grey(tmp_path: Path, suffix: str, mode: str) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / f"x.{suffix}", NOISE, mode)), NOISE)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_close_to_its_source(tmp_path: Path, mode: str) -> None:
    image = read_image(save(tmp_path / "x.jpg", SMOOTH, mode, quality=95))
    assert np.abs(image.astype(int) - SMOOTH).max() <= 4


def test_colour_becomes_luma(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50]]], dtype=np.uint8)
    expected = [[76, 150, 29, 124]]  # 0.299 R + 0.587 G + 0.114 B
    np.testing.assert_array_equal(read_image(save(tmp_path / "rgb.png", colours)), expected)
    palette = Image.fromarray(colours).quantize(4)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), expected)


def test_16_bit_colour_becomes_luma_at_full_depth(tmp_path: Path) -> None:
    bgr = np.array([[[0, 0, 65535], [65535, 65535, 65535]]], dtype=np.uint16)
    np.testing.assert_array_equal(read_image(save_cv(tmp_path / "x.png", bgr)), [[76, 255]])


def test_transparency_is_laid_over_black(tmp_path: Path) -> None:
    rgba = np.full((1, 3, 4), 200, dtype=np.uint8)
    rgba[0, :, 3] = (0, 128, 255)
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", rgba)), [[0, 100, 200]])
    np.testing.assert_array_equal(
        read_image(save_cv(tmp_path / "y.png", rgba.astype(np.uint16) * 257)), [[0, 100, 200]]
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((0, 200, 255), (0, 200, 255)),  # 8 bit in a file of 16
        ((0, 300, 1023), (0, 75, 255)),  # 300 / 1023 * 255 = 74.8
        ((0, 2048, 4095), (0, 128, 255)),  # 127.53, rounded
        ((0, 1365, 3000), (0, 85, 187)),  # the depth counts, not the maximum
        ((0, 8192, 16383), (0, 128, 255)),
        ((0, 128, 65535), (0, 0, 255)),
        ((0, 129, 65535), (0, 1, 255)),  # 0.502: rounded, not cut
    ],
)
def test_16_bit_is_scaled_by_its_detector_depth(
    tmp_path: Path, suffix: str, stored: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = save_cv(tmp_path / f"x.{suffix}", np.array([stored], dtype=np.uint16))
    np.testing.assert_array_equal(read_image(path), [expected])


def test_bits_below_8_are_spread_over_the_range(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0\x01\xf8")) + png_chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), [[0, 17, 255, 136]])
    black_and_white = save(tmp_path / "y.png", NOISE > 127)
    np.testing.assert_array_equal(read_image(black_and_white), np.where(NOISE > 127, 255, 0))


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint8, 1), (np.uint16, 16)])
def test_tiff_with_white_as_zero_is_inverted(tmp_path: Path, dtype: type[np.unsignedinteger], factor: int) -> None:
    stored = np.array([[0, 51, 255]], dtype=dtype) * dtype(factor) + (
        np.array([[0, 0, 15]], dtype) if factor > 1 else 0
    )
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "1.tif", stored, photometric=1)), [[0, 51, 255]])
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "0.tif", stored, photometric=0)), [[255, 204, 0]])


@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_above_8_bit_is_read_with_the_dicom_extra(tmp_path: Path, bits: int) -> None:
    pytest.importorskip("libjpeg")
    top = 2**bits - 1
    stored = (NOISE.astype(np.uint32) * top // 255).astype(np.uint16)
    (tmp_path / "x.jpg").write_bytes(lossless_jpeg(stored, bits))
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), np.rint(stored * (255 / top)))


def test_jpeg_above_8_bit_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "libjpeg", None)
    (tmp_path / "x.jpg").write_bytes(lossless_jpeg(np.zeros((4, 4), dtype=np.uint16), 12))
    with pytest.raises(DataError, match=r"x\.jpg: .*12 bit needs: pip install 'lungseg\[dicom\]'"):
        read_image(tmp_path / "x.jpg")


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DataError, match=r"x\.dcm: reading DICOM needs pydicom; pip install 'lungseg\[dicom\]'"):
        read_image(tmp_path / "x.dcm")


def test_exif_orientation_of_a_jpeg_is_applied(tmp_path: Path) -> None:
    stored = np.zeros((16, 32), dtype=np.uint8)
    stored[:, 16:] = 255
    exif = Image.Exif()
    exif[0x112] = 6  # turn by 90 degrees clockwise: right becomes bottom
    image = read_image(save(tmp_path / "x.jpg", stored, exif=exif, quality=95))
    assert image.shape == (32, 16)
    assert image[:14].max() < 20
    assert image[18:].min() > 235


def test_path_and_suffix_do_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "Röntgen 肺.png", NOISE)
    np.testing.assert_array_equal(read_image(path), NOISE)
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "no suffix")), NOISE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_an_error_in_one_line(
    tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = save(tmp_path / f"whole.{suffix}", NOISE).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        DataError, match=rf"cut\.{suffix}: cannot be read as an image \(.+\); replace it or drop"
    ) as caught:
        read_image(cut)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_cut_after_its_thumbnail_is_truncated(tmp_path: Path) -> None:
    whole = save(tmp_path / "x.jpg", NOISE).read_bytes()
    thumbnail = b"\xff\xe1\x00\x08Exif\xff\xd9"  # an end marker inside a header segment
    (tmp_path / "cut.jpg").write_bytes(whole[:2] + thumbnail + whole[2:-200])
    with pytest.raises(DataError, match="truncated JPEG"):
        read_image(tmp_path / "cut.jpg")
    (tmp_path / "ok.jpg").write_bytes(whole[:2] + thumbnail + whole[2:] + b"trailing bytes")
    np.testing.assert_array_equal(read_image(tmp_path / "ok.jpg"), read_image(tmp_path / "x.jpg"))


def test_a_png_with_one_wrong_byte_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(save(tmp_path / "x.png", NOISE).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.png: .*checksum"):
        read_image(tmp_path / "x.png")
    assert capfd.readouterr().err == ""


def test_metadata_of_a_png_causes_no_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = save(tmp_path / "x.png", NOISE).read_bytes()
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200)))  # libpng warns: this is no profile
    (tmp_path / "x.png").write_bytes(data[:33] + profile + data[33:])
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), NOISE)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"BM", "damaged"),
    ],
)
def test_what_is_no_image_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.png: cannot be read as an image \({reason}"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("suffix", "at", "layout", "sides"),
    [
        ("png", lambda data: 16, ">II", (40_000, 30_000)),
        ("jpg", lambda data: data.index(b"\xff\xc0") + 5, ">HH", (30_000, 40_000)),
        ("bmp", lambda data: 18, "<ii", (40_000, -30_000)),
    ],
)
def test_a_file_that_claims_an_absurd_size_is_refused_before_it_is_decoded(
    tmp_path: Path, suffix: str, at: Callable[[bytes], int], layout: str, sides: tuple[int, int]
) -> None:
    path = save(tmp_path / f"x.{suffix}", NOISE)
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at(data), *sides)
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.{suffix}: .*claims 40000x30000 pixels; .* 100 megapixels\); replace"):
        read_image(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_that_claims_an_absurd_size_is_refused(tmp_path: Path, order: str) -> None:
    entries = struct.pack(f"{order}HHIHHHHII", 256, 3, 1, 40_000, 0, 257, 4, 1, 30_000)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 2)
    (tmp_path / "x.tif").write_bytes(head + entries + bytes(4))
    with pytest.raises(DataError, match=r"x\.tif: .*claims 40000x30000 pixels"):
        read_image(tmp_path / "x.tif")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: .*No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"cannot be read as an image \("):
        read_image(tmp_path)


def test_several_frames_are_an_error(tmp_path: Path) -> None:
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    for name in ("x.png", "x.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match=rf"{name}: .*one (frame )?is needed"):
            read_image(tmp_path / name)


def test_pixels_without_a_known_range_are_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", NOISE.astype(np.float32) / 255)
    with pytest.raises(DataError, match=r"x\.tif: .*float32 pixels"):
        read_image(path)


def test_opencv_log_level_is_restored(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    (tmp_path / "x.bmp").write_bytes(b"BM" + bytes(60))
    with pytest.raises(DataError, match="damaged"):
        read_image(tmp_path / "x.bmp")
    assert cv2.utils.logging.getLogLevel() == before


MASK = SMOOTH > 140


@pytest.mark.parametrize("high", [1, 255])
def test_a_mask_of_0_and_1_or_0_and_255_is_read(tmp_path: Path, high: int) -> None:
    mask = read_mask(save(tmp_path / "m.png", (MASK * high).astype(np.uint8)))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("high", [1, 255, 4095, 65535])
def test_a_16_bit_mask_is_read(tmp_path: Path, high: int) -> None:
    np.testing.assert_array_equal(read_mask(save_cv(tmp_path / "m.png", (MASK * high).astype(np.uint16))), MASK)


def test_a_mask_is_cut_above_half(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", ramp)), ramp > 127)


@pytest.mark.parametrize(
    ("left", "right"), [(1, 2), (255, 100), (100, 255), ((0, 255, 0), (255, 0, 0)), ((255, 0, 0), (255, 255, 0))]
)
def test_a_mask_of_one_grey_or_colour_a_lung_is_both(tmp_path: Path, left: object, right: object) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 5:25], pixels[10:25, 35:55] = left, right
    lungs = pixels.any(axis=2)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels)), lungs)
    smooth = cv2.GaussianBlur(lungs.astype(np.uint8) * 255, (0, 0), 1.5)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "smooth.png", smooth)), smooth > 127)


@pytest.mark.parametrize("values", [(255, 100, 50), (255, 100, 255), (1, 2, 3), (1, 2, 1)])
def test_a_mask_that_holds_something_else_is_refused(tmp_path: Path, values: tuple[int, int, int]) -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:30, 5:20], pixels[10:30, 22:37], pixels[10:25, 40:55] = values
    with pytest.raises(DataError, match=r"m\.png: not a (two-valued )?mask: "):
        read_mask(save(tmp_path / "m.png", pixels))


def test_a_jpeg_mask_is_read_despite_ringing(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jpg", (MASK * 255).astype(np.uint8), quality=90)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    np.testing.assert_array_equal(read_mask(path), MASK)


def test_an_empty_mask_is_fine(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "m.png", np.zeros((4, 6), dtype=np.uint8)), shape=(4, 6))
    assert mask.shape == (4, 6)
    assert not mask.any()


def test_labels_are_no_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[0, 1, 2, 1]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"m\.png: not a mask: its highest value is 2, neither 1 nor near 255"):
        read_mask(path)


def test_a_mask_of_another_size_names_both_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((4, 6), dtype=np.uint8))
    with pytest.raises(DataError, match=r"m\.png: mask has another size .*6x4 pixels for an image of 12x8"):
        read_mask(path, shape=(8, 12))
    with pytest.raises(DataError, match=r"m\.png: mask has another aspect ratio .*6x4 pixels for an image of 8x8"):
        read_mask(path, shape=(8, 8), resize=True)


def test_a_mask_is_resized_by_nearest_neighbour_without_a_shift(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[0, 255], [255, 255]], dtype=np.uint8))
    expected = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)
    np.testing.assert_array_equal(read_mask(path, (4, 4), resize=True), expected)
    square = np.zeros((256, 256), dtype=np.uint8)
    square[64:192, 64:192] = 255
    rows = np.flatnonzero(read_mask(save(tmp_path / "s.png", square), (299, 299), resize=True).any(axis=1))
    assert (rows[0], rows[-1]) == (75, 223)  # 64 and 192 * 299 / 256 = 74.75 and 224.25: symmetric about the centre


def _jpeg(progressive: int = 0) -> bytes:
    drawn = draw_phantom(1, 0, 128).image
    return cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.98])
def test_half_a_jpeg_is_no_image_even_if_its_end_marker_is_put_back(
    tmp_path: Path, progressive: int, share: float
) -> None:
    whole = _jpeg(progressive)
    (tmp_path / "x.jpg").write_bytes(whole[: int(len(whole) * share)] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"x\.jpg: .*damaged or truncated JPEG"):
        read_image(tmp_path / "x.jpg")


def test_bytes_between_the_last_pixel_and_the_end_marker_do_no_harm(tmp_path: Path) -> None:
    whole = _jpeg()
    for name, content in (("a.jpg", whole), ("b.jpg", whole[:-2] + bytes(7) + whole[-2:])):
        (tmp_path / name).write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_damaged_strip_of_a_tiff_is_an_error(
    tmp_path: Path, compression: str, depth: type[np.uint8 | np.uint16]
) -> None:
    picture = Image.fromarray(draw_phantom(1, 0, 128).image.astype(depth))
    picture.save(tmp_path / "x.tif", compression=compression, tiffinfo={278: 16})
    whole = (tmp_path / "x.tif").read_bytes()
    assert read_image(tmp_path / "x.tif").shape == (128, 128)
    middle = len(whole) // 2
    (tmp_path / "x.tif").write_bytes(whole[:middle] + b"\xff" * 200 + whole[middle + 200 :])
    with pytest.raises(DataError, match=r"x\.tif: .*damaged"):
        read_image(tmp_path / "x.tif")
