from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.models.losses import (
    Term,
    bce_term,
    cross_entropy_term,
    dice_term,
    evidence_term,
    localization_term,
    mixed_terms,
)

BIG = 40.0


def _mask(*rows: str) -> Tensor:
    return torch.tensor([[[float(c == "#") for c in row] for row in rows]])


def test_dice_of_known_masks_by_hand() -> None:
    true = _mask("##..", "##..")
    predicted = _mask(".##.", ".##.")
    term = dice_term((predicted * 2 - 1) * BIG, true, torch.tensor([True]))
    assert math.isclose(float(term.values[0]), 1 - (2 * 2 + 1) / (4 + 4 + 1), abs_tol=1e-6)


def test_dice_of_two_empty_masks_is_no_loss() -> None:
    empty = torch.zeros(1, 4, 4)
    assert float(dice_term(empty - BIG, empty, torch.tensor([True])).values[0]) < 1e-6


def test_bce_of_zero_logits_is_log_two() -> None:
    term = bce_term(torch.zeros(2, 4, 4), torch.ones(2, 4, 4), torch.tensor([True, True]))
    torch.testing.assert_close(term.values, torch.full((2,), math.log(2)))


def test_a_missing_target_changes_neither_loss_nor_gradient() -> None:
    logits = torch.randn(3, 4, 4, requires_grad=True)
    mask, known = torch.ones(3, 4, 4), torch.tensor([True, False, True])
    for term in (dice_term(logits, mask, known), bce_term(logits, mask, known)):
        (gradient,) = torch.autograd.grad(term.mean(), logits, retain_graph=True)
        assert (gradient[1] == 0).all() and (gradient[0] != 0).any()
        torch.testing.assert_close(term.mean(), term.values[[0, 2]].mean())


def test_no_target_at_all_gives_zero_and_not_nan() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    unknown = torch.tensor([False, False])
    loss = cross_entropy_term(logits, torch.tensor([-1, -1]), unknown, torch.ones(3), 0.1).mean()
    loss.backward()
    assert float(loss.detach()) == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_cross_entropy_equals_torchs_with_weights_and_smoothing() -> None:
    logits, label, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0]), torch.tensor([0.5, 1.0, 1.5])
    term = cross_entropy_term(logits, label, torch.ones(6, dtype=torch.bool), weights, 0.0)
    torch.testing.assert_close(term.mean(), torch.nn.functional.cross_entropy(logits, label, weights))
    smooth = cross_entropy_term(logits, label, torch.ones(6, dtype=torch.bool), torch.ones(3), 0.2)
    torch.testing.assert_close(smooth.mean(), torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.2))


def test_evidence_term_is_the_share_outside_the_lungs() -> None:
    maps = torch.zeros(3, 2, 2, 2)
    maps[0, 0, 0, 0], maps[0, 1, 1, 1], maps[0, 1, 0, 1] = 3.0, 1.0, -5.0  # negative evidence does not count
    maps[1, 0, 0, 0] = 1.0
    lung = torch.zeros(3, 8, 8)
    lung[0, :4, :4] = 1  # the whole of the first map pixel
    lung[1, :2, :4] = 1  # half of it
    term = evidence_term(maps, lung, stride=4)
    torch.testing.assert_close(term.values[:2], torch.tensor([0.25, 0.5]))
    assert term.weights.tolist() == [1, 1, 0]  # no lung, no evidence: left out


def test_evidence_term_counts_what_lies_beyond_the_image_as_outside() -> None:
    maps = torch.ones(1, 1, 1, 2)
    assert float(evidence_term(maps, torch.ones(1, 4, 6), stride=4).values) == pytest.approx(0.25)


def test_evidence_term_pulls_maps_into_the_lungs() -> None:
    maps = torch.ones(1, 1, 2, 2, requires_grad=True)
    lung = torch.zeros(1, 4, 4)
    lung[:, :2, :2] = 1
    evidence_term(maps, lung, stride=2).mean().backward()
    assert maps.grad is not None
    assert float(maps.grad[0, 0, 0, 0]) < 0 < float(maps.grad[0, 0, 1, 1])


