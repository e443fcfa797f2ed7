from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lungseg.data.sample import Sample
from lungseg.evaluation.distributed import ProcessGroup
from lungseg.evaluation.shortcut_study import DILATIONS, PASSES, SCORES, SHOWN_VIEWS, measure_shortcuts, verdict
from lungseg.evaluation.shortcut_views import VIEWS
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.models.network import LungOutput

CLASSES = ("COVID-19", "Non-COVID", "Normal")
SIZE = 32
LUNG = torch.zeros(SIZE, SIZE, dtype=torch.bool)
LUNG[8:24, 6:14] = LUNG[8:24, 18:26] = True
LUNG_GREY, CORNER = 0.5, (0, 0)


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungseg.evaluation.shortcut_study.REPLICATES", 200)


class Toy(nn.Module):
    """Reads one grey value of an image: near 0 is class 0, near 0.5 class 1, near 1 class 2; calls dark pixels lung."""

    stride = 1

    def __init__(self, read: Callable[[Tensor], Tensor]):
        super().__init__()
        self.read, self.passes = read, 0

    def forward(self, image: Tensor) -> LungOutput:
        self.passes += len(image)
        near = -((self.read(image)[:, None] - torch.tensor([0.0, 0.5, 1.0])) ** 2) * 100
        maps = torch.zeros(len(image), 3, SIZE, SIZE)
        maps[:, :, CORNER[0], CORNER[1]] = 3.0
        maps[:, :, 10, 10] = 1.0  # a quarter of the evidence lies in the lungs
        return LungOutput(0.3 - image, near, maps, maps)

    def classify(self, image: Tensor) -> Tensor:
        return self(image).class_logits


def corner(image: Tensor) -> Tensor:
    return image[:, 0, CORNER[0], CORNER[1]]


def lungs_mean(image: Tensor) -> Tensor:
    return (image[:, 0] * LUNG).sum((1, 2)) / LUNG.sum()


def toy(read: Callable[[Tensor], Tensor], told_by: str, batch_size: int = 7, **changes: Any) -> EvaluationTarget:
    """36 images whose class is the grey of the corner, or of the lungs; everything else is grey 0.5."""
    label = torch.arange(36) % 3
    image = torch.full((36, 1, SIZE, SIZE), 0.5)
    if told_by == "corner":
        image[:, 0, CORNER[0], CORNER[1]] = label / 2
    else:
        image[:, 0] = torch.where(LUNG, label.view(-1, 1, 1) / 2, image[:, 0])
    whole = {
        "image": image,
        "lung": LUNG.float().expand(36, 1, SIZE, SIZE),
        "label": label,
        "has_lung": torch.ones(36, dtype=torch.bool),
        "has_label": torch.ones(36, dtype=torch.bool),
    } | changes

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, 36, batch_size):
            yield {name: value[start : start + batch_size] for name, value in whole.items()}

    labels = [int(one) if has else None for one, has in zip(label, whole["has_label"], strict=True)]
    samples = [Sample(f"{i:02d}.png", Path("x"), None, None, labels[i], "val") for i in range(36)]
    network = Toy(read)
    return cast(
        EvaluationTarget,
        SimpleNamespace(
            network=network, classes=CLASSES, samples=samples, split="val", batches=batches, processes=ProcessGroup()
        ),
    )


def balanced(target: EvaluationTarget) -> dict[str, float]:
    return {name: view.scores["balanced_accuracy"].value for name, view in measure_shortcuts(target)[0].views.items()}


def test_a_network_that_looks_at_a_corner_needs_no_lungs() -> None:
    third = pytest.approx(1 / 3)
    target = toy(corner, "corner")
    assert balanced(target) == {"full": 1, "lungs": third, "blanked": 1, "box": 1, "border": 1}
    results, shown = measure_shortcuts(target)
    # the corner is 10 pixels from the lungs, 0.3125 of the side: hidden by no dilation when blanked, never shown else
    assert [view.scores["accuracy"].value for view in results.blanked_curve] == [1] * len(DILATIONS)
    assert [view.scores["accuracy"].value for view in results.lungs_curve] == [third] * len(DILATIONS)
    found = verdict(shown)
    assert found.flag == "shortcut"
    assert "less than all but the lungs" in found.reasons[2]


def test_a_network_that_looks_at_the_lungs_knows_nothing_without_them() -> None:
    third = pytest.approx(1 / 3)
    target = toy(lungs_mean, "lungs")
    assert balanced(target) == {"full": 1, "lungs": 1, "blanked": third, "box": third, "border": third}
    results, shown = measure_shortcuts(target)
    assert [view.scores["auroc"].value for view in results.blanked_curve] == [0.5] * len(DILATIONS)
    found = verdict(shown)
    assert found.flag == "no sign"
    assert [found.skill_left[name].high for name in found.skill_left] == pytest.approx([0, 0], abs=1e-12)


