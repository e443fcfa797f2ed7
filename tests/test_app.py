"""`python -m lungseg.app`: what the page computes, draws and packs, and whom the server listens to; no browser."""

from __future__ import annotations

import asyncio
import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lungseg.app import _parser, main
from lungseg.cam import methods
from lungseg.command import run_command
from lungseg.data.covidqu import CLASSES
from lungseg.data.severity import Severity
from lungseg.errors import DataError, UserError
from lungseg.inference.onnx_backend import OnnxBackend
from lungseg.inference.prediction import Flag, Prediction
from lungseg.inference.predictor import Predictor
from lungseg.reporting.drawing import outline_path
from lungseg.reporting.pages import render
from lungseg.serving import app_page, server
from lungseg.serving.app_page import MOST_FILES, PREDICTED, _Handlers
from lungseg.serving.cases import CLOSED_FORM, METHODS, Case, Reader
from lungseg.serving.rendering import draw_viewer, pack
from lungseg.serving.server import own_pages_only


class _GradioError(Exception):
    def __init__(self, text: str, title: str):
        super().__init__(f"{title}: {text}")


GRADIO = SimpleNamespace(update=lambda **fields: fields, Error=_GradioError)


@pytest.fixture(scope="module")
def reader(untrained: Path) -> Reader:
    return Reader(Predictor.load(untrained, "cpu"))


@pytest.fixture
def xray(tmp_path: Path, phantoms: Path) -> Path:
    """As an upload: alone in a folder of its own."""
    target = tmp_path / "uploads" / "abc" / "my x-ray.png"
    target.parent.mkdir(parents=True)
    return Path(shutil.copy(sorted(phantoms.rglob("images/*.png"))[3], target))


@pytest.fixture
def case(reader: Reader, xray: Path) -> Case:
    return reader.read(xray, xray.name)


@pytest.fixture
def prediction(reader: Reader, case: Case) -> Prediction:
    """With lungs where a mask is expected, and evidence in and around them."""
    found = reader.predict(case)
    rows, columns = np.mgrid[:64, :64]
    mask = (np.abs(rows - 32) < 20) & (np.abs(np.abs(columns - 32) - 12) < 7)
    return dataclasses.replace(found, mask=mask, class_map=np.sin(rows / 9).astype(np.float32) * 3)


def test_a_case_says_what_the_predictor_says(reader: Reader, case: Case, xray: Path) -> None:
    wanted, found = reader.predictor(xray), reader.predict(case)
    for name in ("probabilities", "mask", "class_map", "image"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.row() == wanted.row()


def test_a_map_of_another_class_is_that_of_the_network_without_another_pass(
    reader: Reader, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(reader.predictor.backend), "__call__", None)
    other = (case.label + 1) % 3
    np.testing.assert_array_equal(
        reader.predict(case, label=other).class_map, cv2.resize(case.outputs.class_maps[0, other], (64, 64))
    )


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_a_gradient_method_gives_the_map_of_that_method(reader: Reader, case: Case, method: str) -> None:
    network: Any = reader.predictor.backend.network  # type: ignore[attr-defined]
    pixels = torch.from_numpy(case.square.astype(np.float32) / 255)[None, None]
    wanted = methods.class_activation_map(network, pixels, 1, method)[0].numpy()
    found = reader.predict(case, method, 1).class_map
    np.testing.assert_allclose(found, cv2.resize(wanted, (64, 64)), atol=1e-6)
    assert (method, 1) in case.maps


def test_every_method_has_a_name_and_works(reader: Reader, case: Case) -> None:
    assert list(METHODS) == list(methods.METHODS)
    assert reader.methods == tuple(METHODS)
    for method in METHODS:
        assert np.isfinite(reader.predict(case, method).class_map).all()


def test_a_model_without_gradients_offers_the_closed_form_alone(reader: Reader, xray: Path) -> None:
    backend = reader.predictor.backend

    class Exported:
        info, concurrent = backend.info, False

        def __call__(self, images: np.ndarray[Any, Any]) -> Any:
            return backend(images)

    exported = Reader(Predictor(Exported()))
    assert exported.methods == (CLOSED_FORM,)
    case = exported.read(xray, "a.png")
    np.testing.assert_array_equal(exported.predict(case).class_map, reader.predict(case).class_map)
    with pytest.raises(ValueError, match="method: 'grad_cam' is not one of this model's: cam"):
        exported.predict(case, "grad_cam")
    with_torch = Reader(Predictor(Exported()), lambda: reader.predictor)
    assert with_torch.methods == tuple(METHODS)
    found, wanted = with_torch.predict(case, "grad_cam", 1), reader.predict(reader.read(xray, "a.png"), "grad_cam", 1)
    np.testing.assert_array_equal(found.class_map, wanted.class_map)


def test_a_map_that_is_not_finite_is_told(reader: Reader, case: Case) -> None:
    case.outputs.class_maps[0, 2, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"gives no finite map of 'my x-ray.png'"):
        reader.predict(case, label=2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"some words", "cannot be read as an image (not a PNG, JPEG, TIFF, BMP or DICOM file)"),
        (b"", "cannot be read as an image (the file is empty)"),
        (b"\x89PNG\r\n\x1a\n123", "cannot be read as an image (truncated PNG)"),
    ],
)
def test_a_bad_file_is_named_without_its_place(reader: Reader, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path / "notes.txt", "notes.txt")
    assert str(caught.value) == f"notes.txt: {reason}"


