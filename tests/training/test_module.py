from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import default_collate

from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.data.batch import unpack
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.data.mixup import mix
from lungseg.models.checkpoint import load_network, read_checkpoint
from lungseg.models.losses import dice_term
from lungseg.runs.run import Run
from lungseg.training.fitting import class_weights
from lungseg.training.module import LungModule, Stage
from lungseg.training.schedule import lr_factor


def _module(model: ModelConfig, loss: LossConfig | None = None, optim: OptimConfig | None = None) -> LungModule:
    seed_everything(0, verbose=False)
    return LungModule(model, loss or LossConfig(), optim or OptimConfig(), list(CLASSES), [1.0] * 3)


def _trainer(epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )


def _data(phantoms: Path) -> LungDataModule:
    return LungDataModule(DataConfig(root=str(phantoms), image_size=64, batch_size=4, workers=0), AugmentConfig(), 0)


def test_every_term_and_score_is_logged_by_name(tiny_model: ModelConfig, phantoms: Path) -> None:
    trainer, module = _trainer(), _module(tiny_model)
    trainer.fit(module, datamodule=_data(phantoms))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = [logged[f"train/{name}"] for name in ("dice_loss", "bce_loss", "cross_entropy")]
    assert logged["train/loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert logged["val/score"] == pytest.approx((logged["val/dice"] + logged["val/balanced_accuracy"]) / 2)
    for name in (
        "dice",
        "dice_global",
        "iou",
        "pixel_accuracy",
        "accuracy",
        "f1_COVID-19",
        "auroc",
        "specificity_Normal",
    ):
        assert f"val/{name}" in logged


def test_the_evidence_penalty_is_logged_and_rises_from_zero(tiny_model: ModelConfig, phantoms: Path) -> None:
    trainer = _trainer(epochs=2)
    module = _module(tiny_model, LossConfig(evidence_weight=2.0, evidence_warmup_epochs=1.0))
    trainer.fit(module, datamodule=_data(phantoms))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0 < logged["train/evidence_loss"] < 1
    parts = [logged[f"val/{name}"] for name in ("dice_loss", "bce_loss", "cross_entropy")]
    assert logged["val/loss"] == pytest.approx(sum(parts) + 2.0 * logged["val/evidence_loss"], rel=1e-4)
    assert {f"val/evidence_in_lungs_{name}" for name in CLASSES} <= logged.keys()
    ramp = _module(tiny_model, LossConfig(evidence_weight=2.0, evidence_warmup_epochs=2.0))
    ramp.steps_per_epoch, seen = 3.0, []
    for step in (0, 3, 6, 9):
        ramp.trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
        seen.append(ramp._map_ramp())
    assert seen == [0.0, 0.5, 1.0, 1.0]


def test_evidence_is_drawn_to_the_infection_and_logged_with_its_hits(tiny_model: ModelConfig, phantoms: Path) -> None:
    trainer, loss = _trainer(epochs=1), LossConfig(localization_weight=2.0, evidence_warmup_epochs=0)
    trainer.fit(_module(tiny_model, loss), datamodule=_data(phantoms))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0 < logged["train/localization_loss"] < 2
    parts = [logged[f"val/{name}"] for name in ("dice_loss", "bce_loss", "cross_entropy")]
    assert logged["val/loss"] == pytest.approx(sum(parts) + 2.0 * logged["val/localization_loss"], rel=1e-4)
    assert logged["val/hit"] in (0, 0.25, 0.5, 0.75, 1) and 0 <= logged["val/evidence_on_infection"] <= 1


def test_loss_weights_and_switched_off_terms(tiny_model: ModelConfig, phantoms: Path) -> None:
    trainer, module = _trainer(), _module(tiny_model, LossConfig(dice=0, bce=0.5, cross_entropy=2))
    trainer.fit(module, datamodule=_data(phantoms))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert "train/dice_loss" not in logged
    expected = 0.5 * logged["train/bce_loss"] + 2 * logged["train/cross_entropy"]
    assert logged["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_infection_is_learned_and_scored_where_its_mask_is_known(tiny_model: ModelConfig, phantoms: Path) -> None:
    trainer, module = _trainer(), _module(dataclasses.replace(tiny_model, infection=True))
    trainer.fit(module, datamodule=_data(phantoms))
    assert {"train/infection_dice_loss", "val/infection_dice", "val/infection_empty_truth"} <= set(
        trainer.callback_metrics
    )
    assert float(trainer.callback_metrics["val/infection_empty_truth"]) == 2  # the Normal images


def test_frozen_encoder_epochs_leave_its_weights_alone(tiny_model: ModelConfig, phantoms: Path) -> None:
    def moved(frozen: int, epochs: int) -> tuple[bool, bool]:
        module = _module(tiny_model, optim=OptimConfig(frozen_encoder_epochs=frozen))
        network = module.network
        before = {name: value.clone() for name, value in network.named_parameters()}
        _trainer(epochs).fit(module, datamodule=_data(phantoms))
        changed = {name: not torch.equal(value, before[name]) for name, value in network.named_parameters()}
        spared = not any(value.requires_grad for value in network.segmenter.encoder.parameters())
        assert spared == (frozen >= epochs), "the backward pass ends where nothing below it learns"
        encoder = [change for name, change in changed.items() if ".encoder." in name]
        rest = [change for name, change in changed.items() if ".encoder." not in name]
        return any(encoder), all(rest)

    assert moved(frozen=1, epochs=1) == (False, True)
    assert moved(frozen=1, epochs=2)[0]


def test_learning_rate_warms_up_then_falls_along_a_cosine_to_zero() -> None:
    factors = [lr_factor(step, 100, 9) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0
    assert factors[9 + 91 // 2] == pytest.approx(0.5, abs=0.02) and factors[100] == pytest.approx(0, abs=1e-9)
    assert all(a <= b for a, b in pairwise(factors[:10]))
    assert all(a >= b for a, b in pairwise(factors[9:]))
    assert math.isclose(lr_factor(0, 10, 0), 1.0)


def test_learning_rate_may_end_above_zero(tiny_model: ModelConfig, phantoms: Path) -> None:
    factors = [lr_factor(step, 100, 9, 0.3) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == 1.0
    assert factors[9 + 91 // 2] == pytest.approx(0.65, abs=0.02) and min(factors[9:]) == factors[100] == 0.3
    trainer, module = _trainer(), _module(tiny_model, optim=OptimConfig(lr=1e-3, warmup_epochs=0, final_lr_factor=0.25))
    trainer.fit(module, datamodule=_data(phantoms))
    assert float(trainer.callback_metrics["train/lr"]) == pytest.approx(2.5e-4)


def test_checkpoint_is_plain_and_rebuilds_the_network(tiny_model: ModelConfig, phantoms: Path, tmp_path: Path) -> None:
    trainer, module = _trainer(), _module(tiny_model)
    trainer.fit(module, datamodule=_data(phantoms))
    path = tmp_path / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(path)
    loaded, classes = load_network(Run.open(tmp_path).model)
    image = torch.rand(1, 1, 64, 64)
    for one, other in zip(module.eval().network(image)[:4], loaded(image)[:4], strict=True):
        assert torch.equal(one, other)
    assert classes == list(CLASSES) and not loaded.training


def test_what_is_not_a_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model in"):
        Run.open(tmp_path)
    (tmp_path / "text.ckpt").write_text("nothing")
    with pytest.raises(ValueError, match=r"text.ckpt: not a readable checkpoint"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt: a checkpoint, but not of lungseg"):
        read_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (LossConfig(), [1, 1, 1]),
        (LossConfig(class_costs=["Normal=.5", "COVID-19=2e0"]), [2, 1, 0.5]),
        (LossConfig(class_weights="balanced", class_costs=["Normal=0.5"]), [16 / 24, 16 / 12, 0.5 * 16 / 12]),
    ],
)
def test_costs_of_the_classes_multiply_their_weights(phantoms: Path, loss: LossConfig, wanted: list[float]) -> None:
    data = _data(phantoms)
    data.find_samples()
    train = data.samples["train"]
    data.samples["train"] = train + [sample for sample in train if sample.label == 0]  # 8, 4, 4
    assert class_weights(loss, data) == pytest.approx(wanted)
    with pytest.raises(ValueError, match=r"loss.class_costs: no class 'normal'; choose from COVID-19, Non-COVID, Norm"):
        class_weights(LossConfig(class_costs=["normal=2"]), data)


def test_a_class_of_lower_cost_moves_the_network_less(tiny_model: ModelConfig, phantoms: Path) -> None:
    """Where the cost of two classes tends to nothing, all that is learned is to say the third."""
    seed_everything(0, verbose=False)
    module = LungModule(tiny_model, LossConfig(), OptimConfig(lr=0.01), list(CLASSES), [1e-6, 1.0, 1e-6])
    trainer = _trainer(3)
    trainer.fit(module, datamodule=_data(phantoms))
    assert float(trainer.callback_metrics["val/sensitivity_Non-COVID"]) == 1
    assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(1 / 3)


def test_weights_of_the_classes_come_from_the_config_after_a_resume_too(tiny_model: ModelConfig) -> None:
    """A checkpoint that brought its own would silently overrule `loss.class_costs=...` beside `run.resume=true`."""
    assert all(name.startswith("network.") for name in _module(tiny_model).state_dict())


_ALL_TERMS = LossConfig(evidence_weight=1.0, localization_weight=0.5, evidence_warmup_epochs=0.0, label_smoothing=0.1)


def _mixed(phantoms: Path, share: list[float]) -> dict[str, Any]:
    """A batch of four images of which each is mixed with the next."""
    data = _data(phantoms)
    data.find_samples()
    items = [data.dataset("train")[0, index] for index in (0, 4, 8, 11)]
    pairs = {"partner": torch.tensor([1, 2, 3, 0]), "share": torch.tensor(share)}
    return mix(unpack(default_collate(items)) | pairs)


def test_mixed_by_a_share_of_one_nothing_changes(tiny_model: ModelConfig, phantoms: Path) -> None:
    module = _module(dataclasses.replace(tiny_model, infection=True), _ALL_TERMS).eval()
    batch = _mixed(phantoms, [1.0] * 4)
    plain = {name: value for name, value in batch.items() if name not in ("partner", "share")}
    for name in ("log", "log_dict"):
        setattr(module, name, lambda *_, **__: None)
    module.trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    torch.testing.assert_close(module.training_step(batch, 0), module.training_step(plain, 0))


def test_the_loss_of_a_mixed_batch_by_hand(tiny_model: ModelConfig, phantoms: Path) -> None:
    module = _module(tiny_model, _ALL_TERMS).eval()
    logged: dict[str, torch.Tensor] = {}
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    module.trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    share = torch.tensor([0.25, 1.0, 0.5, 1.0])
    batch = _mixed(phantoms, share.tolist())
    loss = module.training_step(batch, 0)
    output, order = module.network(batch["image"]), batch["partner"]
    soft = F.one_hot(batch["label"], 3) * share[:, None] + F.one_hot(batch["label"][order], 3) * (1 - share)[:, None]
    torch.testing.assert_close(
        logged["train/cross_entropy"], F.cross_entropy(output.class_logits, soft, label_smoothing=0.1).detach()
    )
    known = batch["has_lung"]
    own, other = (
        dice_term(output.mask_logits[:, 0], lung[:, 0], known) for lung in (batch["lung"], batch["lung"][order])
    )
    torch.testing.assert_close(
        logged["train/dice_loss"], (share * own.values + (1 - share) * other.values).mean().detach()
    )
    unmixed = module.terms(output, batch)["evidence_loss"].values[[1, 3]]
    torch.testing.assert_close(logged["train/evidence_loss"], unmixed.mean().detach())
    weights = module.weights()
    parts = [weights[name] * logged[f"train/{name}"] for name in weights if f"train/{name}" in logged]
    torch.testing.assert_close(loss.detach(), torch.stack(parts).sum())


def test_training_batches_alone_are_mixed_by_seed_and_epoch(
    tiny_model: ModelConfig, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[float]]] = []
    step = LungModule._step

    def watched(self: LungModule, batch: dict[str, Any], stage: Stage) -> torch.Tensor:
        seen.append((stage, batch["share"].tolist() if "share" in batch else []))
        return step(self, batch, stage)

    monkeypatch.setattr(LungModule, "_step", watched)

    def shares(augmentation: AugmentConfig, always_the_same: bool = False) -> list[list[float]]:
        seen.clear()
        data = LungDataModule(DataConfig(root=str(phantoms), image_size=64, batch_size=4, workers=0), augmentation, 0)
        data.always_the_same = always_the_same
        trainer = _trainer(epochs=2)
        trainer.fit(_module(tiny_model), datamodule=data)
        trainer.test(_module(tiny_model), datamodule=data, verbose=False)
        assert {stage for stage, share in seen if not share} >= {"val", "test"}
        assert all(stage == "train" for stage, share in seen if share)
        return [share for _, share in seen if share]

    first = shares(AugmentConfig(mixup=1.0))
    assert first == shares(AugmentConfig(mixup=1.0)) and len({tuple(share) for share in first}) == 6
    assert shares(AugmentConfig()) == shares(AugmentConfig(mixup=1.0), always_the_same=True) == []
