"""An ensemble is the mean of its members, its class map stays exact, and it says how far they disagree."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lungseg.cam.faithfulness import randomisation_check
from lungseg.cam.layers import layer_names
from lungseg.cam.methods import METHODS, class_map_of
from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.ensemble import Ensemble, members_of
from lungseg.models.network import LungNetwork, LungOutput

IMAGES = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def _members(config: ModelConfig, count: int = 3, classes: int = 3, multi_label: bool = False) -> list[LungNetwork]:
    networks = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = LungNetwork(config, classes, multi_label).eval()
        if network.classifier is not None:
            torch.nn.init.normal_(network.classifier.bias)
        networks.append(network)
    return networks


def test_outputs_are_means_and_the_class_map_is_that_of_the_mean_logit(tiny_model: ModelConfig) -> None:
    members = _members(dataclasses.replace(tiny_model, map_stride=8, infection=True))
    ensemble = Ensemble(members).eval()
    output, single = ensemble(IMAGES), [member(IMAGES) for member in members]
    for name in ("mask_logits", "class_logits", "class_maps"):
        torch.testing.assert_close(getattr(output, name), torch.stack([getattr(one, name) for one in single]).mean(0))
    bias = torch.stack([member.classifier.bias for member in members if member.classifier is not None]).mean(0)
    torch.testing.assert_close(output.class_maps.mean((2, 3)) + bias, output.class_logits)
    torch.testing.assert_close(ensemble.classify(IMAGES), output.class_logits)
    torch.testing.assert_close(ensemble.class_maps(IMAGES), output.class_maps)
    assert ensemble.stride == 8 and members_of(ensemble) == members and members_of(members[0]) == members[:1]
    assert single[0].disagreement is None


def test_members_that_are_the_same_agree(tiny_model: ModelConfig) -> None:
    (member,) = _members(tiny_model, 1)
    output = Ensemble([member, member])(IMAGES)
    torch.testing.assert_close(output.class_logits, member(IMAGES).class_logits)
    torch.testing.assert_close(output.disagreement, torch.zeros(3, 2), atol=1e-6, rtol=0)


def _fixed(config: ModelConfig, logits: list[float], lung: Tensor) -> LungNetwork:
    """A network that says the same of every image."""
    (network,) = _members(config, 1, len(logits))
    learned = network.forward

    def forward(image: Tensor) -> LungOutput:
        output = learned(image)
        mask_logits = (lung.float() * 100 - 50).expand_as(output.mask_logits)
        return output._replace(class_logits=torch.tensor([logits]).expand(len(image), -1), mask_logits=mask_logits)

    network.forward = forward  # type: ignore[method-assign]
    return network


def test_disagreement_by_hand(tiny_model: ModelConfig) -> None:
    left = torch.zeros(64, 64, dtype=torch.bool)
    left[:, :32] = True
    sure = [_fixed(tiny_model, logits, left) for logits in ([50.0, 0.0], [0.0, 50.0])]
    # Each is sure of another class: the mutual information is that of a coin, ln 2.
    assert Ensemble(sure)(IMAGES).disagreement == pytest.approx(torch.tensor([[0.6931, 0.0]] * 3), abs=1e-4)
    # The logits of both halves cancel: to the ensemble all is lung by one half, with which each has the dice 2/3.
    apart = [_fixed(tiny_model, [1.0, 1.0], lung) for lung in (left, ~left)]
    assert Ensemble(apart)(IMAGES).disagreement == pytest.approx(torch.tensor([[0.0, 1 / 3]] * 3), abs=1e-5)


def test_what_members_do_not_predict_has_no_disagreement(tiny_model: ModelConfig) -> None:
    masks = Ensemble(_members(tiny_model, 2, classes=0))(IMAGES).disagreement
    assert masks[:, 0].isnan().all() and masks[:, 1].isfinite().all()
    classes = Ensemble(_members(dataclasses.replace(tiny_model, lung=False), 2))(IMAGES).disagreement
    assert classes[:, 0].isfinite().all() and classes[:, 1].isnan().all()
    several = Ensemble(_members(tiny_model, 2, multi_label=True))(IMAGES).disagreement
    assert (several[:, 0] > 0).all()


def test_methods_at_features_and_the_randomisation_check_take_an_ensemble(tiny_model: ModelConfig) -> None:
    ensemble = Ensemble(_members(tiny_model, 2)).eval()
    assert layer_names(ensemble) == ["features"]
    torch.testing.assert_close(
        METHODS["cam"](ensemble, IMAGES, None), class_map_of(ensemble(IMAGES), ensemble(IMAGES).top_class())
    )
    with pytest.raises(UserError, match="an ensemble has no gradient at one layer; take cam"):
        METHODS["grad_cam"](ensemble, IMAGES, None)
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    found = randomisation_check(ensemble, IMAGES, METHODS["cam"])
    assert found.stages[0] == "classifier" and found.correlation.shape == (len(found.stages), 3)
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())


@pytest.mark.parametrize(
    ("change", "key"), [({"map_stride": 8}, "model.map_stride"), ({"infection": True}, "model.infection")]
)
def test_networks_that_do_not_go_together_are_refused(
    tiny_model: ModelConfig, change: dict[str, object], key: str
) -> None:
    members = _members(tiny_model, 1) + _members(dataclasses.replace(tiny_model, **change), 1)
    with pytest.raises(UserError, match=f"{key}: must be the same in all members of an ensemble, got"):
        Ensemble(members)
    with pytest.raises(UserError, match="two networks or more, got 1"):
        Ensemble(members[:1])
    with pytest.raises(UserError, match="classes: must be the same"):
        Ensemble(_members(tiny_model, 1) + _members(tiny_model, 1, classes=4))
    with pytest.raises(UserError, match="single networks; of an ensemble give its members"):
        Ensemble([Ensemble(_members(tiny_model, 2)), *_members(tiny_model, 1)])
