"""A network learns from a teacher: the term, what the teacher leaves no trace in, and which teachers are refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import default_collate

from lungseg import fit
from lungseg.command import run_command
from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.data.batch import unpack
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.data.mixup import mix
from lungseg.errors import UserError
from lungseg.models.losses import distillation_term
from lungseg.models.network import LungNetwork, LungOutput
from lungseg.training.distillation import Teacher, load_teacher
from lungseg.training.module import LungModule


def _output(masks: Tensor, classes: Tensor) -> LungOutput:
    return LungOutput(masks, classes, classes[..., None, None], classes[..., None, None])


def _of(masks: Sequence[float], classes: Sequence[float]) -> LungOutput:
    """Outputs of one image of one pixel, with these probabilities in odds."""
    return _output(torch.tensor(masks).log().view(1, -1, 1, 1), torch.tensor(classes).log().view(1, -1))


def _binary(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_the_term_by_hand() -> None:
    """Odds of 3 are a probability of 3/4; classes of weights 1, 2, 1 have probabilities 1/4, 1/2, 1/4."""
    teacher, student = _of([3.0, 1.0], [1.0, 2.0, 1.0]), _of([1.0, 4.0], [2.0, 1.0, 1.0])
    classes = 0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)
    masks = _binary(0.75, 0.5) + _binary(0.5, 0.8)
    term = distillation_term(student, teacher, multi_label=False)
    assert term.values.tolist() == pytest.approx([classes + masks]) and term.weights.tolist() == [1.0]
    several = (_binary(0.5, 2 / 3) + _binary(2 / 3, 0.5) + 0) / 3
    term = distillation_term(student, teacher, multi_label=True)
    assert term.values.tolist() == pytest.approx([several + masks])


def test_only_what_both_have_is_compared_and_pixels_are_averaged() -> None:
    lung = torch.tensor([3.0, 1.0, 1.0, 1.0]).log().view(1, 1, 2, 2)
    teacher = _output(lung, torch.zeros(1, 0))
    student = _output(torch.zeros(1, 2, 2, 2), torch.randn(1, 3))
    expected = _binary(0.75, 0.5) / 4
    assert distillation_term(student, teacher, multi_label=False).values.tolist() == pytest.approx([expected])
    blind = _output(torch.zeros(1, 0, 2, 2), torch.zeros(1, 3))
    assert distillation_term(blind, student, multi_label=False).values[0] > 0
    assert distillation_term(blind, teacher, multi_label=False).values.tolist() == [0.0]


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("several", [False, True])
def test_it_is_zero_where_student_and_teacher_agree_and_finite_where_they_do_not(scale: float, several: bool) -> None:
    torch.manual_seed(0)
    own = _output(scale * torch.randn(4, 2, 8, 8), scale * torch.randn(4, 3))
    assert distillation_term(own, own, several).values.tolist() == [0.0] * 4
    other = _output(-own.mask_logits, -own.class_logits)
    values = distillation_term(own, other, several).values
    assert values.isfinite().all() and (values > 0).all()


def _module(model: ModelConfig, loss: LossConfig | None = None, optim: OptimConfig | None = None) -> LungModule:
    torch.manual_seed(1)
    module = LungModule(model, loss or LossConfig(), optim or OptimConfig(), list(CLASSES))
    for name in ("log", "log_dict"):
        setattr(module, name, lambda *_, **__: None)
    module.trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    return module


def _decided(model: ModelConfig) -> LungNetwork:
    """A network with opinions that no image changes much, which an untrained one has not."""
    torch.manual_seed(2)
    network = LungNetwork(model, 3)
    assert network.classifier is not None
    with torch.no_grad():
        network.segmenter.segmentation_head[0].bias.fill_(-2.0)
        network.classifier.bias.copy_(torch.tensor([2.0, 0.0, -2.0]))
    return network


def _data(root: Path, **keys: Any) -> LungDataModule:
    data = LungDataModule(DataConfig(root=str(root), image_size=64, batch_size=4, workers=0, **keys), AugmentConfig())
    data.find_samples()
    return data


def _batch(phantoms: Path) -> dict[str, Any]:
    data = _data(phantoms)
    return unpack(default_collate([data.dataset("train")[0, index] for index in (0, 4, 8, 11)]))


def _unlabelled(batch: dict[str, Any]) -> dict[str, Any]:
    unknown = {name: torch.zeros_like(batch[name]) for name in ("has_lung", "has_infection", "has_label")}
    return batch | unknown | {"label": torch.full_like(batch["label"], -1)}


def test_images_without_label_or_mask_are_learned_from_and_the_teacher_stays_as_it_is(
    tiny_model: ModelConfig, phantoms: Path
) -> None:
    network, module = _decided(tiny_model), _module(tiny_model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = _unlabelled(_batch(phantoms))
    module.training_step(batch, 0).backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters()), "there is nothing to learn from"
    module.teacher = Teacher(network)
    module.train().training_step(batch, 0).backward()
    for name, parameter in module.network.named_parameters():
        if name.startswith(("classifier.", "segmenter.segmentation_head.")):
            assert parameter.grad is not None and parameter.grad.any(), name
    assert all(p.grad is None and not p.requires_grad for p in network.parameters()) and not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_teacher_is_no_part_of_the_module_and_moves_with_it_all_the_same(tiny_model: ModelConfig) -> None:
    network, module = _decided(tiny_model), _module(tiny_model)
    counted = [len(list(found())) for found in (module.parameters, module.buffers, module.modules)]
    module.teacher = Teacher(network)
    assert counted == [len(list(found())) for found in (module.parameters, module.buffers, module.modules)]
    module.to("meta").on_fit_start()
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}


def test_the_loss_with_a_teacher_by_hand_on_mixed_images(tiny_model: ModelConfig, phantoms: Path) -> None:
    network, module = _decided(tiny_model), _module(tiny_model, LossConfig(teacher_weight=0.25)).eval()
    logged: dict[str, Tensor] = {}
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    pairs = {"partner": torch.tensor([1, 2, 3, 0]), "share": torch.tensor([0.25, 1.0, 0.5, 1.0])}
    batch = mix(_batch(phantoms) | pairs)
    plain = module.training_step(batch, 0).detach()
    assert "train/distillation_loss" not in logged
    module.teacher = Teacher(network)
    loss = module.training_step(batch, 0).detach()
    with torch.no_grad():
        student, teacher = module.network(batch["image"]), network(batch["image"])
    p = teacher.class_logits.softmax(1)
    classes = F.cross_entropy(student.class_logits, p) - F.cross_entropy(teacher.class_logits, p)
    p = teacher.mask_logits.sigmoid()
    masks = F.binary_cross_entropy(student.mask_logits.sigmoid(), p) - F.binary_cross_entropy(p, p)
    torch.testing.assert_close(logged["train/distillation_loss"], classes + masks)
    torch.testing.assert_close(loss, plain + 0.25 * logged["train/distillation_loss"])
    assert set(module.terms(student, batch)) == {"dice_loss", "bce_loss", "cross_entropy"}, "all that is validated"


def _train(module: LungModule, data: LungDataModule, epochs: int) -> None:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", use_distributed_sampler=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, datamodule=data)


def test_with_a_teacher_a_network_comes_closer_to_it_than_without(tiny_model: ModelConfig, phantoms: Path) -> None:
    loss, optim = LossConfig(teacher_weight=10), OptimConfig(lr=0.01, warmup_epochs=0)
    teacher, batch = Teacher(_decided(tiny_model)), _batch(phantoms)

    def distance(taught: bool, epochs: int) -> float:
        torch.manual_seed(1)
        module = LungModule(tiny_model, loss, optim, list(CLASSES))
        module.teacher = teacher if taught else None
        if epochs:
            _train(module, _data(phantoms), epochs)
        with torch.no_grad():
            return float(teacher.term(module.eval().network(batch["image"]), batch["image"]).mean())

    before, without, taught = distance(False, 0), distance(False, 10), distance(True, 10)
    assert taught < before / 3 and taught < without / 3, (before, without, taught)


def test_a_teacher_that_nobody_has_loaded_is_not_done_without_in_silence(
    tiny_model: ModelConfig, phantoms: Path
) -> None:
    module = LungModule(tiny_model, LossConfig(teacher="runs/big"), OptimConfig(), list(CLASSES))
    with pytest.raises(UserError, match=r"loss.teacher: is not loaded; set module.teacher = load_teacher\("):
        _train(module, _data(phantoms), epochs=1)
    assert module.plain["loss"]["teacher"] is None, "a checkpoint names no path"


# What is refused, and what is loaded.


def _load(source: Path | str, model: ModelConfig, data: LungDataModule) -> Teacher | None:
    return load_teacher(LossConfig(teacher=str(source)), model, data)


def test_a_teacher_of_another_architecture_is_loaded_and_draws_nothing(
    untrained_infection: Path, tiny_model: ModelConfig, phantoms: Path
) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    teacher = _load(untrained_infection, tiny_model, _data(phantoms))
    assert teacher is not None and teacher.has_lung and torch.equal(torch.get_rng_state(), state)
    assert load_teacher(LossConfig(teacher="gone", teacher_weight=0), tiny_model, _data(phantoms)) is None


def test_teachers_that_do_not_fit_are_refused(untrained: Path, tiny_model: ModelConfig, phantoms: Path) -> None:
    data = _data(phantoms)
    data.config = dataclasses.replace(data.config, image_size=128)
    with pytest.raises(UserError, match=r"^loss.teacher: \S+ sees 64 px, data.image_size is 128$"):
        _load(untrained, tiny_model, data)
    turned = list(reversed(CLASSES))
    with pytest.raises(UserError, match=rf"has the classes \['{CLASSES[0]}'.*this run \['{turned[0]}'"):
        _load(untrained, tiny_model, _data(phantoms, classes=turned))
    with pytest.raises(UserError, match=r"was trained with data.multi_label=false, here it is true"):
        _load(untrained, tiny_model, _data(phantoms, multi_label=True))
    with pytest.raises(FileNotFoundError, match="no model at"):
        _load(untrained / "gone", tiny_model, data)


def test_nothing_in_common_is_refused_and_anything_is_enough(
    own_run: Path, tiny_model: ModelConfig, phantoms: Path
) -> None:
    masks = LungModule(tiny_model, LossConfig(), OptimConfig(), [])
    content: dict[str, Any] = {"state_dict": masks.state_dict(), "epoch": 0}
    masks.on_save_checkpoint(content)
    torch.save(content, own_run / "checkpoints" / "best.ckpt")
    assert _load(own_run, tiny_model, _data(phantoms)) is not None
    alone = dataclasses.replace(tiny_model, lung=False)
    with pytest.raises(UserError, match="predicts masks alone, this run classes alone: there is nothing to learn from"):
        _load(own_run, alone, _data(phantoms))


def test_images_in_other_proportions_are_warned_of(
    own_run: Path, tiny_model: ModelConfig, phantoms: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = LungDataModule().config.keep_aspect
    _load(own_run, tiny_model, _data(phantoms, keep_aspect=not kept))
    assert [record.getMessage() for record in caplog.records] == [
        f"loss.teacher: {own_run} was trained with data.keep_aspect={str(kept).lower()} and sees images otherwise here"
    ]


CONFIG = """
data: {image_size: 64, batch_size: 4, workers: 0}
model: {encoder: tu-test_efficientnet, encoder_depth: 4, decoder_channels: [16, 16, 8, 8]}
trainer: {max_epochs: 1, accelerator: cpu}
overlays: {samples: 3}
wandb: {mode: disabled}
run: {report: false, name: student}
"""


def _fit(folder: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the command in this process: exit code and standard error."""
    (folder / "tiny.yaml").write_text(CONFIG)
    words = ("--config", str(folder / "tiny.yaml"), f"run.dir={folder / 'runs'}", *words)
    code = run_command(fit.main, fit._parser(), words)
    return code, capfd.readouterr().err


