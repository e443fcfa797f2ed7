"""Several runs made one run folder that every command takes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lungseg.command import run_command
from lungseg.config import LossConfig
from lungseg.config.loading import load_config
from lungseg.data.datamodule import LungDataModule
from lungseg.ensemble import _parser, main
from lungseg.errors import UserError
from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.target import load_target
from lungseg.exporting.export_model import export
from lungseg.inference.predictor import Predictor
from lungseg.models.checkpoint import load_network, read_checkpoint
from lungseg.models.ensemble import Ensemble
from lungseg.reporting.pages import render
from lungseg.runs.run import Run
from lungseg.serving.cases import Reader
from lungseg.training.distillation import load_teacher
from lungseg.training.ensembling import write_ensemble, write_soup
from lungseg.training.fine_tuning import load_other, start_from

FEW = Options(faithfulness=2, bootstraps=20, shortcuts=6, robustness=3)


@pytest.fixture
def runs(untrained: Path, tmp_path: Path) -> list[Path]:
    """Three runs whose networks have other weights."""
    folders = []
    for seed in range(3):
        folder = Path(shutil.copytree(untrained, tmp_path / f"run{seed}"))
        path, generator = folder / "checkpoints" / "best.ckpt", torch.Generator().manual_seed(seed)
        content = torch.load(path, weights_only=True)
        for value in content["state_dict"].values():
            if value.is_floating_point() and value.ndim > 1:
                value.add_(0.2 * value.std() * torch.randn(value.shape, generator=generator))
        torch.save(content, path)
        (folder / "environment.json").write_text(json.dumps({"data_fingerprint": "same"}))
        folders.append(folder)
    return folders


def _set(run: Path, section: str, **values: object) -> None:
    plain = yaml.safe_load((run / "config.yaml").read_text())
    plain[section] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(plain))


def test_the_command_writes_a_run_whose_network_is_the_mean(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output = runs[0].parent / "made"
    assert run_command(main, _parser(), [*map(str, runs), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "ensemble of 3 runs" in out and f"evaluate --checkpoint {output}" in out
    network, classes = load_network(Run.open(output).model)
    images = torch.rand(2, 1, 64, 64)
    members = [load_network(Run.open(run).model)[0](images).class_logits for run in runs]
    assert isinstance(network, Ensemble) and len(classes) == 3
    torch.testing.assert_close(network(images).class_logits, torch.stack(members).mean(0))
    config, environment = load_config(output / "config.yaml", []), Run(output).environment()
    assert config.run.name == "made" and environment["data_fingerprint"] == "same"
    assert [each["name"] for each in environment["made_of"]] == ["run0", "run1", "run2"]
    assert run_command(main, _parser(), [*map(str, runs), "--output", str(output)]) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err


def test_an_ensemble_is_evaluated_calibrated_and_predicts_with_its_disagreement(
    runs: list[Path], phantoms: Path
) -> None:
    for run in runs:
        (run / "environment.json").unlink()
    run = write_ensemble(runs, runs[0].parent / "made")
    target = load_target(run.folder, [], "val")
    results = evaluate(target, FEW, target.output)
    assert run.calibration_file.is_file() and results.class_maps["cam"].faithfulness is not None
    assert results.setup.network["ensemble"] == "3 members, of which this is the first"
    with (target.output / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["disagreement_classes"]) >= 0 and 0 <= float(row["disagreement_lungs"]) <= 1 for row in rows)
    predictor = Predictor.load(run.folder, "cpu")
    image = next(phantoms.rglob("Lung*/Val/*/images/*.png"))
    predicted = predictor(image)
    (row,) = [row for row in rows if image.as_posix().endswith(row["id"])]
    assert predicted.disagreement is not None and predicted.class_set is not None
    assert predicted.disagreement.classes == pytest.approx(float(row["disagreement_classes"]), abs=1e-4)
    assert predicted.row()["disagreement_lungs"] == pytest.approx(float(row["disagreement_lungs"]), abs=1e-4)
    reader = Reader(predictor)
    shown = reader.predict(reader.read(image, "x"))
    assert reader.methods == ("cam",) and shown.disagreement == pytest.approx(predicted.disagreement, abs=1e-5)
    assert f"disagree by\n{predicted.disagreement.classes:.3f} nats on the class" in render(
        "app_facts.html.jinja", found=shown, of_class="x"
    )
    single = Predictor.load(runs[0], "cpu")(image)
    assert single.disagreement is None and single.row()["disagreement_classes"] is None


def test_an_ensemble_of_folds_is_measured_on_no_val_that_a_member_has_learned_from(runs: list[Path]) -> None:
    (runs[1] / "environment.json").write_text(json.dumps({"data_fingerprint": "another fold"}))
    run = write_ensemble(runs, runs[0].parent / "made")
    with pytest.raises(UserError, match=r"data.split: must be 'test': members of this ensemble have learned from"):
        load_target(run.folder, [], "val")
    target = load_target(run.folder, [], "test")
    results = evaluate(target, Options(faithfulness=0, bootstraps=20, shortcuts=0, robustness=0), target.output)
    assert not run.calibration_file.exists() and results.calibration is not None
    assert results.calibration.temperature is None and results.operating_points is None
    assert any("nothing was chosen on Val" in caveat for caveat in results.caveats)
    list(export(run.folder, run.folder / "model.safetensors"))
    for path in (run.folder, run.folder / "model.safetensors"):
        with pytest.raises(UserError, match=r"loss.teacher: .* is an ensemble of several divisions of the data"):
            load_other("loss.teacher", path, target.data)


def test_a_file_of_other_data_says_that_it_may_have_seen_val(
    runs: list[Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    list(export(runs[0], tmp_path / "model.safetensors"))
    config = Run(runs[0]).config()
    data = LungDataModule(config.data, config.augment, 0)
    data.find_samples()
    load_other("run.init", tmp_path / "model.safetensors", data)
    assert "it may have learned from images of Val and Test" in caplog.text


def test_an_ensemble_is_no_start_of_a_run(runs: list[Path]) -> None:
    for run in runs:
        (run / "environment.json").unlink()
    made = write_ensemble(runs, runs[0].parent / "made")
    config = made.config()
    data = LungDataModule(config.data, config.augment, 0)
    data.find_samples()
    with pytest.raises(UserError, match=r"run.init: .* is an ensemble; start from one of its members"):
        start_from(load_network(Run.open(runs[0]).model)[0], data, made.folder)


def test_an_ensemble_teaches(runs: list[Path], phantoms: Path) -> None:
    for run in runs:
        (run / "environment.json").unlink()
    made = write_ensemble(runs, runs[0].parent / "made")
    config = made.config()
    data = LungDataModule(config.data, config.augment, 0)
    data.find_samples()
    teacher = load_teacher(LossConfig(teacher=str(made.folder)), config.model, data)
    assert teacher is not None
    network, images = load_network(made.model)[0], torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(teacher.term(network(images), images).values, torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_an_exported_ensemble_says_the_same(runs: list[Path], phantoms: Path, suffix: str) -> None:
    pytest.importorskip("onnxscript")
    run = write_ensemble(runs[:2], runs[0].parent / "made")
    output = run.folder / f"model{suffix}"
    list(export(run.folder, output))
    image = next(phantoms.rglob("Lung*/Test/*/images/*.png"))
    ours, theirs = Predictor.load(run.folder, "cpu")(image), Predictor.load(output, "cpu")(image)
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
    assert theirs.disagreement == pytest.approx(ours.disagreement, abs=1e-4)


def test_a_soup_is_one_network_of_mean_weights_with_statistics_of_its_own(runs: list[Path]) -> None:
    for run in runs:
        _set(run, "run", init="start.ckpt")
    made = write_soup(runs, runs[0].parent / "soup")
    state = load_network(made.model)[0].state_dict()
    states = [load_network(Run.open(run).model)[0].state_dict() for run in runs]
    name = next(name for name in state if name.endswith("project.weight"))
    torch.testing.assert_close(state[name], torch.stack([each[name] for each in states]).mean(0))
    moving = next(name for name in state if name.endswith("running_var"))
    assert not torch.allclose(state[moving], torch.stack([each[moving] for each in states]).mean(0))
    assert "members" not in read_checkpoint(made.model)["lungseg"]
    target = load_target(made.folder, [], "val")
    assert not target.network.training


def test_weights_without_a_common_start_are_not_averaged(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _set(runs[0], "run", init="start.ckpt")
    words = [*map(str, runs), "--soup", "--output", str(runs[0].parent / "soup")]
    assert run_command(main, _parser(), words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: RUN: weights can be averaged of runs that share their start") and err.count("\n") == 1
    assert "run0: start.ckpt, run1: none, run2: none" in err and not (runs[0].parent / "soup").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run0"], "RUN: must be two runs or more, got 1"),
        (["run0", "run1", "data.root=x"], "data.root=x: belongs to --soup"),
        (["run0", "run9"], "no model at 'run9'"),
        (["run0", "run1", "--soup", "optim.lr=3"], "optim.lr=3: must be a word for 'data'"),
    ],
)
def test_a_mistake_is_one_line(
    runs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(runs[0].parent)
    assert run_command(main, _parser(), [*words, "--output", "made"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1 and not Path("made").exists()


def test_runs_that_see_images_otherwise_are_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _set(runs[1], "data", image_size=96)
    assert run_command(main, _parser(), [*map(str, runs), "--output", str(runs[0].parent / "made")]) == 2
    assert "data.image_size: must be the same in all runs, got [64, 96, 64]" in capsys.readouterr().err
