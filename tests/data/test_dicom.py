"""DICOM: every depth, window and compression arrives as the same range, and no header leaves the file."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.data.dicom import full_scale, read_dicom
from lungseg.data.dicom_file import is_dicom
from lungseg.data.images import read_image, read_mask
from lungseg.errors import DataError

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate, generate_frames, get_frame  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

PATIENT = "SECRET^PATIENT"
RAMP = np.linspace(0, 4095, 64 * 48).reshape(64, 48).astype(np.uint16)
RAMP_8BIT = np.rint(RAMP * (255 / 4095)).astype(np.uint8)


def dataset_of(pixels: npt.NDArray[Any], bits: int = 12, **elements: Any) -> Any:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = PATIENT, PATIENT
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def write(path: Path, pixels: npt.NDArray[Any], bits: int = 12, **elements: Any) -> Path:
    dataset_of(pixels, bits, **elements).save_as(path, enforce_file_format=True)
    return path


def lut(first: int, bits: int, data: list[int]) -> list[Any]:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(data), first, bits], data
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return [item]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    two = read_image(write(tmp_path / "two.dcm", RAMP))
    one = read_image(write(tmp_path / "one.dcm", 4095 - RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(two, RAMP_8BIT)
    np.testing.assert_array_equal(one, two)


def test_window_is_inverted_with_monochrome1(tmp_path: Path) -> None:
    window = {"WindowCenter": 3000, "WindowWidth": 500}
    two = read_image(write(tmp_path / "two.dcm", RAMP, **window))
    one = read_image(write(tmp_path / "one.dcm", RAMP, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(one, 255 - two)


def test_12_bit_window_is_linear_between_its_ends(tmp_path: Path) -> None:
    stored = np.array([[0, 1500, 1750, 2000, 2250, 2500, 4095]], dtype=np.uint16)
    image = read_dicom(write(tmp_path / "x.dcm", stored, WindowCenter=2000.5, WindowWidth=1001))
    # (x - (c - 0.5)) / (w - 1) + 0.5 = (x - 2000) / 1000 + 0.5
    np.testing.assert_array_equal(image.pixels, [[0, 0, 64, 128, 191, 255, 255]])


def test_linear_exact_and_sigmoid_follow_their_formulas(tmp_path: Path) -> None:
    stored = np.array([[1000, 1750, 2000, 2250, 3000]], dtype=np.uint16)
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    exact = read_image(write(tmp_path / "e.dcm", stored, VOILUTFunction="LINEAR_EXACT", **window))
    np.testing.assert_array_equal(exact, [[0, 64, 128, 191, 255]])
    sigmoid = read_image(write(tmp_path / "s.dcm", stored, VOILUTFunction="SIGMOID", **window))
    np.testing.assert_array_equal(sigmoid, [[5, 69, 128, 186, 250]])  # 255 / (1 + e^4) = 4.6; 255 / (1 + e) = 68.6


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    several = read_image(write(tmp_path / "a.dcm", RAMP, WindowCenter=[2000, 100], WindowWidth=[1000, 50]))
    first = read_image(write(tmp_path / "b.dcm", RAMP, WindowCenter=2000, WindowWidth=1000))
    np.testing.assert_array_equal(several, first)


def test_a_window_of_width_1_is_a_threshold(tmp_path: Path) -> None:
    stored = np.array([[99, 100, 101]], dtype=np.uint16)
    image = read_image(write(tmp_path / "x.dcm", stored, WindowCenter=100, WindowWidth=1))
    np.testing.assert_array_equal(image, [[0, 255, 255]])  # black up to c - 0.5


@pytest.mark.parametrize("window", [(2000, 0), (2000, -5), (60000, 100)])
def test_a_window_that_shows_nothing_falls_back_to_the_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, window: tuple[int, int]
) -> None:
    path = write(tmp_path / "x.dcm", RAMP, WindowCenter=window[0], WindowWidth=window[1])
    image = read_dicom(path)
    np.testing.assert_array_equal(image.pixels, RAMP_8BIT)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: its VOI LUT or window shows next to nothing; contrast taken from its content"
    ]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("strays", [[6000], [6000, 6020, 6040]])
def test_a_stray_pixel_in_a_window_beside_the_content_is_no_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, strays: list[int], photometric: str
) -> None:
    stored = RAMP.copy()
    stored[0, : len(strays)] = strays
    window = {"WindowCenter": 6000, "WindowWidth": 500}
    shown = read_image(write(tmp_path / "x.dcm", stored, 16, PhotometricInterpretation=photometric, **window))
    assert np.unique(shown).size > 50
    assert "shows next to nothing" in caplog.text
    # a window of a tenth of the content shows something, and is what the file asks for
    caplog.clear()
    narrow = read_image(write(tmp_path / "y.dcm", RAMP, WindowCenter=2000, WindowWidth=400))
    assert (narrow[RAMP < 1790] == 0).all()
    assert not caplog.text


def test_a_voi_lut_goes_before_a_window(tmp_path: Path) -> None:
    stored = np.array([[0, 99, 100, 101, 102, 103, 500]], dtype=np.uint16)
    table = lut(100, 12, [0, 1365, 2730, 4095])
    path = write(tmp_path / "x.dcm", stored, VOILUTSequence=table, WindowCenter=50, WindowWidth=10)
    image = read_dicom(path)
    np.testing.assert_array_equal(image.pixels, [[0, 0, 0, 85, 170, 255, 255]])


def test_an_8_bit_lut_of_many_entries_does_not_wrap(tmp_path: Path) -> None:
    table = lut(0, 8, [value // 16 for value in range(4096)])
    image = read_image(write(tmp_path / "x.dcm", RAMP, VOILUTSequence=table))
    np.testing.assert_array_equal(image, RAMP // 16)


def test_a_modality_lut_is_applied_before_the_window(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], dtype=np.uint16)
    elements = {"ModalityLUTSequence": lut(0, 12, [300, 200, 100, 0]), "WindowCenter": 150.5, "WindowWidth": 301}
    image = read_image(write(tmp_path / "x.dcm", stored, **elements))
    np.testing.assert_array_equal(image, [[255, 170, 85, 0]])


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    plain = read_image(write(tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=1000))
    rescaled = write(
        tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-500, WindowCenter=3499.5, WindowWidth=1999
    )  # x' = 2 x - 500 takes the window (1999.5, 999) to (3499, 1998)
    np.testing.assert_array_equal(read_image(rescaled), plain)


@pytest.mark.parametrize(("slope", "intercept"), [(0.001, 0), (2, -1000), (1, 0.5)])
def test_rescaled_values_without_a_window_go_from_minimum_to_maximum(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    path = write(tmp_path / "x.dcm", RAMP, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_array_equal(read_image(path), RAMP_8BIT)


def test_signed_16_bit_is_read(tmp_path: Path) -> None:
    stored = np.array([[-1024, 0, 1023]], dtype=np.int16)
    np.testing.assert_array_equal(read_image(write(tmp_path / "x.dcm", stored, bits=16)), [[0, 128, 255]])
    window = {"WindowCenter": 0.5, "WindowWidth": 2049}
    image = read_image(write(tmp_path / "y.dcm", stored, bits=16, **window))
    np.testing.assert_array_equal(image, [[0, 128, 255]])  # 1023 / 2048 + 0.5 = 0.9995


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (10, 1000), (12, 3000), (14, 16383), (16, 65535)])
def test_without_a_window_dicom_and_png_of_the_same_pixels_agree(tmp_path: Path, bits: int, top: int) -> None:
    pixels = np.linspace(0, top, 16 * 16).reshape(16, 16).astype(np.uint8 if bits == 8 else np.uint16)
    assert cv2.imwrite(str(tmp_path / "x.png"), pixels)
    dicom = read_dicom(write(tmp_path / "x.dcm", pixels, bits=bits))
    np.testing.assert_array_equal(dicom.pixels, read_image(tmp_path / "x.png"))


def test_full_scale_is_the_smallest_detector_depth() -> None:
    maxima = (0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535, 65536)
    expected = [255, 255, 1023, 1023, 4095, 4095, 16383, 16383, 65535, 65535, 65536]
    assert [full_scale(maximum) for maximum in maxima] == expected


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_sets_no_range(tmp_path: Path, photometric: str) -> None:
    stored = np.array([[65535, 65535, 0, 4095]], dtype=np.uint16)
    path = write(tmp_path / "x.dcm", stored, bits=16, PhotometricInterpretation=photometric)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65535)
    dataset.save_as(path)
    shown = [0, 255] if photometric == "MONOCHROME2" else [255, 0]
    np.testing.assert_array_equal(read_image(path), [[0, 0, *shown]])


def compressed(syntax: str) -> Any:
    if syntax == JPEGBaseline8Bit:
        dataset = dataset_of(RAMP_8BIT, bits=8)
        dataset.PixelData = encapsulate([cv2.imencode(".jpg", RAMP_8BIT, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()])
        dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", syntax
        return dataset
    dataset = dataset_of(RAMP)
    dataset.compress(syntax)
    return dataset


@pytest.mark.parametrize(("syntax", "tolerance"), [(RLELossless, 0), (JPEG2000Lossless, 0), (JPEGBaseline8Bit, 2)])
def test_compressed_pixels_are_read(
    tmp_path: Path, syntax: str, tolerance: int, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libjpeg")
    pytest.importorskip("openjpeg")
    compressed(syntax).save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert np.abs(read_image(tmp_path / "x.dcm").astype(int) - RAMP_8BIT).max() <= tolerance
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, JPEGBaseline8Bit, MPEG4HP41])
def test_pixels_no_decoder_reads_are_an_error_that_says_what_to_install(
    tmp_path: Path, syntax: str, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = dataset_of(RAMP)
    dataset.PixelData = encapsulate([b"no decoder knows this"])
    dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", syntax
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"x\.dcm: .*(need a decoder: pip install 'lungseg\[dicom\]'|damaged JPEG)"):
        read_image(tmp_path / "x.dcm")
    assert capfd.readouterr() == ("", "")


def test_a_cut_jpeg_stream_is_an_error_and_no_half_picture(tmp_path: Path) -> None:
    dataset = compressed(JPEGBaseline8Bit)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: len(stream) // 2]])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"x\.dcm: .*truncated JPEG"):
        read_image(tmp_path / "x.dcm")


def test_a_decoder_that_panics_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def decode(raised: BaseException) -> None:
        monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda dataset: raise_(raised)))
        read_image(path)

    def raise_(raised: BaseException) -> None:
        raise raised

    path = write(tmp_path / "x.dcm", RAMP)
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read as an X-ray"):
        decode(PanicException("index out of bounds"))
    with pytest.raises(KeyboardInterrupt):
        decode(KeyboardInterrupt())


PRESENTATIONS: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": 2000.5, "WindowWidth": 1001},
    "exact": {"WindowCenter": 1700, "WindowWidth": 900.5, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 1700, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    "rescaled window": {"RescaleSlope": 0.5, "RescaleIntercept": -7, "WindowCenter": 900, "WindowWidth": 700},
    "voi table": {"VOILUTSequence": lut(100, 16, [v * 16 for v in range(3000)] + [65535])},
    "modality table": {
        "ModalityLUTSequence": lut(0, 16, [65535 - 16 * v for v in range(4096)]),
        "WindowCenter": 40000,
        "WindowWidth": 30000,
    },
}


@pytest.mark.parametrize("name", PRESENTATIONS)
def test_the_picture_is_that_of_pydicom(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.dcm", RAMP, **PRESENTATIONS[name])
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    shares = (shown - shown.min()) / (shown.max() - shown.min())
    image = read_image(path).astype(float)
    lowest, highest = (255 / (1 + np.exp(-4 * (v - 1700) / 900)) for v in (0, 4095))  # a sigmoid reaches neither end
    expected = lowest + shares * (highest - lowest) if name == "sigmoid" else 255 * shares
    assert np.abs(image - expected).max() <= 0.5 + 1e-9


def test_dicom_is_known_by_its_marker_not_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "IM000001", RAMP)
    (tmp_path / "x.dcm").write_bytes(b"not DICOM at all")
    assert is_dicom(path)
    assert not is_dicom(tmp_path / "x.dcm")
    assert not is_dicom(tmp_path)
    np.testing.assert_array_equal(read_image(path), RAMP_8BIT)
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read as an X-ray \(not a DICOM file\)"):
        read_dicom(tmp_path / "x.dcm")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless])
def test_a_file_without_preamble_is_read(tmp_path: Path, syntax: str) -> None:
    whole = write(tmp_path / "whole.dcm", RAMP)
    dataset = pydicom.dcmread(whole)
    if syntax == JPEGLSLossless:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "other.dcm", implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    data = (tmp_path / "other.dcm").read_bytes()
    bare = tmp_path / "bare"
    bare.write_bytes(data[132:])
    assert is_dicom(bare)
    np.testing.assert_array_equal(read_image(bare), RAMP_8BIT)
    if syntax != JPEGLSLossless:  # which is known by the meta information alone
        bare.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
        np.testing.assert_array_equal(read_image(bare), RAMP_8BIT)


def test_a_file_without_preamble_does_not_inflate_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungseg.data.dicom_file.MOST_PIXELS", 500)
    path = write(tmp_path / "x.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    path.write_bytes(path.read_bytes()[132:])
    with pytest.raises(DataError, match="inflates"):
        read_image(path)


def test_a_dicom_file_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read as an image"):
        read_mask(write(tmp_path / "x.dcm", RAMP))


@pytest.mark.parametrize(
    ("elements", "spacing_mm"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.14, 0.14]}, (0.14, 0.14)),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.14, 0.14]}, (0.2, 0.3)),
        ({"PixelSpacing": [0, 0], "NominalScannedPixelSpacing": [0.175, 0.175]}, (0.175, 0.175)),
    ],
)
def test_spacing_is_height_and_width_in_mm(
    tmp_path: Path, elements: dict[str, Any], spacing_mm: tuple[float, float] | None
) -> None:
    assert read_dicom(write(tmp_path / "x.dcm", RAMP, **elements)).spacing_mm == spacing_mm


BROKEN = {
    "several frames": (lambda: dataset_of(np.stack([RAMP, RAMP]), NumberOfFrames=2), "several frames"),
    "colour": (lambda: dataset_of(RAMP, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "not grey"),
    "no pixels": (lambda: without(dataset_of(RAMP), "PixelData"), "no pixels"),
    "no rows": (lambda: without(dataset_of(RAMP), "Rows"), "do not match its header"),
    "pixels cut": (lambda: dataset_of(RAMP, PixelData=RAMP.tobytes()[:100]), "truncated"),
    "function": (
        lambda: dataset_of(RAMP, WindowCenter=9, WindowWidth=9, VOILUTFunction="SECRET"),
        "VOI LUT function is unknown",
    ),
    "rescale": (lambda: dataset_of(RAMP, RescaleSlope=0, RescaleIntercept=0), "rescale has no meaning"),
}


def test_a_file_that_claims_an_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    dataset = compressed(RLELossless)
    dataset.Rows, dataset.Columns = 30_000, 40_000
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"x\.dcm: .*claims 40000x30000 pixels; .* 100 megapixels\); replace"):
        read_image(tmp_path / "x.dcm")


def without(dataset: Any, name: str) -> Any:
    delattr(dataset, name)
    return dataset


@pytest.mark.parametrize("fault", BROKEN)
def test_faults_name_the_file_and_nothing_of_its_header(
    tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make, reason = BROKEN[fault]
    make().save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match=rf"x\.dcm: cannot be read as an X-ray \(.*{reason}.*\); replace") as error:
            read_image(tmp_path / "x.dcm")
    told = str(error.value) + "".join(capfd.readouterr()) + caplog.text
    assert "SECRET" not in told
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert caught == []


def test_bad_header_values_are_not_quoted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "x.dcm", RAMP, WindowCenter="1234567", WindowWidth="1234567")
    path.write_bytes(path.read_bytes().replace(b"1234567", b"SECRET!"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match=r"x\.dcm: .*its header is broken or incomplete: ValueError\)") as error:
            read_image(path)
    assert "SECRET" not in str(error.value) + "".join(capfd.readouterr()) + caplog.text
    assert caught == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_an_error(tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "x.dcm", RAMP).read_bytes()
    (tmp_path / "x.dcm").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read as an X-ray"):
        read_image(tmp_path / "x.dcm")
    assert capfd.readouterr() == ("", "")


def test_the_pydicom_logger_is_left_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("pydicom")
    before = logger.level
    read_image(write(tmp_path / "x.dcm", RAMP))
    assert logger.level == before


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_half_a_codestream_in_a_whole_file_is_no_image(tmp_path: Path, syntax: str, end: bytes, share: float) -> None:
    dataset = compressed(syntax)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    dataset.PixelData = encapsulate([frame[: int(len(frame) * share)] + end])
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read as an X-ray \("):
        read_image(tmp_path / "x.dcm")


def test_a_baseline_jpeg_in_a_file_is_checked_as_one_outside(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", np.tile(RAMP.astype(np.uint8), (4, 4)))[1].tobytes()
    for name, frame in (("whole", whole), ("half", whole[: len(whole) // 2] + b"\xff\xd9")):
        dataset = dataset_of(np.tile(RAMP.astype(np.uint8), (4, 4)), bits=8)
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    assert read_image(tmp_path / "whole.dcm").shape == (RAMP.shape[0] * 4, RAMP.shape[1] * 4)
    with pytest.raises(DataError, match=r"half\.dcm: .*damaged or truncated JPEG"):
        read_image(tmp_path / "half.dcm")


def test_a_stream_claims_no_other_size_than_may_be_read(tmp_path: Path) -> None:
    """The header of the file may be modest, and that of the stream in it not."""
    dataset = compressed(JPEGLSLossless)
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    start = frame.index(b"\xff\xf7") + 5
    frame[start : start + 4] = b"\xf0\0\xf0\0"
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"claims 61440x61440 pixels"):
        read_image(tmp_path / "x.dcm")


def test_a_data_set_that_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(RAMP)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    whole = read_image(tmp_path / "x.dcm")
    monkeypatch.setattr("lungseg.data.dicom_file.MOST_PIXELS", RAMP.size // 8)
    with pytest.raises(DataError, match=r"x\.dcm: .*it inflates to more than 0 MB"):
        read_image(tmp_path / "x.dcm")
    monkeypatch.undo()
    cut = (tmp_path / "x.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(cut[:-40] + bytes(40))
    with pytest.raises(DataError, match=r"x\.dcm: cannot be read"):
        read_image(tmp_path / "x.dcm")
    assert whole.shape == RAMP.shape


@pytest.mark.parametrize("spacing", [[1e200, 1e200], [1e-9, 1e-9], [0.1, 1e5]])
def test_a_spacing_that_no_x_ray_has_is_not_known(tmp_path: Path, spacing: list[float]) -> None:
    assert read_dicom(write(tmp_path / "x.dcm", RAMP, PixelSpacing=spacing)).spacing_mm is None
