"""The paper's U-Net: its levels, what it shares with networks of smp, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lungseg.cam.layers import layer_stride
from lungseg.cam.methods import METHODS
from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.network import LungNetwork

PLAIN = ModelConfig(
    architecture="PlainUNet", encoder="plain", encoder_depth=3, decoder_channels=[16, 8, 4], head="conv"
)


def _network(config: ModelConfig = PLAIN) -> LungNetwork:
    torch.manual_seed(0)
    return LungNetwork(config, 3).eval()


def test_levels_double_from_32_at_the_images_size_to_512() -> None:
    network = LungNetwork(ModelConfig(architecture="plainunet", encoder="plain", encoder_depth=4), 3)
    encoder = network.segmenter.encoder
    assert encoder.out_channels == (32, 64, 128, 256, 512) and network.multiple == network.stride == 16
    sizes = [tuple(level.shape[1:]) for level in encoder(torch.rand(2, 1, 32, 48))]
    assert sizes == [(32, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]


def test_masks_have_the_images_size_and_class_maps_mean_the_logits() -> None:
    network = _network()
    output = network(torch.rand(2, 1, 60, 41))
    assert output.mask_logits.shape == (2, 1, 60, 41) and output.class_maps.shape == (2, 3, 8, 6)
    assert network.classifier is not None
    torch.testing.assert_close(output.class_logits, output.class_maps.mean((2, 3)) + network.classifier.bias)


def test_every_weight_learns_and_the_two_deepest_levels_drop_channels() -> None:
    network = _network().train()
    output = network(torch.rand(2, 1, 32, 32))
    (output.mask_logits.sum() + output.class_logits.square().sum()).backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in network.parameters())
    levels = network.segmenter.encoder.levels
    drops = [any(isinstance(module, nn.Dropout2d) for module in level.modules()) for level in levels]
    assert drops == [False, False, True, True]


def test_class_maps_can_be_finer_and_are_explained_at_its_layers() -> None:
    network = _network(ModelConfig(**(vars(PLAIN) | {"map_stride": 4, "infection": True})))
    assert network(torch.rand(1, 1, 32, 32)).mask_logits.shape == (1, 2, 32, 32)
    layers = ("encoder.3", "decoder.3", "features")
    assert [layer_stride(network, layer) for layer in layers] == [8, 1, 4]
    assert METHODS["grad_cam"](network, torch.rand(1, 1, 32, 32), None, "encoder.2").shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet18"}, "model.encoder: must be 'plain' with architecture PlainUNet, got 'resnet18'"),
        ({"decoder_channels": [8, 4]}, r"model.decoder_channels: must be a list of 3 \(model.encoder_depth\)"),
        ({"drop_path": 0.1}, "model.drop_path: must be 0 with architecture PlainUNet, got 0.1"),
        ({"encoder_weights": "imagenet"}, "model.encoder_weights: smp has no ImageNet weights for 'plain'"),
        ({"architecture": "Unet"}, "model.encoder: unknown encoder 'plain'"),
    ],
)
def test_what_it_cannot_have_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LungNetwork(ModelConfig(**(vars(PLAIN) | change)), 3)  # type: ignore[arg-type]