def test_localization_is_no_loss_where_the_map_is_the_infection() -> None:
    maps, infection = torch.zeros(3, 2, 2, 2), torch.zeros(3, 8, 8)
    infection[0, :4, :8] = infection[1, :2, :2] = infection[2, :4, :4] = 1  # a row of map pixels; a quarter of one; one
    maps[0, 1, 0], maps[1, 0, 0, 0], maps[2, 0] = 7.0, 0.1, torch.tensor([[3.0, 1.0], [-9.0, 0.0]])
    label = torch.tensor([1, 0, 0])
    term = localization_term(maps, label, infection, torch.tensor([True, True, True]), stride=4)
    # Of the third a quarter of the evidence lies outside, and its dice is (2 * 1 + 1) / (4 / 3 + 1 + 1).
    by_hand = [0.0, 1 - (2 * 0.25 + 1) / (1.25 + 1), 0.25 + 1 - 3 / (4 / 3 + 2)]
    torch.testing.assert_close(term.values, torch.tensor(by_hand))
    assert term.weights.tolist() == [1, 1, 1]


def test_localization_moves_the_true_class_alone_and_only_where_there_is_infection() -> None:
    maps, infection = torch.ones(3, 2, 2, 2, requires_grad=True), torch.zeros(3, 8, 8)
    infection[:2, :4, :4] = 1
    known = torch.tensor([True, False, True])  # no mask; a mask that is empty
    term = localization_term(maps, torch.tensor([1, -1, 0]), infection, known, stride=4)
    term.mean().backward()
    assert term.weights.tolist() == [1, 0, 0] and maps.grad is not None
    assert (maps.grad[1:] == 0).all() and (maps.grad[0, 0] == 0).all()
    assert float(maps.grad[0, 1, 0, 0]) < 0 and (maps.grad[0, 1].flatten()[1:] > 0).all()


def test_localization_of_a_map_without_evidence_is_the_worst_and_finite() -> None:
    maps = torch.full((1, 2, 2, 2), -1.0, requires_grad=True)
    term = localization_term(maps, torch.tensor([0]), torch.ones(1, 8, 8), torch.tensor([True]), stride=4)
    term.mean().backward()
    assert term.values.item() == pytest.approx(2 - 1 / 5) and maps.grad is not None and maps.grad.isfinite().all()


def test_mixed_cross_entropy_and_bce_are_those_of_mixed_targets() -> None:
    torch.manual_seed(0)
    logits, label, partner, share = torch.randn(3, 4), torch.tensor([2, 0, 3]), torch.tensor([1, 2, 0]), _SHARE
    known, weights = torch.ones(3, dtype=torch.bool), torch.ones(4)
    own, other = (cross_entropy_term(logits, labels, known, weights, 0.1) for labels in (label, label[partner]))
    soft = share[:, None] * F.one_hot(label, 4) + (1 - share)[:, None] * F.one_hot(label[partner], 4)
    wanted = F.cross_entropy(logits, soft, label_smoothing=0.1)
    torch.testing.assert_close(_mixed("cross_entropy", own, other).mean(), wanted)
    drawn, mask = torch.randn(3, 4, 4), (torch.rand(3, 4, 4) > 0.5).float()
    own, other = (bce_term(drawn, masks, known) for masks in (mask, mask[partner]))
    wide = share.view(3, 1, 1)
    wanted = F.binary_cross_entropy_with_logits(drawn, wide * mask + (1 - wide) * mask[partner])
    torch.testing.assert_close(_mixed("bce_loss", own, other).mean(), wanted)


_SHARE = torch.tensor([0.75, 1.0, 0.5])


def _mixed(name: str, own: Term, other: Term) -> Term:
    return mixed_terms({name: own}, {name: other}, _SHARE)[name]


def test_mixed_terms_by_hand_weigh_the_classes_and_leave_out_what_is_known_of_one_alone() -> None:
    own = Term(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 0.0]))
    other = Term(torch.tensor([8.0, 16.0, 32.0]), torch.tensor([3.0, 0.0, 1.0]))
    # The third image has no target of its own; the second is not mixed, and needs none of another.
    wanted = (0.75 * 1 * 1 + 0.25 * 3 * 8 + 3 * 2) / (0.75 * 1 + 0.25 * 3 + 3)
    assert float(_mixed("cross_entropy", own, other).mean()) == pytest.approx(wanted)


def test_terms_of_class_maps_leave_mixed_images_out() -> None:
    own = Term(torch.tensor([1.0, 2.0, 4.0]), torch.ones(3))
    for name in ("evidence_loss", "localization_loss"):
        assert float(_mixed(name, own, own).mean()) == 2.0
