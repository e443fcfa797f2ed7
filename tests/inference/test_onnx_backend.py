"""An exported file at work: the same numbers as torch's, from files of any size and depth, and without torch."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungseg.data.geometry import Letterbox
from lungseg.data.phantom.generator import draw_phantom
from lungseg.exporting.graph import GraphOutputs
from lungseg.inference.onnx_backend import load_onnx, open_session
from lungseg.inference.predictor import Predictor, load_backend
from lungseg.inference.preprocess import to_picture

SQUARES = np.stack([draw_phantom(seed, seed, 64).image for seed in range(3)])


@pytest.fixture(scope="module")
def session(exported: Path) -> Any:
    return open_session(exported, threads=1)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_the_backend_gives_what_torchs_gives(exported: Path, untrained_infection: Path, device: str) -> None:
    if device == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    ours, theirs = load_backend(exported, device), load_backend(untrained_infection, "cpu")
    assert ours(SQUARES).disagreement is theirs(SQUARES).disagreement is None
    for found, expected in zip(ours(SQUARES)[:-1], theirs(SQUARES)[:-1], strict=True):
        assert found is not None and expected is not None and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ours.info.classes == theirs.info.classes
    assert (ours.info.image_size, ours.info.map_stride, ours.info.keep_aspect) == (64, 8, True)
    assert ours.info.temperature == theirs.info.temperature


def test_a_predictor_finds_the_infection_that_torch_finds(exported: Path, untrained_infection: Path) -> None:
    one, other = (Predictor.load(path, "cpu")(SQUARES) for path in (exported, untrained_infection))
    assert isinstance(one, list) and isinstance(other, list)
    for found, expected in zip(one, other, strict=True):
        assert found.infection is not None and found.severity is not None and expected.severity is not None
        assert 0 < found.infection.mean() < 1
        assert found.severity == pytest.approx(expected.severity, abs=0.01)
        assert found.is_extrapolated == expected.is_extrapolated


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_file_without_infection_gives_none(exported: Path, tmp_path: Path, device: str) -> None:
    onnx = pytest.importorskip("onnx")
    if device == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    model = onnx.load(exported)
    names = [output.name for output in model.graph.output]
    assert [*names, "disagreement"] == list(GraphOutputs._fields), (
        "those of infection come last, since a file may lack them"
    )
    del model.graph.output[-2:]
    onnx.save(model, tmp_path / "without.onnx")
    without, whole = (load_backend(path, device)(SQUARES) for path in (tmp_path / "without.onnx", exported))
    assert without.infection_probs is None and whole.infection_probs is not None
    assert all(np.array_equal(*pair) for pair in zip(without[:3], whole[:3], strict=True))


def test_any_size_and_depth_goes_in_and_comes_back_at_its_own_size(session: Any) -> None:
    image = draw_phantom(1, 1, 256).image[:, :180]
    names = [output.name for output in session.get_outputs()]
    for scale in (1, 16, 257):
        deep = image.astype(np.uint16) * np.uint16(scale)
        found = dict(zip(names, session.run(None, {"image": deep[None]}), strict=True))
        assert found["mask_probs_full"].shape == found["lung_map_full"].shape == (1, 256, 180)
        full, box = found["infection_probs_full"][0], Letterbox.of((256, 180), 64)
        np.testing.assert_allclose(full, box.invert_map(found["infection_probs"][0]), atol=1e-5)
        pixels = image if scale == 1 else to_picture(deep).pixels
        assert np.abs(found["square"][0].astype(int) - box.apply(pixels)).max() <= 1
        assert found["lung_map"].min() >= 0 and found["lung_map"].max() <= 1 + 1e-6
        assert not found["lung_map"][found["mask_probs"] <= 0.5].any()
        assert found["class_probs"].sum() == pytest.approx(1, abs=1e-6)
        assert found["class_probs"].argmax() == found["label"][0]


def test_a_deep_image_is_not_taken_for_a_deeper_one_in_openvinos_own_precision(exported: Path) -> None:
    """Where a CPU has bfloat16, OpenVINO computes in it unless told not to: 4095 is 4096 there, and of 14 bit."""
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(exported), "CPU")
    image = draw_phantom(1, 1, 64).image
    for bits in (8, 10, 12, 14):
        deep = np.rint(image / image.max() * (2**bits - 1)).astype(np.uint16)
        square = compiled(deep[None])[compiled.output("square")]
        assert np.abs(square[0].astype(int) - np.rint(image / image.max() * 255)).max() <= 2, bits


def test_the_file_says_what_it_is(exported: Path, session: Any) -> None:
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == ["COVID-19", "Non-COVID", "Normal"]
    assert known["licence"] == "CC0" and known["version"]
    assert json.loads(known["config"])["data"]["image_size"] == 64
    assert "root" not in json.loads(known["config"])["data"]
    assert json.loads(known["lungseg"])["training_data"] == known["training_data"] == "not stated"
    assert b".py" not in exported.read_bytes(), "where it was made is nobody's business"
    assert session.get_inputs()[0].shape == ["batch", "height", "width"]


def test_threads_may_share_it(exported: Path) -> None:
    backend = load_onnx(exported, threads=1)
    assert backend.concurrent and not load_onnx(exported).concurrent
    alone = [backend(SQUARES[i : i + 1]).mask_probs for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: backend(SQUARES[i % 3][None]).mask_probs, range(12)))
    assert all(np.array_equal(found, alone[i % 3]) for i, found in enumerate(together))


def test_what_is_no_model_is_said_in_one_line(exported: Path, tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.onnx", tmp_path / "other.onnx"
    broken.write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.onnx: not a readable ONNX file .*; is it whole\?"):
        load_onnx(broken)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, other)
    with pytest.raises(ValueError, match=r"other\.onnx: ONNX, but not of lungseg"):
        load_onnx(other)
    with pytest.raises(ValueError, match=r"device: 'tpu' is not one that onnxruntime has here; choose auto, cpu"):
        load_onnx(exported, "tpu")


def test_a_missing_package_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"need onnxruntime, .*pip install onnxruntime"):
        load_onnx(exported)
