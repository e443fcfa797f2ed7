from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from lungseg.models.losses import Term
from lungseg.models.metrics import EvidenceShares, MaskScores, StageScores, confusion_scores, score_names

CLASSES = ("COVID-19", "Non-COVID", "Normal")


def _pair(predicted: list[int], true: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(predicted).bool().view(1, 2, 2), torch.tensor(true).bool().view(1, 2, 2)


def test_mask_scores_by_hand() -> None:
    scores = MaskScores()
    scores.update(*_pair([1, 1, 0, 0], [1, 0, 0, 0]))  # overlap 1, sizes 2 and 1
    scores.update(*_pair([0, 0, 0, 1], [0, 0, 1, 1]))  # overlap 1, sizes 1 and 2
    values = {name: float(value) for name, value in scores.compute().items()}
    assert values["dice"] == pytest.approx(2 / 3)
    assert values["dice_global"] == pytest.approx(4 / 6)
    assert values["iou"] == pytest.approx(1 / 2)
    assert values["pixel_accuracy"] == pytest.approx(6 / 8)


def test_empty_masks_follow_the_rule_and_are_counted() -> None:
    scores = MaskScores()
    scores.update(*_pair([0, 0, 0, 0], [0, 0, 0, 0]))
    scores.update(*_pair([1, 0, 0, 0], [0, 0, 0, 0]))
    scores.update(*_pair([0, 0, 0, 0], [1, 1, 0, 0]))
    values = {name: float(value) for name, value in scores.compute().items()}
    assert values["dice"] == pytest.approx(1 / 3)
    assert (values["empty_truth"], values["empty_prediction"]) == (2, 2)


def test_infection_is_scored_apart_where_there_is_some() -> None:
    scores, known = StageScores(CLASSES, infection=True), torch.tensor([True])
    scores.add_masks(*_pair([1, 1, 0, 0], [1, 0, 0, 0]), known, infection=True)
    scores.add_masks(*_pair([0, 0, 0, 0], [0, 0, 0, 0]), known, infection=True)
    scores.add_masks(*_pair([0, 0, 0, 0], [1, 0, 0, 0]), ~known, infection=True)
    values = scores.compute()
    assert values["infection_dice_infected"] == pytest.approx(2 / 3)
    assert values["infection_iou_infected"] == pytest.approx(1 / 2)
    assert values["infection_dice"] == pytest.approx((2 / 3 + 1) / 2)
    healthy = StageScores(CLASSES, infection=True)
    healthy.add_masks(*_pair([0, 0, 0, 0], [0, 0, 0, 0]), known, infection=True)
    assert healthy.compute()["infection_dice"] == 1 and "infection_dice_infected" not in healthy.compute()


def test_image_by_image_equals_all_at_once() -> None:
    torch.manual_seed(0)
    predicted, true = torch.rand(7, 8, 8) > 0.5, torch.rand(7, 8, 8) > 0.5
    whole, parts = MaskScores(), MaskScores()
    whole.update(predicted, true)
    for i in range(7):
        parts.update(predicted[i : i + 1], true[i : i + 1])
    for name, value in whole.compute().items():
        assert float(value) == pytest.approx(float(parts.compute()[name]), abs=1e-12)


def test_class_scores_equal_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (200,), generator=generator)
    probs = (torch.randn(200, 3, generator=generator) + 2 * torch.nn.functional.one_hot(label, 3)).softmax(1)
    scores = StageScores(CLASSES, infection=False)
    for part in range(0, 200, 32):
        chosen = slice(part, part + 32)
        scores.add_classes(probs[chosen], label[chosen], torch.ones(len(label[chosen]), dtype=torch.bool))
    values, guess = scores.compute(), probs.argmax(1)
    assert values["accuracy"] == pytest.approx(float((guess == label).float().mean()))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, guess))
    assert values["f1"] == pytest.approx(f1_score(label, guess, average="macro"))
    assert values["auroc"] == pytest.approx(roc_auc_score(label, probs, multi_class="ovr"), abs=1e-5)
    assert values["f1_Normal"] == pytest.approx(f1_score(label == 2, guess == 2))


