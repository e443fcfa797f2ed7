from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.config.loading import load_config
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.data.dataset import TrainSampler
from lungseg.errors import ConfigError, UserError
from lungseg.models.checkpoint import load_network
from lungseg.models.losses import contrastive_term
from lungseg.training.fitting import _check_loss
from lungseg.training.module import LungModule, Stage

NAME = "train/contrastive_loss"
WHOLE = torch.ones(4, dtype=torch.bool)


def test_the_term_of_two_images_by_hand() -> None:
    """Views of one image are the same, those of the other at a right angle: a cosine of 1 against two of 0."""
    embeddings = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 5.0]])
    term = contrastive_term(embeddings, torch.tensor([0, 0, 1, 1]), WHOLE)
    assert term.values.tolist() == pytest.approx([math.log(1 + 2 * math.exp(-10))] * 4, abs=1e-6)
    wrong = contrastive_term(embeddings, torch.tensor([0, 1, 0, 1]), WHOLE)
    assert wrong.values.tolist() == pytest.approx([math.log(2 + math.exp(10))] * 4)
    assert wrong.weights.tolist() == [1.0] * 4


def test_of_three_views_the_mean_counts() -> None:
    torch.manual_seed(0)
    embeddings, view_of = torch.randn(4, 3), torch.tensor([5, 5, 2, 5])
    term = contrastive_term(embeddings, view_of, WHOLE)
    cosines = torch.nn.functional.cosine_similarity(embeddings[:1], embeddings[1:]) / 0.1
    expected = cosines.logsumexp(0) - (cosines[0] + cosines[2]) / 2
    assert float(term.values[0]) == pytest.approx(float(expected), rel=1e-5)
    assert term.weights.tolist() == [1.0, 1.0, 0.0, 1.0] and float(term.values[2]) == 0


def test_what_is_mixed_has_no_views() -> None:
    embeddings, view_of = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    term = contrastive_term(embeddings, view_of, torch.tensor([True, False, True, True]))
    assert term.weights.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert contrastive_term(embeddings, torch.arange(4), WHOLE).mean() == 0
    # A mixed view of the same image is neither drawn near nor pushed away.
    embeddings = torch.randn(4, 3, requires_grad=True)
    term = contrastive_term(embeddings, torch.tensor([0, 0, 0, 1]), torch.tensor([True, True, False, True]))
    assert term.weights.tolist() == [1.0, 1.0, 0.0, 0.0]
    (slope,) = torch.autograd.grad(term.mean(), embeddings)
    assert not slope[2].any() and slope[3].any()


def test_views_follow_each_other_and_are_drawn_anew() -> None:
    plain, twice = TrainSampler([0] * 5, 0, False), TrainSampler([0] * 5, 0, False, views=2)
    for epoch in (0, 1):
        plain.set_epoch(epoch)
        twice.set_epoch(epoch)
        visits = list(twice)
        assert len(twice) == len(visits) == 10
        assert [index for _, index in visits[::2]] == [index for _, index in visits[1::2]] == [i for _, i in plain]
        assert [draw for draw, _ in visits] == [2 * epoch, 2 * epoch + 1] * 5  # none is ever drawn twice
    parts = [list(TrainSampler([0] * 5, 0, False, rank, 2, views=3)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 9
    assert all(len({index for _, index in part[at : at + 3]}) == 1 for part in parts for at in (0, 3, 6))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "augment.views: must be 2 or more with loss.contrastive_weight, got 1"),
        (["augment.views=9"], "augment.views: must be in 1..8, got 9"),
        (
            ["augment.views=2", "data.balanced=true"],
            "data.balanced: must be false with loss.contrastive_weight, got True",
        ),
    ],
)
def test_batches_without_views_or_without_others_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, ["loss.contrastive_weight=0.1", *words])
    assert message in str(error.value)


@pytest.mark.parametrize("views_and_size", [(2, 5), (4, 4), (2, 1)])
def test_a_training_wants_whole_images_in_a_batch(views_and_size: tuple[int, int]) -> None:
    views, size = views_and_size
    words = ["loss.contrastive_weight=0.1", f"augment.views={views}", f"data.batch_size={size}"]
    config = load_config(None, [*words, "data.classes=[a,b]"])  # which an evaluation may take
    with pytest.raises(ValueError, match=rf"data.batch_size: must be twice {views} \(augment.views\) or ano"):
        _check_loss(config)


def test_data_without_views_is_told_so(tiny_model: ModelConfig) -> None:
    module = LungModule(tiny_model, LossConfig(contrastive_weight=1), OptimConfig(), list(CLASSES))
    with pytest.raises(UserError, match=r"give the data AugmentConfig\(views=2\)"):
        module.contrast(module.network(torch.rand(2, 1, 64, 64)), {"label": torch.zeros(2)})


def test_training_draws_views_together_and_the_network_is_none_the_larger(
    tiny_model: ModelConfig, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The term falls where little else is learned, Val knows nothing of it, and checkpoints load."""
    seen: list[tuple[Stage, list[int]]] = []
    step, terms = LungModule._step, []

    def watched(self: LungModule, batch: dict[str, Any], stage: Stage) -> torch.Tensor:
        seen.append((stage, batch["view_of"].tolist() if "view_of" in batch else []))
        return step(self, batch, stage)

    monkeypatch.setattr(LungModule, "_step", watched)
    loss = LossConfig(dice=0, bce=0, cross_entropy=0.01, contrastive_weight=1)
    module = LungModule(tiny_model, loss, OptimConfig(lr=3e-3, warmup_epochs=0), list(CLASSES))
    monkeypatch.setattr(
        LungModule, "on_train_epoch_end", lambda self: terms.append(float(self.trainer.callback_metrics[NAME]))
    )
    data = LungDataModule(
        DataConfig(root=str(phantoms), image_size=64, batch_size=4, workers=0), AugmentConfig(views=2), 0
    )
    trainer = Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module, datamodule=data)
    assert terms[-1] < 0.7 * terms[0]
    assert all(not views for stage, views in seen if stage == "val")
    train = [views for stage, views in seen if stage == "train"]
    assert all(views[0] == views[1] != views[2] == views[3] for views in train)
    assert "val/contrastive_loss" not in trainer.callback_metrics

    trainer.save_checkpoint(tmp_path / "some.ckpt")
    network, _ = load_network(tmp_path / "some.ckpt")
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(network(image).class_logits, module.network.eval()(image).class_logits)
    assert len(list(network.parameters())) == len(list(module.network.parameters())) < len(list(module.parameters()))
    again = LungModule.load_from_checkpoint(tmp_path / "some.ckpt")
    for one, other in pairwise([dict(module.state_dict()), dict(again.state_dict())]):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
