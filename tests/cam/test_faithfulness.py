from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lungseg.cam import faithfulness as under_test
from lungseg.cam.faithfulness import Faithfulness, faithfulness, randomisation_check, rank_correlation
from lungseg.cam.methods import METHODS, class_map_of
from lungseg.config import ModelConfig
from lungseg.models.network import LungNetwork


class Weighted(nn.Module):
    """Two classes; the probability of class 0 is the weighted sum of the pixels."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights, self.largest_batch = weights, 0

    def classify(self, images: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(images))
        prob = (images[:, 0] * self.weights).sum((1, 2))
        return torch.stack([prob.logit(1e-6), torch.zeros_like(prob)], 1)

    def probabilities(self, class_logits: Tensor) -> Tensor:
        return class_logits.softmax(dim=1)


FIRST = torch.zeros(1, dtype=torch.int64)


@pytest.fixture
def network(tiny_model: ModelConfig) -> LungNetwork:
    torch.manual_seed(0)
    return LungNetwork(tiny_model, 3)


def closed_form(network: Any, images: Tensor, target: Tensor) -> Tensor:
    return class_map_of(network(images), target)


def deletion_gain(found: Faithfulness) -> Tensor:
    return found.random_deletion_area - found.deletion_area


def insertion_gain(found: Faithfulness) -> Tensor:
    return found.insertion_area - found.random_insertion_area


def test_curves_and_areas_of_four_pixels_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_blur", torch.zeros_like)
    toy = Weighted(torch.tensor([[0.6, 0.2], [0.1, 0.1]]))
    image = torch.tensor([[[[1.0, 0.5], [0.25, 0.25]]]])  # its mean grey is 0.5
    found = faithfulness(toy, image, torch.tensor([[[9.0, -1.0], [2.0, -4.0]]]), FIRST, steps=4)
    torch.testing.assert_close(found.deletion, torch.tensor([[0.75, 0.45, 0.475, 0.475, 0.5]]))
    torch.testing.assert_close(found.insertion, torch.tensor([[0.0, 0.6, 0.625, 0.725, 0.75]]), atol=2e-6, rtol=0)
    torch.testing.assert_close(found.deletion_area, torch.tensor([0.50625]))
    torch.testing.assert_close(found.insertion_area, torch.tensor([0.58125]))


def test_the_probability_followed_is_that_of_the_target() -> None:
    toy, image = Weighted(torch.full((4, 4), 1 / 16)), torch.full((2, 1, 4, 4), 0.3)
    found = faithfulness(toy, image, torch.rand(2, 4, 4), torch.tensor([0, 1]), steps=2)
    torch.testing.assert_close(found.deletion, torch.tensor([[0.3] * 3, [0.7] * 3]))


def test_a_constant_curve_has_its_value_as_area_and_gains_nothing() -> None:
    found = faithfulness(
        Weighted(torch.full((4, 4), 1 / 16)), torch.full((1, 1, 4, 4), 0.3), torch.rand(1, 4, 4), FIRST
    )
    for area in (found.deletion_area, found.insertion_area, found.random_deletion_area, found.random_insertion_area):
        torch.testing.assert_close(area, torch.tensor([0.3]))
    torch.testing.assert_close(deletion_gain(found) + insertion_gain(found), torch.zeros(1), atol=1e-6, rtol=0)


def test_the_perfect_order_beats_the_random_one_and_its_reverse_loses() -> None:
    weights = torch.zeros(32, 32)
    weights[4:12, 4:12] = 1 / 64
    image = (torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2).where(weights == 0, 0.9)
    right = faithfulness(Weighted(weights), image, weights.expand(8, -1, -1), FIRST.expand(8))
    assert (deletion_gain(right) > 0.1).all() and (insertion_gain(right) > 0.04).all()
    wrong = faithfulness(Weighted(weights), image, -weights.expand(8, -1, -1), FIRST.expand(8))
    assert deletion_gain(wrong).mean() < -0.02 and insertion_gain(wrong).mean() < -0.02
    assert (right.deletion_area < wrong.deletion_area).all() and (right.insertion_area > wrong.insertion_area).all()


def test_equal_values_go_in_reading_order_so_that_a_flat_map_gains_nothing() -> None:
    toy = Weighted(torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) / 64)
    image = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    flat, rows = torch.zeros(3, 8, 8), -torch.arange(64.0).view(1, 8, 8).expand(3, -1, -1)
    found, stated = (faithfulness(toy, image, cam, FIRST.expand(3)) for cam in (flat, rows))
    assert torch.equal(found.deletion, stated.deletion) and torch.equal(found.insertion, stated.insertion)
    assert (deletion_gain(found) == 0).all() and (insertion_gain(found) == 0).all()


def test_a_batch_gives_what_its_images_give_alone_in_passes_of_bounded_size(network: LungNetwork) -> None:
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    cam = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(4)).round()  # with ties
    target = torch.tensor([0, 1, 2])
    sizes: list[int] = []
    handle = network.segmenter.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = faithfulness(network, images, cam, target, steps=4, batch_size=7)
    handle.remove()
    assert max(sizes) == 7 and sum(sizes) == 3 * 5 * 4
    for i in range(3):
        alone = faithfulness(network, images[i : i + 1], cam[i : i + 1], target[i : i + 1], steps=4)
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs, atol=1e-5, rtol=0)


def test_random_orders_follow_the_seed_and_differ_between_images() -> None:
    toy = Weighted(torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) / 256)
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    cam = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(3)).expand(4, -1, -1)
    rolled = [under_test._roll(cam, images, seed) for seed in (0, 0, 1)]
    assert torch.equal(rolled[0], rolled[1]) and not torch.equal(rolled[0], rolled[2])
    assert not torch.equal(rolled[0][0], rolled[0][1])
    assert torch.equal(rolled[0].flatten(1).sort().values, cam.flatten(1).sort().values)
    first, again = (faithfulness(toy, images, cam, FIRST.expand(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_blur_keeps_flat_images_and_takes_detail_away() -> None:
    flat = torch.full((1, 1, 40, 64), 0.4)
    torch.testing.assert_close(under_test._blur(flat), flat)
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = under_test._blur(noise)
    assert blurred.std() < 0.1 * noise.std() and float(blurred.mean()) == pytest.approx(float(noise.mean()), abs=0.01)


def test_a_map_of_another_size_or_without_an_order_is_refused(network: LungNetwork) -> None:
    with pytest.raises(ValueError, match=r"got \(1, 4, 4\); see resize_map"):
        faithfulness(network, torch.rand(1, 1, 64, 64), torch.rand(1, 4, 4), FIRST)
    with pytest.raises(ValueError, match="cam holds NaN or infinity"):
        faithfulness(network, torch.rand(1, 1, 64, 64), torch.full((1, 64, 64), torch.nan), FIRST)


def test_neither_check_changes_the_network_or_the_random_state(network: LungNetwork) -> None:
    network.train()
    network.classifier.eval()
    modes = [module.training for module in network.modules()]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [parameter.requires_grad for parameter in network.parameters()]
    state = torch.get_rng_state()
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    faithfulness(network, images, torch.rand(2, 64, 64, generator=torch.Generator()), torch.tensor([0, 1]), steps=2)
    randomisation_check(network, images, closed_form)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert trained == [parameter.requires_grad for parameter in network.parameters()]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_rank_correlation_by_hand_with_ties() -> None:
    first = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert float(rank_correlation(first, first.exp())) == pytest.approx(1)
    assert float(rank_correlation(first, -first)) == pytest.approx(-1)
    # ranks 0 1 2 3 against 0 1.5 1.5 3: 4.5 / sqrt(5 * 4.5)
    assert float(rank_correlation(first, torch.tensor([[[0.0, 7.0], [7.0, 8.0]]]))) == pytest.approx(0.9**0.5)
    assert rank_correlation(first, torch.zeros(1, 2, 2)).isnan().all()


def test_weights_are_renewed_from_the_classifier_down_and_nothing_else_is(network: LungNetwork) -> None:
    seen: list[dict[str, Tensor]] = []

    def remember(copy: Any, images: Tensor, target: Tensor) -> Tensor:
        seen.append({name: value.clone() for name, value in copy.state_dict().items()})
        return images[:, 0]

    network.segmenter.encoder.requires_grad_(False)  # a frozen encoder is cascaded all the same
    found = randomisation_check(network, torch.rand(1, 1, 64, 64), remember)
    assert found.stages == ("classifier", "encoder.4", "encoder.3", "encoder.2", "encoder.1")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in seen[0].items())
    named = [(name, value) for name, value in network.named_parameters() if value.dim() > 1]
    network.requires_grad_(True).eval()
    logits = network(torch.rand(1, 1, 64, 64)).class_logits
    slopes = torch.autograd.grad(logits.sum(), [value for _, value in named], allow_unused=True)
    matrices = {name for (name, _), slope in zip(named, slopes, strict=True) if slope is not None}
    changed = [
        {name for name in matrices if not torch.equal(after[name], before[name])} for before, after in pairwise(seen)
    ]
    assert changed[0] == {"classifier.project.weight"}
    assert all(name.startswith("segmenter.encoder.") for names in changed[1:] for name in names)
    assert "segmenter.encoder.model.conv_stem.weight" in changed[4] and all(changed)
    assert sum(map(len, changed)) == len(set().union(*changed)) == len(matrices)


def test_merged_stages_of_a_finer_map_are_renewed_after_the_classifier(tiny_model: ModelConfig) -> None:
    finer = LungNetwork(replace(tiny_model, map_stride=8, head_channels=8), 3)
    found = randomisation_check(finer, torch.rand(2, 1, 64, 64), closed_form)
    assert found.stages[:3] == ("classifier", "merge", "encoder.4") and found.correlation.shape == (6, 2)


def test_a_map_that_ignores_the_weights_keeps_its_correlation_and_a_class_map_loses_it(network: LungNetwork) -> None:
    images = torch.rand(4, 1, 128, 128, generator=torch.Generator().manual_seed(5))
    edges = randomisation_check(network, images, lambda _network, images, _target: images[:, 0].diff())
    torch.testing.assert_close(edges.correlation, torch.ones(5, 4))
    maps = randomisation_check(network, images, closed_form)
    assert maps.correlation[-1].mean().abs() < 0.5 and maps.correlation.isfinite().all()


def test_the_check_follows_its_seed_and_its_target_and_works_under_inference_mode(network: LungNetwork) -> None:
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(6))
    target = network.eval()(images).class_logits.argmax(1)
    method = METHODS["hires_cam"]
    first = randomisation_check(network, images, method).correlation
    with torch.inference_mode():
        inside = randomisation_check(network, images.clone(), method, target.clone()).correlation
    assert torch.equal(first, inside)
    for other in ({"seed": 1}, {"target": (target + 1) % 3}):
        assert not torch.equal(first, randomisation_check(network, images, method, **other).correlation)
