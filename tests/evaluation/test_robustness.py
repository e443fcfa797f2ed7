from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lungseg.data.sample import Sample
from lungseg.evaluation.distributed import ProcessGroup
from lungseg.evaluation.results import RobustnessResults
from lungseg.evaluation.robustness import PASSES, PERTURBATIONS, SCORES, measure_robustness, rotate, show_perturbed
from lungseg.evaluation.saved import to_plain
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.models.network import LungOutput
from lungseg.runs.whole_files import without_nan

CLASSES = ("COVID-19", "Non-COVID", "Normal")
SIZE, COUNT = 32, 12
LUNG = torch.zeros(SIZE, SIZE, dtype=torch.bool)
LUNG[4:28, 12:20] = True


class Toy(nn.Module):
    """Class by the grey of pixel (1, 1): near 0, 0.5, 1; lungs are where the image is near 0.3; evidence is theirs."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, image: Tensor) -> LungOutput:
        self.passes += len(image)
        near = -((image[:, 0, 1, 1, None] - torch.tensor([0.0, 0.5, 1.0])) ** 2) * 100
        near = torch.where(image[:, 0, 30, 30, None] == 0.125, torch.nan, near)
        mask = 0.15 - (image - 0.3).abs()
        return LungOutput(mask, near, (mask > 0).float().expand(-1, 3, -1, -1), image)

    def probabilities(self, class_logits: Tensor) -> Tensor:
        return class_logits.softmax(dim=1)


def toy(lung: Tensor = LUNG, batch_size: int = 5, **changes: Any) -> EvaluationTarget:
    """12 images, grey 0.3 in the lungs and 0.8 elsewhere, whose pixel (1, 1) tells the class."""
    label = torch.arange(COUNT) % 3
    image = torch.where(lung, 0.3, 0.8).expand(COUNT, 1, SIZE, SIZE).clone()
    image[:, 0, 1, 1] = label / 2
    whole = {
        "image": image,
        "lung": lung.float().expand(COUNT, 1, SIZE, SIZE),
        "label": label,
        "has_lung": torch.ones(COUNT, dtype=torch.bool),
        "id": np.array([f"{i:02d}.png" for i in range(COUNT)]),
    } | changes

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, COUNT, batch_size):
            yield {name: value[start : start + batch_size] for name, value in whole.items()}

    samples = [
        Sample(f"{i:02d}.png", Path("x"), None, None, None if one < 0 else int(one), "val")
        for i, one in enumerate(whole["label"])
    ]
    return cast(
        EvaluationTarget,
        SimpleNamespace(
            network=Toy(), classes=CLASSES, samples=samples, split="val", batches=batches, processes=ProcessGroup()
        ),
    )


def rows_of(target: EvaluationTarget, images: int | None = None) -> dict[tuple[str, float], dict[str, Any]]:
    """Everything measured, a row an image, by perturbation and strength."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for (name, strength, what), values in show_perturbed(target, images=images)[1].items():
        rows.setdefault((name, strength), {})[what] = values
    return rows


def scores(results: RobustnessResults, name: str, score: str) -> list[Any]:
    return [point.scores[score].value for point in results.curves[name].points]


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungseg.evaluation.robustness.REPLICATES", 50)


def test_every_curve_starts_with_the_images_as_they_are() -> None:
    results = measure_robustness(toy())
    assert list(results.curves) == list(PERTURBATIONS)
    for name, curve in results.curves.items():
        assert [point.strength for point in curve.points] == [0.0, *PERTURBATIONS[name].strengths]
        first = curve.points[0]
        values = {score: number.value for score, number in first.scores.items()}
        assert values == pytest.approx(
            {"accuracy": 1, "balanced_accuracy": 1, "dice": 1, "evidence_in_lungs": 1, "flipped": 0}
        )
        assert set(first.scores) == set(SCORES) - {"auroc"} and sum(first.flipped_to.values()) == 0