def test_a_huge_image_is_refused_before_it_is_decoded(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (10_001, 10_000)).save(tmp_path / "big.png")
    monkeypatch.setattr("lungseg.data.images._opencv", None)
    with pytest.raises(DataError, match=r"^big.png: .* claims 10001x10000 pixels; the most that is read are 100 meg"):
        reader.read(tmp_path / "big.png", "big.png")


def test_examples_show_the_classes_in_turn(reader: Reader) -> None:
    names = [reader.example(number).name for number in range(4)]
    assert [name.partition("(")[2] for name in names] == [f"{CLASSES[i % 3]}, drawn)" for i in range(4)]


def test_layers_at_an_opacity_make_the_overlay(prediction: Prediction) -> None:
    picture = draw_viewer(prediction, "a", "Normal")
    grey, layer = (_decode(picture, name).astype(np.float32) for name in ("xray", "map"))
    inside = cv2.erode(prediction.mask.astype(np.uint8), np.ones((3, 3))) > 0
    for opacity in (0.3, 0.75):
        alpha = layer[..., 3:] / 255 * opacity
        seen = grey[..., None] * (1 - alpha) + layer[..., :3] * alpha
        assert np.abs(seen - prediction.overlay(opacity=opacity))[inside].mean() < 6  # JPEG and WebP lose


def test_outline_and_crop_are_those_of_the_mask_through_the_middle_of_its_pixels(prediction: Prediction) -> None:
    path = f'transform="translate(.5 .5)" d="{outline_path(prediction.mask)}"'
    picture = draw_viewer(prediction, "a", "Normal")
    assert f'<clipPath id="lungs"><path clip-rule="evenodd" {path}/>' in picture
    assert f'<path id="outline" {path}/>' in picture


def describe(prediction: Prediction, of_class: str) -> str:
    return render("app_facts.html.jinja", found=prediction, of_class=of_class)


def test_names_cannot_bring_markup(prediction: Prediction) -> None:
    evil = '"><script>alert(1)</script>'
    flagged = dataclasses.replace(prediction, flags=(Flag("x", evil, 0.0),), classes=(evil, "b", "c"))
    notices = render("app_notices.html.jinja", notices=[evil])
    for text in (draw_viewer(flagged, evil, evil), describe(flagged, evil), notices):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_facts_tell_probabilities_evidence_and_areas(prediction: Prediction) -> None:
    told = describe(dataclasses.replace(prediction, evidence_in_lungs=0.31), "Normal")
    for name, p in zip(prediction.classes, prediction.probabilities, strict=True):
        assert re.search(f"<th>{name}</th>.*?<td>{p:.1%}</td>", told)
    assert "<b>31%</b>" in told
    assert "Most of it lies outside" in told
    assert f"the lungs are {prediction.mask.mean():.0%} of the image" in told
    assert "Look twice" not in told or prediction.flags
    assert "Not to be told apart" not in told
    unsure = describe(dataclasses.replace(prediction, class_set=(2, 0)), "Normal")
    assert f"Not to be told apart for sure: {prediction.classes[2]}, {prediction.classes[0]}." in unsure
    assert "Not to be told apart" not in describe(dataclasses.replace(prediction, class_set=(2,)), "Normal")
    assert "Most of it" not in describe(dataclasses.replace(prediction, evidence_in_lungs=0.5), "Normal")
    assert "holds no evidence" in describe(dataclasses.replace(prediction, evidence_in_lungs=None), "Normal")


