"""`python -m lungseg.predict`: from files to files, whatever is among them, and again where it was stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungseg.command import run_command
from lungseg.config import ModelConfig
from lungseg.inference.dicom_out import write_dicom
from lungseg.inference.inputs import Input
from lungseg.inference.predictor import Predictor
from lungseg.inference.torch_backend import TorchBackend
from lungseg.models.network import LungNetwork
from lungseg.predict import _parser, main
from lungseg.runs.model_info import ModelInfo


@pytest.fixture
def folder(tmp_path: Path, phantoms: Path) -> Path:
    """Four X-rays: two PNG, one of them in a folder below, a JPEG of another shape, and a 16-bit PNG."""
    xrays = sorted(phantoms.rglob("images/*.png"))
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    shutil.copy(xrays[0], images / "a.png")
    shutil.copy(xrays[5], images / "more" / "a.png")
    pixels = cv2.imread(str(xrays[9]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(images / "b.jpg"), cv2.resize(pixels, (90, 120)))
    cv2.imwrite(str(images / "c.png"), pixels.astype(np.uint16) * 16)
    return images


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def _predict(*words: object) -> int:
    return run_command(main, _parser(), [str(word) for word in words])


def _rows(out: Path) -> dict[str, dict[str, Any]]:
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_a_folder_gives_masks_overlays_and_numbers(
    folder: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").touch()
    assert _predict(folder, "--output", out, "--checkpoint", untrained, "--device", "cpu", "--batch-size", 3) == 0
    rows = _rows(out)
    assert list(rows) == ["a.png", "b.jpg", "c.png", "more/a.png"]
    predictor = Predictor.load(untrained, "cpu")
    for name, row in rows.items():
        wanted = predictor(folder / name)
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == wanted.image.shape
        assert np.mean(mask != wanted.mask * np.uint8(255)) < 0.01  # other batches round otherwise
        assert row["predicted"] == wanted.name
        shown = [float(row[f"prob_{c}"]) for c in wanted.classes]
        np.testing.assert_allclose(shown, wanted.probabilities, atol=1e-4)
        assert float(row["evidence_in_lungs"]) == pytest.approx(wanted.evidence_in_lungs, abs=1e-2)
        assert row["flags"] == "; ".join(flag.name for flag in wanted.flags)
        assert cv2.imread(str(out / row["overlay"])).shape == (*wanted.image.shape, 3)
    assert rows["b.jpg"]["mask"] == "masks/b.jpg.png"
    assert (rows["b.jpg"]["width_px"], rows["b.jpg"]["height_px"]) == ("90", "120")
    assert [line["id"] for line in _lines(out)] == list(rows)
    said = capsys.readouterr()
    assert "images   4: 4 done, 0 skipped" in said.out
    assert "note: probabilities are not calibrated (none: the run has no calibration.json yet" in said.err


def test_files_and_patterns_and_each_once(
    folder: Path, out: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert _predict("*.png", "a.png", "more", "--output", out, "--checkpoint", untrained) == 0
    assert list(_rows(out)) == ["a.png", "c.png", "more/a.png"]


def test_a_bad_file_is_named_skipped_and_tried_again(
    folder: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:500])
    words = (folder, "--output", out, "--checkpoint", untrained)
    assert _predict(*words) == 1
    said = capsys.readouterr()
    assert "skipped a.png: cannot be read as an image (truncated PNG)" in said.err
    assert "images   4: 3 done, 1 skipped" in said.out
    row = _rows(out)["a.png"]
    assert row["error"].startswith("cannot be read as an image (truncated PNG)") and row["predicted"] == ""
    assert not (out / "masks" / "a.png").exists()
    (folder / "a.png").write_bytes(whole)
    assert _predict(*words) == 0
    assert "images   4: 1 done, 3 by an earlier run, 0 skipped" in capsys.readouterr().out
    assert _rows(out)["a.png"]["error"] == ""


def test_nothing_but_bad_files(folder: Path, out: Path, untrained: Path) -> None:
    (folder / "more" / "a.png").write_bytes(b"")
    assert _predict(folder / "more", "--output", out, "--checkpoint", untrained) == 1
    assert _rows(out)["a.png"]["error"].startswith("cannot be read as an image (the file is empty)")


def test_a_rerun_does_what_is_missing_changed_or_torn_and_nothing_else(
    folder: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (folder, "--output", out, "--checkpoint", untrained)
    assert _predict(*words) == 0
    before = _rows(out)
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the middle of a line
    (out / "masks" / "c.png").unlink()
    shutil.copy(folder / "c.png", folder / "a.png")
    kept = (out / "masks" / "b.jpg.png").stat().st_mtime_ns
    capsys.readouterr()
    assert _predict(*words) == 0
    assert "images   4: 3 done, 1 by an earlier run, 0 skipped" in capsys.readouterr().out
    assert (out / "masks" / "b.jpg.png").stat().st_mtime_ns == kept
    after = _rows(out)
    assert len(_lines(out)) == 4
    assert after["more/a.png"] == before["more/a.png"]
    same = ("predicted", "evidence_in_lungs", "lung_left_px")
    assert [after["a.png"][name] for name in same] == [before["c.png"][name] for name in same]


def test_a_finished_folder_needs_no_model(
    folder: Path, out: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _predict(folder, "--output", out, "--checkpoint", untrained) == 0
    monkeypatch.setattr(Predictor, "load", None)
    assert _predict(folder, "--output", out, "--checkpoint", untrained) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "0.4"], "holds predictions with threshold 0.5, now it is 0.4"),
        (["--tta"], "holds predictions with tta False, now it is True"),
    ],
)
def test_results_of_two_settings_never_mix(
    folder: Path, out: Path, untrained: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(folder / "a.png", "--output", out, "--checkpoint", untrained) == 0
    assert _predict(folder / "a.png", "--output", out, "--checkpoint", untrained, *words) == 2
    assert message in capsys.readouterr().err


def test_results_in_the_input_folder_are_no_inputs(folder: Path, untrained: Path) -> None:
    words = (folder, "--output", folder, "--checkpoint", untrained)
    assert _predict(*words) == 0
    assert _predict(*words) == 0
    assert len(_rows(folder)) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.png"], "error: no file, folder or pattern 'gone.png' here"),
        (["none*.png"], "error: no file, folder or pattern 'none*.png' here"),
        (["empty"], "empty': looked for .png, .jpg"),
        (["a.png", "--checkpoint", "gone"], "error: no model at 'gone'"),
        (["a.png", "--threshold", "1.5"], "error: threshold: must be in (0, 1), got 1.5"),
        (["a.png", "--batch-size", "0"], "error: batch_size: must be >= 1, got 0"),
        (["a.png", "--device", "gpu"], "error: device: no such device 'gpu'"),
        (["a.png", "--shard", "2/2"], "error: --shard: I/N with 0 <= I < N, such as 0/4, got '2/2'"),
        (["a.png", "--shard", "0/2", "--device", "cpu,cpu"], "error: --device: one device for a shard, got 'cpu,cpu'"),
        (["a.png", "a"], "results of 'a' and 'a.png' would bear one name"),
        ([], "error: the following arguments are required: INPUT; see python -m lungseg.predict --help"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path,
    untrained: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    shutil.copy("a.png", "a")
    assert _predict("--output", "out", "--checkpoint", untrained, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and len(lines) <= 2


def test_two_at_a_time_into_one_folder_is_an_error(
    folder: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lungseg.inference.journal import Journal

    other = Journal(out)
    try:
        assert _predict(folder, "--output", out, "--checkpoint", untrained) == 2
    finally:
        other.close()
    assert "another process is predicting into it" in capsys.readouterr().err


def test_shards_by_hand_are_collected_by_the_next_run(
    folder: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (folder, "--output", out, "--checkpoint", untrained)
    assert _predict(*words, "--shard", "1/2") == 0
    assert "images   2: 2 done, 0 skipped" in capsys.readouterr().out
    assert not (out / "predictions.csv").exists()
    assert _predict(*words, "--shard", "0/2") == 0
    capsys.readouterr()
    assert _predict(*words) == 0
    assert "images   4: 0 done, 4 by an earlier run, 0 skipped" in capsys.readouterr().out
    assert list(_rows(out)) == ["a.png", "b.jpg", "c.png", "more/a.png"]
    assert not [path for path in out.iterdir() if "part-" in path.name]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(folder: Path, tmp_path: Path, untrained: Path) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    for device in ("cpu", "cpu,cpu"):
        words = [str(folder), "--output", str(tmp_path / device), "--checkpoint", str(untrained), "--device", device]
        done = subprocess.run(
            [sys.executable, "-m", "lungseg.predict", *words], check=False, capture_output=True, text=True
        )
        assert done.returncode == 1, done.stderr
        assert "images   5: 4 done, 1 skipped" in done.stdout
        assert "skipped bad.png: cannot be read" in done.stderr
    one, two = _rows(tmp_path / "cpu"), _rows(tmp_path / "cpu,cpu")
    assert list(one) == list(two)
    for name, row in one.items():
        assert row["predicted"] == two[name]["predicted"] and row["error"] == two[name]["error"]


@pytest.mark.slow
def test_a_lost_process_is_said_and_its_share_is_left_for_the_next_run(
    folder: Path, out: Path, untrained: Path
) -> None:
    words = [str(folder), "--output", str(out), "--checkpoint", str(untrained)]
    command = [sys.executable, "-m", "lungseg.predict", *words]
    done = subprocess.run([*command, "--device", "cpu,cuda:99"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: the process on 'cuda:99' broke off; run the same command again for the rest" in done.stderr
    assert len(_rows(out)) == 2
    assert _predict(*words) == 0
    assert len(_rows(out)) == 4


def _dicom(path: Path, pixels: Any, **elements: Any) -> Path:
    pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = "SECRET^NAME", "SECRET-ID", "DX"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelSpacing = [0.5, 0.4]
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        delattr(dataset, name) if value is None else setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def dicoms(tmp_path: Path, phantoms: Path) -> Path:
    """A folder with one DICOM file without a suffix, and a PNG of the same pixels."""
    path = sorted(phantoms.rglob("images/*.png"))[0]
    (tmp_path / "series").mkdir()
    shutil.copy(path, tmp_path / "series" / "same.png")
    _dicom(tmp_path / "series" / "IM0001", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    (tmp_path / "series" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return tmp_path / "series"


def test_dicom_is_found_without_a_suffix_and_leaves_nothing_of_its_header(
    dicoms: Path, out: Path, untrained: Path
) -> None:
    assert _predict(dicoms, "--output", out, "--checkpoint", untrained) == 0
    rows = _rows(out)
    assert list(rows) == ["IM0001", "same.png"]
    one, same = rows.values()
    assert one["evidence_in_lungs"] == same["evidence_in_lungs"]
    assert float(one["lung_left_cm2"]) == pytest.approx(int(one["lung_left_px"]) * 0.5 * 0.4 / 100, abs=0.006)
    assert same["lung_left_cm2"] == ""
    assert not (out / "dicom").exists()
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert b"SECRET" not in path.read_bytes(), path


def test_dicom_out_is_a_segmentation_and_a_picture_of_the_same_study(dicoms: Path, out: Path, untrained: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    import pydicom

    assert _predict(dicoms, "--output", out, "--checkpoint", untrained, "--dicom-out") == 0
    assert sorted(path.name for path in (out / "dicom").iterdir()) == ["IM0001.overlay.dcm", "IM0001.seg.dcm"]
    source = pydicom.dcmread(dicoms / "IM0001")
    segmentation = highdicom.seg.segread(out / "dicom" / "IM0001.seg.dcm")
    picture = pydicom.dcmread(out / "dicom" / "IM0001.overlay.dcm")
    for dataset in (segmentation, picture):
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.PatientID == source.PatientID
    mask = cv2.imread(str(out / "masks" / "IM0001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(segmentation.pixel_array.squeeze(), mask // 255)
    referenced = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
    assert referenced == source.SOPInstanceUID
    overlay = cv2.imread(str(out / "overlays" / "IM0001.png"))
    assert np.array_equal(picture.pixel_array, overlay[..., ::-1])
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [0.5, 0.4]
    # what the input does not say is not made up, and what must be there is there, empty
    for dataset in (segmentation, picture):
        assert "PatientOrientation" not in source and "PatientOrientation" in dataset and not dataset.PatientOrientation
    assert "Laterality" in picture and not picture.Laterality


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="validator of dicom3tools")
def test_dicom_out_has_no_error_of_a_validator(dicoms: Path, out: Path, untrained_infection: Path) -> None:
    pytest.importorskip("highdicom")
    assert _predict(dicoms, "--output", out, "--checkpoint", untrained_infection, "--dicom-out") == 0
    for path in (out / "dicom").iterdir():
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said


def test_infection_is_a_mask_beside_columns_and_the_second_segment(
    dicoms: Path, out: Path, untrained_infection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    highdicom = pytest.importorskip("highdicom")
    import pydicom

    assert _predict(dicoms, "--output", out, "--checkpoint", untrained_infection, "--dicom-out") == 0
    assert "masks/, infection_masks/, overlays/)" in capsys.readouterr().out
    row, line = _rows(out)["IM0001"], _lines(out)[0]
    wanted = Predictor.load(untrained_infection, "cpu")(dicoms / "IM0001")
    assert wanted.severity is not None and wanted.infection is not None
    for part, share in wanted.severity._asdict().items():
        shown, stored = row[f"infected_{part}"], line[f"infected_{part}"]
        assert (
            (shown, stored) == ("", None) if share is None else float(shown) == stored == pytest.approx(share, abs=0.02)
        )
    assert row["infection_extrapolated"] == str(wanted.name == "Non-COVID") == str(line["infection_extrapolated"])
    assert row["infection_mask"] == "infection_masks/IM0001.png"
    infection = cv2.imread(str(out / row["infection_mask"]), cv2.IMREAD_UNCHANGED)
    assert np.mean(infection != wanted.infection * np.uint8(255)) < 0.01
    segmentation = highdicom.seg.segread(out / "dicom" / "IM0001.seg.dcm")
    lungs, infected = (
        segmentation.get_pixels_by_source_instance(
            [pydicom.dcmread(dicoms / "IM0001").SOPInstanceUID], segment_numbers=[number]
        ).squeeze()
        for number in (1, 2)
    )
    assert np.array_equal(lungs, cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED) // 255)
    assert np.array_equal(infected, infection // 255)
    said = segmentation.get_segment_description(2)
    assert (said.segmented_property_category.value, said.segmented_property_type.value) == ("49755003", "52988006")
    assert [region.value for region in said.anatomic_regions] == ["39607008"]
    picture = pydicom.dcmread(out / "dicom" / "IM0001.overlay.dcm")
    assert picture.ImageComments.endswith(wanted.severity_words.replace("\n", "; "))


def test_dicom_says_what_is_predicted_of_findings_masks_and_classes(
    dicoms: Path, tmp_path: Path, tiny_model: ModelConfig
) -> None:
    pytest.importorskip("highdicom")
    import pydicom

    network, empty = LungNetwork(tiny_model, 2, multi_label=True).eval(), {"description": {"model": {}}}
    several = ModelInfo(("a", "b"), 64, True, network.stride, multi_label=True, thresholds=(0.0, 1.0), **empty)
    masks = ModelInfo((), 64, True, network.stride, **empty)
    bare = ModelInfo(("a",), 64, True, network.stride, description={"model": {"lung": False}})
    networks = network, LungNetwork(tiny_model, 0), LungNetwork(dataclasses.replace(tiny_model, lung=False), 1)
    said = []
    for info, of in zip((several, masks, bare), networks, strict=True):
        folder, file = tmp_path / str(len(said)), Input("IM0001", dicoms / "IM0001")
        prediction = Predictor(TorchBackend(of, info, "cpu"))(file.path)
        write_dicom(folder, file, prediction)
        picture = pydicom.dcmread(folder / "IM0001.overlay.dcm")
        said.append((picture.get("ImageComments"), picture.SeriesDescription, (folder / "IM0001.seg.dcm").exists()))
        assert picture.Columns == prediction.image.shape[1]  # one finding is called, whatever its probability
    end = "predicted; not for diagnosis"
    assert said[0][0].startswith("a 0.") and said[0][1:] == (f"lungs and class map, {end}", True)
    assert said[1] in ((None, f"lungs, {end}", True), ("", f"lungs, {end}", True))
    assert said[2] == ("a 1.00", f"class map, {end}", False)


def test_of_a_model_without_infection_its_columns_are_there_and_empty(folder: Path, out: Path, untrained: Path) -> None:
    assert _predict(folder / "a.png", "--output", out, "--checkpoint", untrained) == 0
    row = _rows(out)["a.png"]
    names = [name for name in row if name.startswith("infect")]
    assert len(names) == 8 and not any(row[name] for name in names)
    assert not (out / "infection_masks").exists()


def test_dicom_without_a_study_is_skipped_by_name_alone(
    dicoms: Path, out: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("highdicom")
    _dicom(dicoms / "IM0001", np.zeros((64, 64), np.uint8), StudyInstanceUID=None)
    assert _predict(dicoms / "IM0001", "--output", out, "--checkpoint", untrained, "--dicom-out") == 1
    said = capsys.readouterr().err
    assert "skipped IM0001: no DICOM output can be made of its header (AttributeError); leave out --dicom-out" in said
    assert "SECRET" not in said
    assert not (out / "dicom").exists()


def test_dicom_out_without_highdicom_says_what_to_install(
    folder: Path, out: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lungseg.inference.dicom_out.find_spec", lambda name: None)
    assert _predict(folder, "--output", out, "--checkpoint", untrained, "--dicom-out") == 2
    assert "--dicom-out: needs highdicom; pip install 'lungseg[dicom-out]'" in capsys.readouterr().err


def test_what_befalls_one_file_is_said_of_it_and_the_others_are_done(
    folder: Path, out: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "a.png", folder / f"{'n' * 250}.bmp")  # its results would have a name that is too long
    os.mkfifo(folder / "pipe.png")  # of a folder not even looked at: it would be waited for
    (folder / "linked").symlink_to(folder / "more")
    (folder / "back").symlink_to(folder)
    for name in ("huge", "changed", "broken"):
        shutil.copy(folder / "a.png", folder / f"{name}.png")
    prepare = Predictor.prepare

    def planted(predictor: Predictor, path: Path) -> Any:
        if path.stem == "huge":
            raise MemoryError
        if path.stem == "broken":
            raise cv2.error("many\nlines")
        found = prepare(predictor, path)
        if path.stem == "changed":
            path.write_bytes(path.read_bytes() + b"more")
        return found

    monkeypatch.setattr(Predictor, "prepare", planted)
    assert _predict(folder, "--output", out, "--checkpoint", untrained) == 1
    errors = {name: row["error"] for name, row in _rows(out).items() if row["error"]}
    assert errors == {
        f"{'n' * 250}.bmp": "File name too long",
        "huge.png": "there is not enough memory for it",
        "broken.png": "OpenCV cannot handle it",
        "changed.png": "it was changed while it was read; run the command again",
    }
    assert "8: 4 done, 4 skipped" in capsys.readouterr().out and not list(out.rglob("*.part*"))
    assert sum(name.endswith("/a.png") for name in _rows(out)) == 1  # of the folder and the link to it, one
    assert _predict(folder / "pipe.png", "--output", out, "--checkpoint", untrained) == 1


def test_broken_lines_of_a_journal_are_done_again(folder: Path, out: Path, untrained: Path) -> None:
    words = (folder, "--output", out, "--checkpoint", untrained)
    assert _predict(*words) == 0
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    planted = [b"{\n", b'["id"]\n', b'{"id": "b.jpg"}\n', b"\xff\n", lines[3]]
    (out / "predictions.jsonl").write_bytes(b"".join(planted))
    assert _predict(*words) == 0
    assert len(_lines(out)) == len(_rows(out)) == 4


def test_a_model_that_cannot_be_loaded_does_not_take_the_folder(
    folder: Path, out: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.safetensors").write_bytes(b"nothing")
    assert _predict(folder, "--output", out, "--checkpoint", tmp_path / "wrong.safetensors") == 2
    assert _predict(folder, "--output", out, "--checkpoint", untrained) == 0
    (out / "settings.json").write_text("{")
    assert _predict(folder, "--output", out, "--checkpoint", untrained) == 2
    assert "settings.json: cannot be read" in capsys.readouterr().err
