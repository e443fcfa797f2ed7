"""The auxiliary classifier: its class maps are an output of the network, and its logits are their pooled mean."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.config.model import Head, Pooling


class MapClassifier(nn.Module):
    """Class maps by a 1x1 convolution on the deepest features, then pooling.

    `class_logits = pool(class_maps) + bias`, exactly. A softmax does not see what all classes share, so the weights are
    centred over the classes before use: the maps of one pixel sum to zero, and a class map shows the evidence *for this
    class against the others*, never a part that cancels out of the decision. With `multi_label` each class has a
    sigmoid of its own, nothing cancels, and the weights are as they are: a map shows the evidence *for this finding
    against its absence*, whatever the others are.

    Class activation mapping as pooling after the convolution: Zhou et al., "Learning Deep Features for Discriminative
    Localization", CVPR 2016. The CNN module of `head="conv"`: Schraut et al., doi 10.1007/s44163-022-00045-1.

    A head of one's own is a subclass, as which `LungModule.head` names it: `pool_weights` is another pooling, and
    `module`, of an unchanged number of channels, other layers.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        head: Head,
        head_channels: int,
        dropout: float,
        pooling: Pooling,
        multi_label: bool = False,
    ):
        super().__init__()
        self.pooling, self.multi_label = pooling, multi_label
        self.module = _cnn_module(in_channels, head_channels) if head == "conv" else nn.Identity()
        channels = head_channels if head == "conv" else in_channels
        self.dropout = nn.Dropout2d(dropout)
        self.project = nn.Conv2d(channels, classes, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, deep: Tensor, lung_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify.

        Args:
            deep: (B, K, h, w) deepest encoder features.
            lung_probs: (B, 1, H, W) predicted lung probability; used, detached, by `lung` pooling only.

        Returns:
            class_logits (B, C) float32, class_maps (B, C, h, w) float32, features (B, K', h, w): what the 1x1
            convolution reads.
        """
        class_maps, features = self.class_maps(deep)
        weights = self.pool_weights(class_maps, lung_probs)
        class_logits = (class_maps * weights).sum(dim=(2, 3)) + self.bias
        return class_logits, class_maps, features

    @property
    def reads_lung(self) -> bool:
        """Whether the logits depend on the predicted lungs; a pooling of one's own is taken to."""
        return self.pooling == "lung" or type(self).pool_weights is not MapClassifier.pool_weights

    def class_maps(self, deep: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, w) -> class_maps (B, C, h, w) float32 and the features (B, K', h, w) they are read from."""
        # Whole channels are dropped: neighbours in a feature map say the same, and would stand in for each other.
        features: Tensor = self.dropout(self.module(deep))
        # Centred at each use rather than once after training: so the optimiser trains what is shown.
        weight = self.project.weight
        weight = weight if self.multi_label else weight - weight.mean(dim=0, keepdim=True)
        return F.conv2d(features, weight).float(), features

    def pool_weights(self, class_maps: Tensor, lung_probs: Tensor) -> Tensor:
        """(B or 1, C or 1, h, w) float32 weights that sum to 1, or to 0 without a predicted lung: the bias decides."""
        size = (class_maps.shape[-2], class_maps.shape[-1])
        if self.pooling == "average":
            return class_maps.new_full((1, 1, *size), 1 / (size[0] * size[1]))
        # Detached: else the classifier could move the lungs to where its evidence is.
        lung = F.adaptive_avg_pool2d(lung_probs.detach().float(), size)
        return lung / lung.sum(dim=(2, 3), keepdim=True).clamp_min(1e-3)


def _cnn_module(in_channels: int, channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with BatchNorm and ReLU: (B, in, h, w) -> (B, channels, h, w)."""
    layers: list[nn.Module] = []
    for inner in (in_channels, channels):
        layers += [nn.Conv2d(inner, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)
