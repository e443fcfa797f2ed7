"""Two processes against one: the same scores from the same weights, the same loss curve from the same global batch."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from launching import CONFIG, TORCHRUN, Running, check_one_run, numbers, patched, rows
from torch.nn.modules.batchnorm import _BatchNorm

from lungseg import fit
from lungseg.command import run_command
from lungseg.training.fitting import Training

pytestmark = pytest.mark.timeout(600)

SAME = """
    pass

from test_two_processes import freeze_batchnorm, score_first
freeze_batchnorm()
score_first()
"""


def freeze_batchnorm() -> None:
    """Let BatchNorm use the statistics it starts with.

    Those of a batch of 2 are not those of a batch of 4, and torch can synchronise them on GPUs alone. All else that a
    batch gives is a mean over its images, so two halves give what the whole gives.
    """
    _BatchNorm.train = lambda self, mode=True: torch.nn.Module.train(self, False)  # type: ignore[method-assign]


def score_first() -> None:
    """Make a run score the fresh network on Val and Test before it trains."""
    fit = Training.fit

    def scored(training: Training) -> Path:
        trainer, module, data = training.trainer, copy.deepcopy(training.module), training.data
        (val,) = trainer.validate(module, datamodule=data, verbose=False)
        (test,) = trainer.test(module, datamodule=data, verbose=False)
        if trainer.is_global_zero:
            (training.run.folder / "fresh.json").write_text(json.dumps({**val, **test}))
        return fit(training)

    Training.fit = scored  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of one process with batches of 4: this one, which saves a start."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as planted:
        planted.chdir(folder)
        torch.set_num_threads(1)
        for patched_class, name in ((_BatchNorm, "train"), (Training, "fit")):
            planted.setattr(patched_class, name, getattr(patched_class, name))  # put back at the end
        freeze_batchnorm()
        score_first()
        words = ["--config", "tiny.yaml", "trainer.max_epochs=3", "data.batch_size=4"]
        assert run_command(fit.main, fit._parser(), words) == 0
    (folder / "runs" / "tiny" / "seen").touch()
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def two(one: Path) -> Path:
    """Run folder of two processes of torchrun with batches of 2 each, on the same images; no name, no devices."""
    return _run(one.parents[1], "data.batch_size=2", "wandb.mode=offline", launcher=TORCHRUN)


def _run(folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> Path:
    script = patched(folder, SAME)
    fit_words = (script, "--config", "tiny.yaml", "trainer.max_epochs=3", *words)
    running = Running(folder, (*launcher, *fit_words), {"PYTHONPATH": _paths()})
    assert running.wait() == 0, running.said()
    assert running.left(within_s=5) == [] and "Traceback" not in running.said()
    (found,) = (run for run in (folder / "runs").iterdir() if not (run / "seen").exists())
    (found / "seen").touch()
    (found / "said.txt").write_text(running.said())
    return found


def _paths() -> str:
    here = Path(__file__).parent
    return f"{here.parents[1]}:{here}"


def test_scores_of_seven_images_agree_to_1e_6(one: Path, two: Path) -> None:
    first, second = numbers(one / "fresh.json"), numbers(two / "fresh.json")
    assert set(first) == set(second)
    for stage in ("val", "test"):
        assert {f"{stage}/{name}" for name in ("dice", "auroc", "evidence_in_lungs", "accuracy", "loss")} <= set(first)
    for name, value in first.items():
        assert second[name] == pytest.approx(value, abs=1e-6), name


def test_one_run_folder_and_one_wandb_run_come_from_rank_zero(two: Path) -> None:
    assert sorted(run.name for run in two.parent.iterdir()) == ["tiny", "tiny-2"]
    said = (two / "said.txt").read_text()
    check_one_run(two, said, epochs=3)
    assert "2 processes x batch 2 = 4 images an optimiser step; optim.lr=0.001 is used as it is" in said


def test_the_loss_curve_is_that_of_one_process_with_the_same_global_batch(one: Path, two: Path) -> None:
    curves = [_curve(run) for run in (one, two)]
    assert len(curves[0]) == 6 and curves[0][0] != curves[0][-1]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("trainer.devices=2", "data.batch_size=1", "trainer.accumulate_grad_batches=2"),
        ("trainer.devices=4", "data.batch_size=1"),
        ("data.batch_size=2", "trainer.accumulate_grad_batches=2"),
    ],
)
def test_any_split_of_the_global_batch_gives_the_same_loss_curve(one: Path, words: tuple[str, ...]) -> None:
    assert _curve(_run(one.parents[1], *words)) == pytest.approx(_curve(one), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("loss.cross_entropy=0",), ("loss.dice=0", "loss.bce=0"), ("optim.average=0.9",)])
def test_what_changes_the_backward_pass_or_the_weights_keeps_the_curve(tmp_path: Path, words: tuple[str, ...]) -> None:
    curves = [
        _curve(_run(tmp_path, *words, *batch))
        for batch in (("data.batch_size=4",), ("data.batch_size=2", "trainer.devices=2"))
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def _curve(run: Path) -> list[float]:
    return [float(row[name]) for row in rows(run) for name in ("train/loss", "val/loss") if row["train/loss"]]
