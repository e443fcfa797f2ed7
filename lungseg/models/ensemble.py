"""Several trained networks as one: the mean of what they say, and how far they disagree."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lungseg.errors import check
from lungseg.models.network import LungNetwork, LungOutput


class Ensemble(LungNetwork):
    """The mean of the logits and of the class maps of its members (Lakshminarayanan et al., NeurIPS 2017).

    Logits are averaged, and not probabilities, so that the class map stays exact: with `average` pooling the mean of
    the members' maps plus the mean of their biases is the mean of their logits, and so the map is that of the class
    logit given here. (Each member that pools by its own lungs weighs its map by others; there the mean of the maps is
    no more than that.) A softmax of mean logits is the geometric mean of the members' probabilities, made to sum to 1.

    The `features` are those of all members, one after the other. Layers inside of members have no name here.

    Args:
        members: Two or more, of the same classes, outputs and map stride.

    Raises:
        UserError: They do not go together.
    """

    def __init__(self, members: Sequence[LungNetwork]):
        nn.Module.__init__(self)
        check(len(members) >= 2, "ensemble", "two networks or more", len(members))
        self.members = nn.ModuleList(members)
        nested = "single networks; of an ensemble give its members"
        check(not any(isinstance(member, Ensemble) for member in members), "ensemble", nested, "an ensemble")
        first = members[0]
        self.multi_label, self.has_lung = first.multi_label, first.has_lung
        self.multiple, self.stride = first.multiple, first.stride
        kinds = [_kind(member) for member in members]
        for name in kinds[0]:
            found = [kind[name] for kind in kinds]
            check(len(set(found)) == 1, name, "the same in all members of an ensemble", found)

    def forward(self, image: Tensor) -> LungOutput:
        """Run one pass of every member; image (B, 1, H, W) float32 in [0, 1]."""
        outputs: list[LungOutput] = [member(image) for member in self.members]
        mean = LungOutput(
            mask_logits=_mean([output.mask_logits for output in outputs]),
            class_logits=_mean([output.class_logits for output in outputs]),
            class_maps=_mean([output.class_maps for output in outputs]),
            features=torch.cat([output.features for output in outputs], dim=1),
        )
        return mean._replace(disagreement=self._disagreement(outputs, mean))

    def classify(self, image: Tensor) -> Tensor:
        """As of a network: the mean of the members' class logits (B, C)."""
        return _mean([member.classify(image) for member in members_of(self)])

    def class_maps(self, image: Tensor) -> Tensor:
        """As of a network: the mean of the members' class maps (B, C, h, w)."""
        return _mean([member.class_maps(image) for member in members_of(self)])

    def _disagreement(self, outputs: Sequence[LungOutput], mean: LungOutput) -> Tensor:
        """(B, 2) float32, as `LungOutput.disagreement`."""
        probs = torch.stack([self.probabilities(output.class_logits.float()) for output in outputs])
        classes = _mean([_entropy(each, self.multi_label) for each in probs])
        classes = (_entropy(probs.mean(dim=0), self.multi_label) - classes).clamp_min(0)
        lungs = torch.full_like(classes, torch.nan)
        if self.has_lung:
            lung = mean.mask_logits[:, 0].sigmoid()
            lungs = 1 - _mean([_soft_dice(output.mask_logits[:, 0].sigmoid(), lung) for output in outputs])
        return torch.stack([classes if probs.shape[2] else torch.full_like(lungs, torch.nan), lungs], dim=1)


def members_of(network: LungNetwork) -> list[LungNetwork]:
    """The members of an ensemble, or the network itself."""
    members = network.members if isinstance(network, Ensemble) else [network]
    return [member for member in members if isinstance(member, LungNetwork)]


def _kind(network: LungNetwork) -> dict[str, Any]:
    """What members must have in common, by the key that decides it."""
    head: Any = network.segmenter.segmentation_head if network.has_lung else nn.Identity()
    masks = [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)]
    return {
        "model.lung": network.has_lung,
        "model.infection": masks == [2],
        "model.map_stride": network.stride,
        "the stride of the deepest features (model.encoder_depth)": network.multiple,
        "classes": 0 if network.classifier is None else network.classifier.bias.numel(),
        "data.multi_label": network.multi_label,
    }


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)


def _entropy(probs: Tensor, multi_label: bool) -> Tensor:
    """Entropy (B,) in nats of probabilities (B, C); of findings the mean of each one's."""
    if multi_label:
        return -(torch.xlogy(probs, probs) + torch.xlogy(1 - probs, 1 - probs)).mean(dim=1)
    return -torch.xlogy(probs, probs).sum(dim=1)


def _soft_dice(probs: Tensor, other: Tensor) -> Tensor:
    """(B,) of probabilities (B, H, W), 1 where they are the same; no threshold, at which a last bit could decide."""
    squares = probs.square().sum(dim=(1, 2)) + other.square().sum(dim=(1, 2))
    return 2 * (probs * other).sum(dim=(1, 2)) / squares.clamp_min(1e-6)