def test_infection_is_outlined_told_and_packed_where_the_model_predicts_it(
    untrained_infection: Path, reader: Reader, xray: Path, prediction: Prediction
) -> None:
    infected = Reader(Predictor.load(untrained_infection, "cpu"))
    found = infected.predict(infected.read(xray, "a.png"))
    assert found.infection is not None and found.severity is not None
    wanted = infected.predictor(xray)
    assert np.array_equal(found.infection, wanted.infection) and found.severity == wanted.severity
    picture = draw_viewer(found, "a", "Normal")
    assert f'<path id="infection" transform="translate(.5 .5)" d="{outline_path(found.infection)}"/>' in picture
    assert found.severity_words.partition("\n")[0] in unescape(picture)
    told = describe(dataclasses.replace(found, severity=Severity(0.31, None, 0.62, 0, 0.5, 1)), "Normal")
    assert re.findall("<th>(.*?)</th>.*?<td>([0-9]+%|-)</td>", told.partition("Infected share")[2], re.S) == [
        *[("both lungs", "31%"), ("patient&#39;s left", "-"), ("patient&#39;s right", "62%")],
        *[("upper zones", "0%"), ("middle zones", "50%"), ("lower zones", "100%")],
    ]
    assert "An extrapolation" in describe(dataclasses.replace(found, is_extrapolated=True), "Normal")
    assert "An extrapolation" not in describe(dataclasses.replace(found, is_extrapolated=False), "Normal")
    assert "Infected share" not in describe(prediction, "Normal")
    assert 'id="infection"' not in draw_viewer(prediction, "a", "Normal")
    archive = zipfile.ZipFile(io.BytesIO(pack([("a", found)], infected.predictor.info, "cam", None, 0.5, True)))
    mask = cv2.imdecode(np.frombuffer(archive.read("01_a_infection_mask.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, found.infection * np.uint8(255))
    (row,) = csv.DictReader(io.StringIO(archive.read("results.csv").decode()))
    assert row["infection_mask"] == "01_a_infection_mask.png"


def test_the_zip_holds_masks_overlays_and_one_table_twice(reader: Reader, prediction: Prediction) -> None:
    results = [("../a b.png", prediction), ("../a b.png", prediction)]
    archive = zipfile.ZipFile(io.BytesIO(pack(results, reader.predictor.info, "hires_cam", 1, 0.5, True)))
    files = [f"0{i}_.._a_b.png_{kind}.png" for i in (1, 2) for kind in ("mask", "overlay")]
    assert archive.namelist() == [*files, "results.csv", "results.json"]
    mask = cv2.imdecode(np.frombuffer(archive.read(files[0]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, prediction.mask * np.uint8(255))
    drawn = cv2.imdecode(np.frombuffer(archive.read(files[1]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(drawn, prediction.overlay(opacity=0.5))
    told = json.loads(archive.read("results.json"))
    assert told["notice"].startswith("Research software, not a medical device")
    assert [row["map_class"] for row in told["images"]] == [CLASSES[1]] * 2
    for row, line in zip(
        told["images"], csv.DictReader(io.StringIO(archive.read("results.csv").decode())), strict=True
    ):
        assert list(line) == list(row)
        assert line["id"] == "../a b.png"
        assert float(line["evidence_in_lungs"]) == row["evidence_in_lungs"]
        assert line["flags"] == "; ".join(row["flags"])


def test_an_overlay_without_crop_shows_what_lies_outside(prediction: Prediction) -> None:
    cropped, whole = (prediction.overlay(crop=crop) for crop in (True, False))
    differs = (cropped != whole).any(axis=2)
    outside = ~(cv2.dilate(prediction.mask.astype(np.uint8), np.ones((3, 3))) > 0)
    assert not differs[~outside & prediction.mask].any()
    assert differs[outside & (prediction.class_map > 1)].all()


def test_what_was_read_is_deleted_and_what_cannot_be_is_told(reader: Reader, xray: Path, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    (uploads / "notes.txt").write_text("words")
    outside = tmp_path / "mine.png"
    shutil.copy(xray, outside)
    actions = _Handlers(GRADIO, reader, uploads)
    files, cases, images, notices = actions.read([str(xray), str(uploads / "notes.txt"), str(outside)], [])
    assert files is None
    assert [case.name for case in cases] == ["my x-ray.png", "mine.png"]
    assert images["visible"] and images["value"] == 0
    assert [label for label, _ in images["choices"]] == [f"{c.name}: {reader.classes[c.label]}" for c in cases]
    assert "notes.txt: cannot be read as an image" in notices
    assert str(tmp_path) not in notices
    assert [path for path in uploads.rglob("*") if path.is_file()] == []
    assert outside.exists()


def test_nothing_readable_leaves_what_was_there(reader: Reader, case: Case, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    _, cases, _, notices = _Handlers(GRADIO, reader, tmp_path).read([str(tmp_path / "a.txt")], [case])
    assert cases == [case]
    assert "a.txt: cannot be read as an image (the file is empty)" in notices


def test_more_files_than_the_limit_are_told_and_deleted(
    reader: Reader, xray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_page, "MOST_FILES", 1)
    second = Path(shutil.copy(xray, xray.with_name("b.png")))
    _, cases, images, notices = _Handlers(GRADIO, reader, xray.parents[1]).read([str(xray), str(second)], [])
    assert len(cases) == 1 and not images["visible"]
    assert "The first 1 of 2 files were taken" in notices
    assert not second.exists()
    assert MOST_FILES >= 10


def test_show_and_pack_follow_what_is_chosen(reader: Reader, case: Case, tmp_path: Path) -> None:
    actions = _Handlers(GRADIO, reader, tmp_path)
    picture, facts = actions.show([case], 0, "grad_cam", "2")
    assert picture == draw_viewer(reader.predict(case, "grad_cam", 2), case.name, CLASSES[2])
    assert f"Evidence for {CLASSES[2]} in the lungs" in facts
    content = base64.b64decode(actions.pack([case], "grad_cam", PREDICTED, 40, False))
    (row,) = json.loads(zipfile.ZipFile(io.BytesIO(content)).read("results.json"))["images"]
    assert (row["map_method"], row["map_class"], row["map_cropped"]) == ("grad_cam", CLASSES[case.label], False)
    assert actions.show([], None, CLOSED_FORM, PREDICTED) == ("", "")
    with pytest.raises(_GradioError, match="forgotten after an hour"):
        actions.show([], 0, CLOSED_FORM, PREDICTED)


def _run(*words: object) -> int:
    return run_command(main, _parser(), [str(word) for word in words])


def test_without_gradio_one_line_says_how_to_get_it(
    untrained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    assert _run("--checkpoint", untrained) == 2
    assert capsys.readouterr().err == "error: the page needs Gradio: pip install 'lungseg[app]'\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """With what a server would have been started; none is."""
    calls: list[tuple[Any, ...]] = []

    @contextmanager
    def running(*arguments: Any) -> Iterator[tuple[str, Path]]:
        calls.append(arguments)
        yield "http://there/", Path()

    monkeypatch.setattr(server, "running", running)
    monkeypatch.setattr(server, "_wait", lambda: None)
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: name)
    return calls


def test_listens_here_only_unless_asked_and_then_says_so(
    untrained: Path, served: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--checkpoint", untrained, "--device", "cpu") == 0
    said = capsys.readouterr()
    assert said.out == "page   http://there/   (Ctrl-C ends it)\n"
    assert "warning" not in said.err
    assert _run("--checkpoint", untrained, "--device", "cpu", "--host", "0.0.0.0") == 0
    assert "warning: listening on 0.0.0.0: whoever reaches this port" in capsys.readouterr().err
    assert [arguments[2] for arguments in served] == ["127.0.0.1", "0.0.0.0"]
    assert all(7860 <= arguments[3] < 7960 for arguments in served)


def test_the_model_that_comes_along_is_served_by_onnxruntime_with_the_methods_of_torch(
    served: list[tuple[Any, ...]],
) -> None:
    assert _run("--device", "cpu") == 0
    reader, name = served[0][:2]
    assert isinstance(reader.predictor.backend, OnnxBackend) and name == "of the package"
    assert reader.methods == tuple(METHODS)


def test_a_port_or_host_that_cannot_be_had_is_told(
    untrained: Path, served: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert _run("--checkpoint", untrained, "--port", port) == 2
    assert _run("--checkpoint", untrained, "--port", 0) == 2
    assert _run("--checkpoint", untrained, "--host", "no.such.invalid") == 2
    assert served == []
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"error: --port: port {port} on '127.0.0.1' cannot be had \(.+\); give another one", lines[0])
    assert lines[1] == "error: --port: must be 1 to 65535, got 0"
    assert lines[2].startswith("error: --host: no such address 'no.such.invalid'")


def _decode(picture: str, name: str) -> np.ndarray[Any, Any]:
    (content,) = re.findall(rf'<image id="{name}" [^>]*href="data:image/\w+;base64,([^"]+)"', picture)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), (b"http://here:1", 200), (b"http://evil", 403), (b"null", 403), (b"http://here:2", 403)],
)
def test_a_page_of_another_address_cannot_use_this_one(origin: bytes | None, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"here:1"), *([] if origin is None else [(b"origin", origin)])]
    asyncio.run(own_pages_only(app)({"type": "http", "headers": headers}, None, send))
    assert sent[0]["status"] == status


def test_an_address_of_ipv6_is_one_line() -> None:
    with pytest.raises(UserError, match=r"--host: must be a name or an address of IPv4"):
        server._find_port("::1", None)