def test_scores_of_a_view_are_those_of_its_probabilities() -> None:
    _, shown = measure_shortcuts(toy(corner, "corner"))
    scores = shown.scores["lungs"]
    # every corner is filled with the lungs' grey 0.5: logits -25, 0, -25
    sure = 1 / (1 + 2 * np.exp(-25))
    assert shown.probs["lungs"][:, 1] == pytest.approx(np.full(36, sure))
    assert set(scores) == set(SCORES)
    assert scores["true_class_prob"].value == pytest.approx((sure + 2 * (1 - sure) / 2) / 3)
    low, high = scores["accuracy"][1:3]
    assert low < 1 / 3 < high


def test_shares_of_pixels_evidence_and_area_are_counted() -> None:
    results, shown = measure_shortcuts(toy(corner, "corner"))
    area = 2 * 16 * 8 / SIZE**2
    assert shown.lung_area == pytest.approx(np.full(36, area))
    assert shown.evidence_in_lungs == pytest.approx(np.full(36, 0.25))
    # a margin of 0.02 is 0.64 pixels here: nothing beyond the lungs
    assert results.views["lungs"].kept == pytest.approx(area) and results.views["blanked"].kept == pytest.approx(
        1 - area
    )
    assert results.views["box"].kept == pytest.approx(1 - 16 * 20 / SIZE**2)
    assert results.views["border"].kept == pytest.approx(1 - 26**2 / SIZE**2)


def test_every_image_takes_the_passes_that_are_told() -> None:
    target, told = toy(corner, "corner"), []
    measure_shortcuts(target, told.append)
    assert cast(Toy, target.network).passes == 36 * PASSES
    assert told == [f"hide-and-seek on 36 images of val, {PASSES} passes each"]
    assert len(VIEWS) + 2 * (len(DILATIONS) - 1) == PASSES == len(SHOWN_VIEWS)


def test_the_same_network_gives_the_same_results_in_any_batches() -> None:
    first, second = (measure_shortcuts(toy(lungs_mean, "lungs", size)) for size in (36, 5))
    assert first[0] == second[0]
    for name in SHOWN_VIEWS:
        assert np.array_equal(first[1].probs[name], second[1].probs[name])


def test_true_lungs_are_taken_where_known_else_the_predicted_ones() -> None:
    known = torch.arange(36) < 12
    results, shown = measure_shortcuts(toy(lungs_mean, "lungs", has_lung=known))
    # where unknown, the network calls dark pixels lung: those of class 0, and of others none, which leaves them out
    assert shown.lung_known.tolist() == [True] * 12 + [False] * 8 and results.lungs_predicted == 8
    assert set(shown.label[12:].tolist()) == {0}
    assert results.left_out == {"label": 0, "lungs": 16, "finite probabilities": 0}


def test_images_without_a_label_or_finite_probabilities_are_left_out_and_counted() -> None:
    def broken(image: Tensor) -> Tensor:
        first = image[:, 0, 31, 31]
        return torch.where(first > 0.9, torch.nan, corner(image))

    target = toy(broken, "corner", has_label=torch.arange(36) >= 4)
    for batch in target.batches():
        batch["image"][:, 0, 31, 31] = 1.0  # a view of the images: the first of all, seen in some views only
        break
    results, shown = measure_shortcuts(target)
    assert results.left_out == {"label": 4, "lungs": 0, "finite probabilities": 7}
    assert [sample.id for sample in shown.samples] == [f"{i:02d}.png" for i in range(7, 36)]


def test_a_set_without_labels_gives_no_numbers_and_no_crash() -> None:
    results, shown = measure_shortcuts(toy(corner, "corner", has_label=torch.zeros(36, dtype=torch.bool)))
    assert results.images == 0 and shown.samples == [] and np.isnan(results.views["full"].scores["accuracy"].value)
    found = verdict(shown)
    assert found.flag == "unclear" and "too few" in found.reasons[0]


def test_a_real_network_goes_through(untrained: Path) -> None:
    target = load_target(untrained, [], "val")
    _, shown = measure_shortcuts(target)
    assert shown.samples == target.samples
    assert all(np.allclose(probs.sum(axis=1), 1) for probs in shown.probs.values())
    with torch.no_grad():
        probs = torch.cat([target.network(batch["image"]).class_logits.softmax(1) for batch in target.batches()])
    assert shown.probs["full"] == pytest.approx(probs.double().numpy(), abs=1e-6)