def test_a_marker_flips_a_network_that_looks_at_that_corner_to_one_class() -> None:
    lung = LUNG.clone()
    lung[:10, 22:] = lung[22:, :10] = lung[22:, 22:] = True  # leaves the upper left corner alone
    results = measure_robustness(toy(lung))
    strongest = results.curves["marker"].points[-1]
    # (1, 1) is the letter's first pixel: what is not class 2 becomes it
    assert strongest.flipped_to == {"COVID-19": 0, "Non-COVID": 0, "Normal": 8}
    assert strongest.scores["flipped"].value == pytest.approx(2 / 3)
    assert strongest.scores["accuracy"].value == pytest.approx(1 / 3)
    assert strongest.scores["dice"].value == pytest.approx(1)


def test_masks_turn_with_the_image_and_are_not_held_against_the_unturned_ones() -> None:
    results = measure_robustness(toy())
    turned = scores(results, "rotation", "dice")
    assert min(turned) > 0.9
    assert min(scores(results, "rotation", "evidence_in_lungs")) > 0.85  # the toy calls the black corners' rims lung
    _, mask = rotate(torch.zeros(1, 1, SIZE, SIZE), LUNG[None], 30.0, ["a"])
    assert 2 * int((mask[0] & LUNG).sum()) / int(mask.sum() + LUNG.sum()) < 0.75
    still = [sum(point.flipped_to.values()) for point in results.curves["rotation"].points]
    assert still[0] == 0 and still[-1] == 8  # black comes into the corner: all are class 0


def test_lost_contrast_is_seen_in_dice_by_hand() -> None:
    results = measure_robustness(toy())
    # at 0.9 lost all greys lie near the mean (0.7 or so): nothing is near 0.3, so no lung is found
    assert scores(results, "contrast", "dice")[-1] == 0
    assert np.isnan(scores(results, "contrast", "evidence_in_lungs")[-1])
    # pixel (1, 1) nears 0.7 too: all are class 1
    assert results.curves["contrast"].points[-1].flipped_to == {"COVID-19": 0, "Non-COVID": 8, "Normal": 0}


def test_the_same_network_gives_the_same_results_in_any_batches() -> None:
    first, second = measure_robustness(toy()), measure_robustness(toy(batch_size=COUNT))
    assert without_nan(to_plain(first)) == without_nan(to_plain(second))


def test_every_image_takes_the_passes_that_are_told() -> None:
    target, told = toy(), []
    measure_robustness(target, told.append)
    assert cast(Toy, target.network).passes == COUNT * PASSES
    assert told == [f"robustness on {COUNT} images of val, {PASSES} passes each"]


def test_unknown_lungs_have_no_dice_and_are_those_predicted_on_the_image_as_it_is() -> None:
    rows = rows_of(toy(has_lung=torch.arange(COUNT) < 4))
    for row in rows.values():
        assert np.isnan(row["dice"]).tolist() == [index >= 4 for index in range(COUNT)]
    assert np.isnan(rows["contrast", 0.9]["evidence_in_lungs"]).all()
    assert rows["noise", 0.02]["evidence_in_lungs"] == pytest.approx(np.ones(COUNT), abs=0.05)


def test_images_without_a_label_still_flip_but_have_no_accuracy() -> None:
    results = measure_robustness(toy(label=torch.full((COUNT,), -1)))
    last = results.curves["rotation"].points[-1]
    assert np.isnan(last.scores["accuracy"].value) and last.scores["flipped"].value == pytest.approx(2 / 3)


def test_images_with_an_output_that_is_not_finite_are_left_out_and_counted() -> None:
    image = torch.where(LUNG, 0.3, 0.8).expand(COUNT, 1, SIZE, SIZE).clone()
    image[3, 0, 30, 30] = 0.125  # what the toy cannot stand
    results = measure_robustness(toy(image=image))
    assert results.left_out == 1 and results.images == COUNT - 1


def test_a_real_network_goes_through_and_a_part_of_the_images_gives_their_rows(untrained: Path) -> None:
    target = load_target(untrained, [], "val")
    samples, _ = show_perturbed(target, images=3)
    assert len({sample.label for sample in samples}) == len(samples) == 3
    chosen = [target.samples.index(sample) for sample in samples]
    whole, part = rows_of(target), rows_of(target, images=3)
    for key in whole:
        assert whole[key]["class_probs"][chosen] == pytest.approx(part[key]["class_probs"], abs=1e-5)
        assert whole[key]["dice"][chosen] == pytest.approx(part[key]["dice"], abs=1e-6)