def test_a_run_leaves_no_trace_of_its_teacher_but_its_name_and_goes_on_with_that_one_alone(
    untrained: Path, phantoms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (f"data.root={phantoms}", f"loss.teacher={untrained}", "optim.average=0.9")
    code, stderr = _fit(tmp_path, capfd, *words)
    assert code == 0, stderr
    run = tmp_path / "runs" / "student"
    with (run / "metrics.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["train/loss"])
    parts = [float(row[f"train/{name}"]) for name in ("dice_loss", "bce_loss", "cross_entropy", "distillation_loss")]
    assert float(row["train/loss"]) == pytest.approx(sum(parts), rel=1e-5) and parts[-1] > 0
    with (run / "metrics.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["val/loss"])
    parts = [float(row[f"val/{name}"]) for name in ("dice_loss", "bce_loss", "cross_entropy")]
    assert float(row["val/loss"]) == pytest.approx(sum(parts), rel=1e-5) and "val/distillation_loss" not in row
    own = set(LungNetwork(_section(), 3).state_dict())
    for path in (run / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        assert {name.removeprefix("network.") for name in content["state_dict"]} == own
        assert {name.split(".")[0] for name in content.get("current_model_state", {"network.": 0})} == {"network"}
        assert content["lungseg"]["loss"]["teacher"] is None and str(untrained).encode() not in path.read_bytes()
        assert LungModule.load_from_checkpoint(path).teacher is None
    assert f"teacher: {untrained}" in (run / "config.yaml").read_text()
    words = (*words, "run.resume=true", "trainer.max_epochs=2")
    code, stderr = _fit(tmp_path, capfd, *words, "loss.teacher_weight=0.5")
    assert code == 2 and "run.resume: loss.teacher_weight is 1.0 in" in stderr
    code, stderr = _fit(tmp_path, capfd, *words)
    assert code == 0, stderr


def _section() -> ModelConfig:
    return ModelConfig(encoder="tu-test_efficientnet", encoder_depth=4, decoder_channels=[16, 16, 8, 8])


def test_lungs_are_learned_from_a_teacher_where_no_image_has_a_lung_mask(
    untrained: Path, phantoms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "bare"
    for split, samples in _data(phantoms).samples.items():
        for sample in samples:
            assert sample.label is not None
            folder = root / split.capitalize() / CLASSES[sample.label]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.image, folder)
    assert not any(sample.lung for samples in _data(root).samples.values() for sample in samples)
    code, stderr = _fit(tmp_path, capfd, f"data.root={root}", f"loss.teacher={untrained}")
    assert code == 0 and "no training image has a lung mask" not in stderr, stderr
    config = (tmp_path / "runs/student/config.yaml").read_text()
    assert "\n  lung: true\n" in config


def test_a_teacher_that_learned_from_val_or_test_is_refused_in_one_line(
    own_run: Path, phantoms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(phantoms, tmp_path / "without_test", ignore=shutil.ignore_patterns("Test"))
    keys = {"test_fraction": 0.2, "split_seed": 0}
    (own_run / "environment.json").write_text(json.dumps({"data_fingerprint": _data(root, **keys).fingerprint}))
    text = (own_run / "config.yaml").read_text()
    (own_run / "config.yaml").write_text(text.replace("test_fraction: 0.0", "test_fraction: 0.2"))
    words = (f"data.root={root}", "data.test_fraction=0.2", f"loss.teacher={own_run}")
    code, stderr = _fit(tmp_path, capfd, *words, "data.split_seed=1")
    said = stderr.splitlines()[-1]
    assert code == 2 and said.startswith(f"error: loss.teacher: {own_run} was trained on") and "Traceback" not in stderr
    assert said.endswith("data.split_seed=0 data.test_fraction=0.2 data.fold=null")
    assert not (tmp_path / "runs").exists()
    code, stderr = _fit(tmp_path, capfd, *words, "data.image_size=128")
    said = stderr.splitlines()[-1]
    assert code == 2 and said == f"error: loss.teacher: {own_run} sees 64 px, data.image_size is 128"
