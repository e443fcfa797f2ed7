from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungseg.config import AugmentConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.data.mixup import draw_pairs, mix, partner_targets

IDS = [f"Train/{number}.png" for number in range(9)]


def _batch(**given: Any) -> dict[str, Any]:
    """Four images of one grey value each, of labels 0 to 3."""
    grey = torch.tensor([0.0, 0.2, 0.4, 1.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    labels = {"label": torch.arange(4), "has_label": torch.ones(4, dtype=torch.bool)}
    pairs = {"partner": torch.tensor([1, 2, 3, 0]), "share": torch.tensor([0.75, 1.0, 0.5, 1.0])}
    return {"image": grey, "id": IDS[:4]} | labels | pairs | given


def test_half_of_the_images_is_mixed_with_another_one() -> None:
    drawn = draw_pairs({"id": IDS}, 1.0, "mixup/0/0")
    partner, share = drawn["partner"], drawn["share"]
    assert partner.dtype == torch.int64 and share.dtype == torch.float32
    assert sorted(partner.tolist()) == list(range(9)) and not (partner == torch.arange(9)).any()
    assert int((share < 1).sum()) == 4 and float(share.min()) >= 0
    alone = draw_pairs({"id": IDS[:1]}, 1.0, "mixup/0/0")
    assert (alone["partner"].tolist(), alone["share"].tolist()) == ([0], [1.0])


def test_pairs_depend_on_key_and_ids_alone() -> None:
    def drawn(key: str, ids: list[str]) -> list[float]:
        pairs = draw_pairs({"id": ids}, 0.4, key)
        return [*pairs["partner"].tolist(), *pairs["share"].tolist()]

    assert drawn("mixup/0/0", IDS) == drawn("mixup/0/0", IDS)
    others = [drawn("mixup/0/1", IDS), drawn("mixup/1/0", IDS), drawn("mixup/0/0", IDS[::-1])]
    assert all(other != drawn("mixup/0/0", IDS) for other in others)


def test_shares_follow_the_beta_distribution() -> None:
    """Of mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    for alpha in (0.2, 1.0, 4.0):
        draws = [draw_pairs({"id": IDS[:2]}, alpha, f"mixup/0/{n}")["share"].min().item() for n in range(2000)]
        assert np.mean(draws) == pytest.approx(0.5, abs=0.03)
        assert np.var(draws) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_images_are_laid_over_each_other_by_their_shares() -> None:
    image = mix(_batch())["image"][:, 0, 0, 0]
    torch.testing.assert_close(image, torch.tensor([0.75 * 0.0 + 0.25 * 0.2, 0.2, 0.5 * 0.4 + 0.5 * 1.0, 1.0]))
    whole = _batch(share=torch.ones(4))
    assert torch.equal(mix(whole)["image"], whole["image"])


def test_an_image_with_a_label_is_not_mixed_with_one_without() -> None:
    mixed = mix(_batch(has_label=torch.tensor([True, False, False, False])))
    assert mixed["share"].tolist() == [1.0, 1.0, 0.5, 1.0]  # the third and the fourth have none, both
    assert torch.equal(mixed["image"][:2], _batch()["image"][:2])


def test_targets_of_partners_come_in_their_order_and_the_image_stays() -> None:
    batch = mix(_batch())
    moved = partner_targets(batch)
    assert moved["label"].tolist() == [1, 2, 3, 0] and batch["label"].tolist() == [0, 1, 2, 3]
    assert all(moved[name] is batch[name] for name in ("image", "partner", "share", "id"))


def test_the_mixup_of_a_data_module_is_off_by_default(phantoms: Path) -> None:
    data = LungDataModule(root=str(phantoms))
    assert AugmentConfig().mixup == 0
    assert data.on_before_batch_transfer({"id": IDS}, 0) == {"id": IDS}
