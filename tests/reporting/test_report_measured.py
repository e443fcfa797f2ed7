"""Pages of what `evaluate` really measures, of little data and of broken networks among it."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from wellformed import checked

from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.reporting.evaluation_charts import evaluation_charts
from lungseg.reporting.evaluation_files import PictureWriter, read_content
from lungseg.reporting.report_run import evaluation_page

pytestmark = pytest.mark.filterwarnings("error")
SMALL = Options(faithfulness=2, robustness=2, bootstraps=20)


def page_of(target: EvaluationTarget, folder: Path) -> str:
    """The words of the page, and the script's data."""
    pictures = PictureWriter(folder)
    evaluate(target, SMALL, folder, pictures.add)
    pictures.close()
    content = read_content(folder)
    text = checked(evaluation_page(content, evaluation_charts(content), folder)).text
    assert not re.search(r"\bnan\b|\bNone\b(?! of)|\binf\b", text)
    assert "Research software, not a medical device" in text
    return text


@pytest.fixture
def run(untrained: Path, tmp_path: Path) -> Path:
    """A run folder of its own."""
    shutil.copytree(untrained, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "calibration.json"))
    return tmp_path / "run"


def images_of(phantoms: Path, count: int) -> list[Path]:
    tree = phantoms / "Lung Segmentation Data" / "Lung Segmentation Data" / "Test"
    return sorted(tree.rglob("images/*.png"))[:count]


def test_a_split_of_the_own_data_fills_every_part(run: Path, tmp_path: Path) -> None:
    text = page_of(load_target(run, []), tmp_path / "out")
    assert "6 of 6 images are in the page" not in text and "There are no pictures" not in text
    for words in ("Confusion matrix", "Lung dice of each image", "As the lungs are dilated", "JPEG", "Faithfulness"):
        assert words in text
    assert "not measured" in text  # infections, which this network does not predict


def test_one_image(run: Path, phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "Normal").mkdir(parents=True)
    shutil.copy(images_of(phantoms, 1)[0], tmp_path / "one" / "Normal")
    text = page_of(load_target(run, [f"data.root={tmp_path / 'one'}"]), tmp_path / "out")
    assert "Measured on 1 images" not in text and "Measured on 1 image:" in text


def test_without_labels_and_masks(run: Path, phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for image in images_of(phantoms, 3):
        shutil.copy(image, tmp_path / "bare")
    text = page_of(load_target(run, [f"data.root={tmp_path / 'bare'}"]), tmp_path / "out")
    assert "No masks were measured: no image has a true one." in text
    assert "The classes were not measured: no image has both a label and finite class outputs." in text
    assert "Reliability" not in text and "Confusion matrix" not in text


def test_a_network_that_gives_nothing_but_nan(run: Path, tmp_path: Path) -> None:
    target = load_target(run, [])
    with torch.no_grad():
        for parameter in target.network.parameters():
            parameter.fill_(torch.nan)
    text = page_of(dataclasses.replace(target, data_origin="changed"), tmp_path / "out")
    assert "6 of 6 images have mask outputs that are not finite" in text
    assert "The classes were not measured" in text
