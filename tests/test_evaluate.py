"""The command `python -m lungseg.evaluate`."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from lungseg.command import run_command
from lungseg.evaluate import _parser, main


def run(*words: str | Path) -> int:
    return run_command(main, _parser(), [str(word) for word in words])


@pytest.fixture
def checkpoint(own_run: Path) -> tuple[str, Path]:
    return "--checkpoint", own_run


QUICK = ("--faithfulness", "0", "--robustness", "0", "--shortcuts", "0", "--bootstraps", "20", "--no-report")


def test_writes_numbers_and_rows_and_prints_a_summary(
    checkpoint: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data.split=val", "--methods", "cam,layer_cam@encoder.3", "--faithfulness", "3", "--bootstraps", "50")
    assert run(*checkpoint, *words, "--robustness", "3", "--output", tmp_path) == 0
    with (tmp_path / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert len(rows) == content["what"]["images"] == 6 and content["what"]["bootstraps"] == 50
    assert list(content["class_maps"]) == ["cam", "layer_cam@encoder.3"]
    assert content["class_maps"]["cam"]["faithfulness"]["images"] == 3
    assert content["robustness"]["images"] == 3 and content["verdict"]["flag"] == "unclear"
    page = (tmp_path / "report.html").read_text()
    assert content["notes"][0][1:] in page and (tmp_path / "images" / "0005.jpg").is_file()
    printed = capsys.readouterr().out
    for words_ in ("hit, cropped", "layer_cam@encoder.3", "mostly outside the lungs", "shortcuts: UNCLEAR", "notes"):
        assert words_ in printed


def test_the_test_split_and_the_run_folder_are_the_defaults(checkpoint: tuple[str, Path]) -> None:
    assert run(*checkpoint, *QUICK) == 0
    content = json.loads((checkpoint[1] / "evaluation" / "test" / "metrics.json").read_text())
    assert content["what"]["split"] == "test" and content["class_maps"]["cam"]["faithfulness"] is None
    assert content["shortcuts"] is content["robustness"] is None
    assert not (checkpoint[1] / "evaluation" / "test" / "report.html").exists()
    assert json.loads((checkpoint[1] / "calibration.json").read_text())["split"] == "val"


def test_another_data_set_without_splits_or_labels_is_measured(
    checkpoint: tuple[str, Path], phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, image in enumerate(sorted(phantoms.rglob("Lung*/Test/*/images/*.png"))[:3]):
        for kind, part in (("images", "images"), ("masks", "lung masks")):
            (tmp_path / "hospital" / "TB" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(image.parents[1] / part / image.name, tmp_path / "hospital" / "TB" / kind / f"{number}.png")
    assert run(*checkpoint, *QUICK, f"data.root={tmp_path / 'hospital'}") == 0
    content = json.loads((checkpoint[1] / "evaluation" / "hospital-all" / "metrics.json").read_text())
    assert content["segmentation"]["dice"]["images"] == 3 and content["classification"] == {}
    assert "3 of its 3 images are of classes that the network does not know ('TB')" in capsys.readouterr().out
    named = "data.label_map=[TB=Non-COVID]"
    assert run(*checkpoint, *QUICK, f"data.root={tmp_path / 'hospital'}", named) == 0
    content = json.loads((checkpoint[1] / "evaluation" / "hospital-all" / "metrics.json").read_text())
    assert content["what"]["class_images"]["Non-COVID"] == 3 and content["classification"]


def test_the_commands_in_readme_run(
    checkpoint: tuple[str, Path], phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[1] / "lungseg" / "evaluation" / "README.md").read_text()
    commands = re.findall(r"^ *python -m lungseg\.evaluate --checkpoint \S+([^#\n]*)", readme, re.MULTILINE)
    assert commands
    other = tmp_path / "other"
    shutil.copytree(phantoms, other)
    for number, words in enumerate(commands):
        output = tmp_path / str(number)
        assert run(*checkpoint, *words.replace("OTHER", str(other)).split(), *QUICK, "--output", output) == 0
        assert (output / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.split=train",), r"data.split: must be 'val' or 'test' \(.*\), got 'train'"),
        (("data.split=all",), "data.split: 'all' holds the images the network was trained on"),
        (("model.head=conv",), "model.head=conv: only keys of 'data'"),
        (("data.batchsize=3",), "did you mean 'data.batch_size'|did you mean 'batch_size'"),
        (("--methods", "gradcam"), "unknown method 'gradcam'"),
        (("--methods", "layer_cam@encoder.9"), "encoder.9"),
        (("--faithfulness", "-1"), "--faithfulness: must be 0 or more"),
        (("--sensitivity", "2"), r"--sensitivity: must be in \(0, 1\], got 2.0"),
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
    assert f"no model in {str(tmp_path)!r}" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"no weights")
    assert run("--checkpoint", tmp_path / "x.ckpt") == 2
    assert re.fullmatch(r"error: .*x.ckpt: not a readable checkpoint \(.*\n", capsys.readouterr().err)
