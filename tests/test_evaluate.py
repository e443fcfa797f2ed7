"""The command `python -m lungseg.evaluate`."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from lungseg.command import run_command
from lungseg.evaluate import _parser, main


def run(*words: str | Path) -> int:
    return run_command(main, _parser(), [str(word) for word in words])


@pytest.fixture
def checkpoint(untrained: Path) -> tuple[str, Path]:
    return "--checkpoint", untrained


def test_writes_a_row_an_image_and_a_summary_and_prints_a_table(
    checkpoint: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data.split=val", "--methods", "cam,layer_cam@encoder.3", "--faithfulness", "3", "--output", tmp_path)
    assert run(*checkpoint, *words) == 0
    with (tmp_path / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((tmp_path / "class_maps.json").read_text())
    assert len(rows) == summary["images"] == 6
    assert list(summary["methods"]) == ["cam", "layer_cam@encoder.3"]
    assert summary["methods"]["cam"]["faithfulness"]["images"] == 3
    printed = capsys.readouterr().out
    for words_ in ("hit, cropped", "layer_cam@encoder.3", "a uniform map would have", "mostly outside the lungs"):
        assert words_ in printed


def test_the_test_split_and_the_run_folder_are_the_defaults(checkpoint: tuple[str, Path]) -> None:
    assert run(*checkpoint, "--faithfulness", "0") == 0
    summary = json.loads((checkpoint[1] / "evaluation" / "test" / "class_maps.json").read_text())
    assert summary["split"] == "test" and summary["methods"]["cam"]["faithfulness"] is None


def test_the_command_in_readme_runs(checkpoint: tuple[str, Path], tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (words,) = re.findall(r"python -m lungseg\.evaluate --checkpoint \S+ (.*)", readme)
    assert run(*checkpoint, *words.split(), "--output", tmp_path) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.split=train",), "data.split: must be 'val' or 'test', got 'train'"),
        (("model.head=conv",), "model.head=conv: only keys of 'data'"),
        (("data.batchsize=3",), "did you mean 'data.batch_size'|did you mean 'batch_size'"),
        (("--methods", "gradcam"), "unknown method 'gradcam'"),
        (("--methods", "layer_cam@encoder.9"), "encoder.9"),
        (("--faithfulness", "-1"), "--faithfulness: must be 0 or more"),
        (("data.root=/nowhere",), "/nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    checkpoint: tuple[str, Path], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert run(*checkpoint, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error)


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--checkpoint", tmp_path) == 2
    assert f"no checkpoint in {str(tmp_path)!r}" in capsys.readouterr().err
