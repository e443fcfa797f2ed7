"""What tests share: a quiet, offline, single-threaded torch, a tiny model section, and tiny phantom sets."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["WANDB_MODE"] = "disabled"

import pytest
import torch

from lungseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, PhantomConfig
from lungseg.config.loading import dump_config
from lungseg.data.covidqu import CLASSES
from lungseg.data.phantom.phantom_set import write_phantoms

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = ModelConfig(encoder="tu-test_efficientnet", encoder_depth=4, decoder_channels=[16, 16, 8, 8], dropout=0.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start processes and wait for them: at the end, a worker would have nothing beside."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


torch.set_num_threads(1)  # for fixtures of a session or module, which come before those of a test


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LUNGSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny_model() -> ModelConfig:
    """Section `model` of a network small enough for a test."""
    return TINY


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a phantom set of 12 / 6 / 6 images of 64 px, in COVID-QU-Ex's layout. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("phantoms")
    return write_phantoms(PhantomConfig(train=12, val=6, test=6, size_px=64, dir=str(folder)))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """A run folder as `fit` would leave it, of a network that has learned nothing, with maps of stride 8.

    Not to be changed by a test: what evaluates it, which leaves a calibration, takes `own_run`.
    """
    return _untrained(tmp_path_factory.mktemp("untrained"), phantoms, dataclasses.replace(TINY, map_stride=8))


@pytest.fixture(scope="session")
def untrained_infection(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """As `untrained`, of a network that predicts infection too."""
    model = dataclasses.replace(TINY, map_stride=8, infection=True)
    return _untrained(tmp_path_factory.mktemp("untrained_infection"), phantoms, model)


def _untrained(folder: Path, phantoms: Path, model: ModelConfig) -> Path:
    from lungseg.training.module import LungModule

    torch.manual_seed(0)
    module = LungModule(model, LossConfig(), OptimConfig(), list(CLASSES), [1.0] * 3)
    checkpoint = {"state_dict": module.state_dict(), "epoch": 0}
    module.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    data = DataConfig(root=str(phantoms), image_size=64, batch_size=2, workers=0)
    (folder / "config.yaml").write_text(dump_config(Config(data=data, model=model)))
    return folder


@pytest.fixture
def own_run(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `untrained` for one test."""
    return Path(shutil.copytree(untrained, tmp_path_factory.mktemp("own") / "run"))


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory, untrained: Path) -> Path:
    """A copy of `untrained` with everything measured on its Test split, in `evaluation/test`. Not to be changed."""
    from lungseg.evaluation.evaluator import Options, evaluate
    from lungseg.evaluation.target import load_target

    folder = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("evaluated") / "first"))
    target = load_target(folder, [])
    evaluate(target, Options(faithfulness=2, bootstraps=100, robustness=3), target.output)
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, untrained_infection: Path) -> Path:
    """`untrained_infection` as an ONNX file; the licence given is CC0. The workers of a test run make it once."""
    pytest.importorskip("onnxscript")
    from filelock import FileLock

    from lungseg.exporting.export_model import export

    base = tmp_path_factory.getbasetemp()
    output = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported" / "model.onnx"
    output.parent.mkdir(exist_ok=True)
    with FileLock(f"{output}.lock"):
        if not output.is_file():
            list(export(untrained_infection, output, licence="CC0"))
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's own Chromium, headless; who asks for it is skipped where it or Playwright is not there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: `pip install playwright`")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no program chromium, chromium-browser or google-chrome: install Chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