def test_sensitivity_and_specificity_by_hand() -> None:
    matrix = torch.tensor([[8, 1, 1], [0, 5, 0], [2, 0, 3]])
    values = {name: float(value) for name, value in confusion_scores(matrix, CLASSES).items()}
    assert values["accuracy"] == pytest.approx(16 / 20)
    assert values["sensitivity_COVID-19"] == pytest.approx(8 / 10)
    assert values["specificity_COVID-19"] == pytest.approx(8 / 10)
    assert values["balanced_accuracy"] == pytest.approx((0.8 + 1.0 + 0.6) / 3)


def test_a_class_without_images_is_left_out_not_scored_zero() -> None:
    scores = StageScores(CLASSES, infection=False)
    scores.add_classes(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool))
    values = scores.compute()
    assert values["balanced_accuracy"] == values["auroc"] == 1
    assert not any(name.endswith("Normal") and name.startswith(("sens", "auroc", "f1")) for name in values)


def test_unknown_labels_and_masks_do_not_enter() -> None:
    scores = StageScores(CLASSES, infection=False)
    nothing = torch.zeros(2, dtype=torch.bool)
    scores.add_classes(torch.rand(2, 3), torch.tensor([-1, -1]), nothing)
    scores.add_masks(torch.zeros(2, 4, 4).bool(), torch.zeros(2, 4, 4).bool(), nothing)
    assert scores.compute() == {}


def test_loss_terms_are_weighted_by_their_own_images() -> None:
    scores = StageScores(CLASSES, infection=False)
    scores.add_terms({"dice_loss": Term(torch.tensor([1.0, 9.0]), torch.tensor([1.0, 0.0]))})
    scores.add_terms({"dice_loss": Term(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))})
    assert scores.compute()["dice_loss"] == pytest.approx(2.0)


def test_evidence_ignores_images_without_any() -> None:
    scores = StageScores(CLASSES, infection=False)
    scores.add_evidence(torch.tensor([0.5, math.nan, 1.0]), torch.tensor([0, 1, -1]))
    assert scores.compute()["evidence_in_lungs"] == pytest.approx(0.75)


def test_reset_forgets_everything() -> None:
    scores = StageScores(CLASSES, infection=True)
    scores.add_classes(torch.eye(3), torch.arange(3), torch.ones(3, dtype=torch.bool))
    scores.add_masks(torch.ones(1, 4, 4).bool(), torch.ones(1, 4, 4).bool(), torch.tensor([True]), infection=True)
    assert scores.compute()["infection_dice"] == 1
    scores.reset()
    assert scores.compute() == {}


def test_score_names_holds_every_name_that_is_logged() -> None:
    scores = StageScores(CLASSES, infection=True)
    known = torch.ones(3, dtype=torch.bool)
    scores.add_classes(torch.eye(3), torch.arange(3), known)
    for infection in (False, True):
        scores.add_masks(torch.ones(3, 4, 4).bool(), torch.ones(3, 4, 4).bool(), known, infection)
    scores.add_evidence(torch.ones(3), torch.zeros(3, dtype=torch.int64))
    logged = set(scores.compute()) | {"loss", "score"}
    assert logged <= set(score_names(CLASSES, infection=True))
    left = set(score_names(CLASSES, infection=False, lung=False))
    assert left < logged | set(score_names(CLASSES, infection=True))
    assert not any(name.startswith(("evidence_in", "evidence_un", "dice", "iou")) for name in left)


def test_a_loss_that_is_no_number_is_not_hidden() -> None:
    scores = StageScores(CLASSES, infection=False)
    scores.add_terms({"dice_loss": Term(torch.tensor([1.0, math.nan]), torch.ones(2))})
    assert math.isnan(scores.compute()["dice_loss"])


def test_evidence_is_averaged_over_all_and_over_each_class_and_the_undefined_are_counted() -> None:
    scores = EvidenceShares(("a", "b", "c"))
    scores.update(torch.tensor([0.25, 0.75, math.nan]), torch.tensor([0, 1, 1]))
    scores.update(torch.tensor([0.35, 1.0]), torch.tensor([0, -1]))
    found = {name: float(value) for name, value in scores.compute().items()}
    assert found["evidence_in_lungs"] == pytest.approx((0.25 + 0.75 + 0.35 + 1.0) / 4)
    assert found["evidence_in_lungs_a"] == pytest.approx(0.3)
    assert found["evidence_in_lungs_b"] == pytest.approx(0.75)
    assert math.isnan(found["evidence_in_lungs_c"])
    assert found["evidence_undefined"] == 1
