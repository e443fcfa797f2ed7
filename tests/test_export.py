"""`python -m lungseg.export`: files of each format, checked before they get their name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from lungseg.command import run_command
from lungseg.data.phantom.generator import draw_phantom
from lungseg.export import PRECISIONS, _parser, main
from lungseg.exporting import export_model
from lungseg.inference.onnx_backend import open_session
from lungseg.inference.predictor import load_backend

pytest.importorskip("onnx")
IMAGES = np.stack([draw_phantom(seed, seed, 64).image for seed in range(3)])


def _run(*arguments: str | Path) -> int:
    return run_command(main, _parser(), list(map(str, arguments)))


def test_choices_of_the_command_are_those_of_the_code() -> None:
    assert export_model.PRECISIONS[".onnx"] == PRECISIONS


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_onnx_files_come_with_their_loss(
    untrained_infection: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(export_model.graph, "record", id)
    monkeypatch.setattr(
        export_model.graph, "to_onnx", lambda *_: onnx.load(exported)
    )  # translated once, by the fixture
    output = tmp_path / "small.onnx"
    assert _run("--checkpoint", untrained_infection, "--output", output, "--precision", precision) == 0
    printed = capsys.readouterr().out
    assert "6 images" in printed and "largest difference from the network" in printed
    rows = re.findall(
        r"^  (\w+) +dice (\S+) \((\S+)\)  pixel_accuracy \S+ \(\S+\)  infection_dice \d\.\d+ \(\S+\)", printed, re.M
    )
    assert [row[0] for row in rows] == ["fp32", precision]
    assert float(rows[1][2]) == pytest.approx(float(rows[1][1]) - float(rows[0][1]), abs=2e-5)
    assert output.stat().st_size < 0.75 * exported.stat().st_size
    assert f'"precision": "{precision}"' in open_session(output).get_modelmeta().custom_metadata_map["precision"]
    whole, small = load_backend(exported)(IMAGES), load_backend(output)(IMAGES)
    worst = float(np.abs(whole.mask_probs - small.mask_probs).max())
    assert 0 < worst < (0.01 if precision == "fp16" else 0.3)


def test_tensors_hold_the_same_network(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, precision in (("m.safetensors", "fp32"), ("half.safetensors", "fp16")):
        assert _run("--checkpoint", untrained, "--output", tmp_path / name, "--precision", precision) == 0
    assert capsys.readouterr().out.count("written") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.safetensors", "m.safetensors"]
    expected = load_backend(untrained, "cpu")(IMAGES)
    again = load_backend(tmp_path / "m.safetensors", "cpu")(IMAGES)
    assert all(np.array_equal(one, other) for one, other in zip(again, expected, strict=True))
    half = load_backend(tmp_path / "half.safetensors", "cpu")(IMAGES)
    assert 0 < np.abs(half.mask_probs - expected.mask_probs).max() < 0.01


@pytest.mark.slow
def test_torch_export_holds_the_same_network(untrained: Path, tmp_path: Path) -> None:
    import torch

    assert _run("--checkpoint", untrained, "--output", tmp_path / "m.pt2") == 0
    extra = {"lungseg.json": ""}
    module = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    found = module(torch.from_numpy(IMAGES.astype(np.uint16)))
    assert '"classes"' in extra["lungseg.json"]
    expected = load_backend(untrained, "cpu")(IMAGES)
    np.testing.assert_allclose(found["mask_probs"].detach().numpy(), expected.mask_probs, atol=1e-5)


def test_a_file_that_fails_the_check_is_not_written(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_model, "LIMIT", 0.0)
    assert _run("--checkpoint", untrained, "--output", tmp_path / "m.safetensors") == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: the file differs from the network by .* \(limit 0e\+00\); not written\n", captured.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "m.pb"], "--output: must end in .onnx, .pt2, .safetensors, got 'm.pb'"),
        (["--output", "m.pt2", "--precision", "int8"], "--precision: .pt2 files have fp32, got 'int8'"),
        (["--output", "m.onnx", "--checkpoint", "gone"], "no model at 'gone'"),
    ],
)
def test_mistakes_take_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert _run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_an_exported_file_cannot_be_exported_again(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--checkpoint", exported, "--output", tmp_path / "again.onnx") == 2
    assert "exported already" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert _run("--checkpoint", untrained, "--output", tmp_path / "m.onnx") == 2
    assert "need onnxscript, which is not installed: pip install 'lungseg[onnx]'" in capsys.readouterr().err
