from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lungseg.cam.layers import layer_names, layer_stride, read_layer, run_to_layer
from lungseg.config import ModelConfig
from lungseg.models.head import MapClassifier
from lungseg.models.network import LungNetwork

IMAGES = torch.rand(2, 1, 60, 64, generator=torch.Generator().manual_seed(0))


def _network(config: ModelConfig) -> LungNetwork:
    torch.manual_seed(0)
    return LungNetwork(config, classes=3).eval()


def _hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def _resnet(architecture: str, depth: int | None = 5, encoder: str = "resnet18") -> ModelConfig:
    return ModelConfig(architecture=architecture, encoder=encoder, encoder_depth=depth)


def test_names_list_features_stages_and_decoder_blocks(tiny_model: ModelConfig) -> None:
    stages, blocks = [f"encoder.{k}" for k in range(1, 5)], [f"decoder.{k}" for k in range(1, 5)]
    assert layer_names(_network(tiny_model)) == ["features", *stages, *blocks]


def test_stages_without_channels_and_decoders_without_blocks_have_no_names() -> None:
    names = layer_names(_network(_resnet("FPN", encoder="mit_b0")))
    assert names == ["features", "encoder.2", "encoder.3", "encoder.4", "encoder.5"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("encoder.7", r"no layer 'encoder.7'; did you mean 'encoder.\d'"),
        ("feature", "did you mean 'features'"),
        ("xyz", "choose from features, encoder.1, "),
    ],
)
def test_an_unknown_layer_is_answered_with_the_nearest(tiny_model: ModelConfig, layer: str, message: str) -> None:
    for ask in (layer_stride, lambda network, name: run_to_layer(network, IMAGES, name)):
        with pytest.raises(ValueError, match=message):
            ask(_network(tiny_model), layer)


@pytest.mark.parametrize(
    "config",
    [
        _resnet("UnetPlusPlus", 3),
        _resnet("PSPNet", None),
        _resnet("Unet", encoder="mit_b0"),
        _resnet("Unet", encoder="tu-mambaout_femto"),
        ModelConfig(encoder="tu-test_efficientnet", map_stride=8, head_channels=8),
    ],
    ids=lambda config: f"{config.architecture}-{config.encoder}-{config.map_stride}",
)
def test_every_layer_can_be_read_and_cut_out_of_any_network(config: ModelConfig) -> None:
    """In-place layers (resnet), channels last (mambaout), stages without channels (mit, mambaout)."""
    network = _network(config)
    with torch.no_grad():
        whole = network(IMAGES)
    for layer in layer_names(network):
        _, read = read_layer(network, IMAGES, layer)
        output, leaf = run_to_layer(network, IMAGES, layer)
        assert leaf.is_leaf and leaf.requires_grad and torch.equal(leaf, read) and not read.requires_grad
        torch.testing.assert_close(output, whole)
        assert read.shape[-2:] == (64 // layer_stride(network, layer),) * 2, layer
        seen = output.mask_logits if layer.startswith("decoder") else output.class_logits
        (gradient,) = torch.autograd.grad(seen.sum(0)[0].sum(), leaf)
        assert gradient.abs().sum() > 0, layer
    assert not _hooks(network)


def test_features_are_what_the_1x1_convolution_reads(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, head="conv", head_channels=8))
    output, leaf = run_to_layer(network, IMAGES, "features")
    assert torch.equal(output.features, leaf)
    (gradient,) = torch.autograd.grad(output.class_logits[:, 1].sum(), leaf)
    weight = network.classifier.project.weight
    centred = (weight - weight.mean(0))[1].expand(2, -1, 4, 4) / 16
    torch.testing.assert_close(gradient, centred)


@pytest.mark.parametrize("layer", ["encoder.1", "encoder.2", "encoder.3", "encoder.4"])
def test_gradient_at_a_stage_is_that_of_the_whole_pass(tiny_model: ModelConfig, layer: str) -> None:
    network = _network(tiny_model)
    stages: list[Tensor] = []
    handle = network.segmenter.encoder.register_forward_hook(lambda _, __, given: stages.extend(given))
    (expected,) = torch.autograd.grad(network(IMAGES).class_logits[:, 0].sum(), stages[int(layer[-1])])
    handle.remove()
    output, leaf = run_to_layer(network, IMAGES, layer)
    (gradient,) = torch.autograd.grad(output.class_logits[:, 0].sum(), leaf)
    assert torch.equal(gradient, expected)


def test_nothing_before_the_layer_is_recorded(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    recorded: list[bool] = []
    for module in (network.segmenter.encoder.model.conv_stem, network.segmenter.encoder.model.blocks[3]):
        module.register_forward_hook(lambda _, __, given: recorded.append(given.requires_grad))
    run_to_layer(network, IMAGES, "encoder.2")
    assert recorded[-2:] == [False, True]


def test_hooks_are_removed_when_the_pass_fails(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model).train()
    for run in (run_to_layer, read_layer):
        for layer in ("features", "encoder.2", "decoder.1"):
            with pytest.raises(RuntimeError, match="channels"):
                run(network, IMAGES.expand(2, 3, 60, 64), layer)
    assert not _hooks(network) and network.training and torch.is_grad_enabled()


class _Block(nn.Module):
    """Every token sees every other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.linear(tokens) + tokens.mean(1, keepdim=True)
        return mixed


class _Tokens(nn.Module):
    """An encoder as DPT's: stages are copies as maps of tokens that go on as tokens, with one that has no pixel."""

    output_strides, out_channels, output_stride = (8, 8), (4, 4), 8

    def __init__(self, altered: bool):
        super().__init__()
        self.altered = altered
        self.embed = nn.Conv2d(1, 4, 8, 8)
        self.blocks = nn.ModuleList([_Block(), _Block()])

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        maps = self.embed(image)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
        stages, prefix = [], []
        for block in self.blocks:
            tokens = block(tokens)
            stages.append(tokens[:, 1:].transpose(1, 2).reshape(maps.shape))
            prefix.append(tokens[:, :1])
        return [stages[0].relu() if self.altered else stages[0], stages[1]], prefix


class _Decoder(nn.Module):
    def forward(self, stages: list[Tensor], prefix: list[Tensor]) -> Tensor:
        decoded: Tensor = nn.functional.interpolate(stages[-1], scale_factor=8.0)
        return decoded


def _token_network(config: ModelConfig, altered: bool = False) -> LungNetwork:
    network = _network(config)
    network.segmenter.encoder, network.segmenter.decoder = _Tokens(altered), _Decoder()
    network.segmenter.segmentation_head = nn.Conv2d(4, 1, 1)
    network.classifier = MapClassifier(4, 3, "linear", 8, 0.0, "average")
    network.multiple = network.stride = 8
    return network


def test_stages_made_of_tokens_are_cut_out_as_maps_and_put_back_as_tokens(tiny_model: ModelConfig) -> None:
    network = _token_network(tiny_model)
    blocks: Any = network.segmenter.encoder.blocks
    given: list[Tensor] = []
    handle = blocks[0].register_forward_hook(lambda _, __, tokens: given.append(tokens))
    whole = network(IMAGES)
    (expected,) = torch.autograd.grad(whole.class_logits[:, 0].sum(), given[0])
    handle.remove()
    assert layer_names(network) == ["features", "encoder.1", "encoder.2"]
    output, leaf = run_to_layer(network, IMAGES, "encoder.1")
    (gradient,) = torch.autograd.grad(output.class_logits[:, 0].sum(), leaf)
    torch.testing.assert_close(output, whole)
    torch.testing.assert_close(leaf, given[0][:, 1:].transpose(1, 2).reshape(2, 4, 8, 8))
    torch.testing.assert_close(gradient, expected[:, 1:].transpose(1, 2).reshape(2, 4, 8, 8))


def test_a_stage_that_is_only_a_changed_copy_can_be_read_but_not_cut_out(tiny_model: ModelConfig) -> None:
    network = _token_network(tiny_model, altered=True)
    assert read_layer(network, IMAGES, "encoder.1")[1].min() == 0
    with pytest.raises(ValueError, match=r"layer 'encoder.1': no module of this encoder puts it out"):
        run_to_layer(network, IMAGES, "encoder.1")
    assert not _hooks(network)


class _Upsampled(nn.Module):
    def forward(self, stages: list[Tensor]) -> Tensor:
        upsampled: Tensor = nn.functional.interpolate(stages[-1], scale_factor=4.0)
        return upsampled


class _Collecting(nn.Module):
    """An encoder that collects its stages by hooks of its own, as some of timm's do."""

    out_channels, output_stride = (1, 4, 4), 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 4, 2, 2))
        self.collected: list[Tensor] = []
        for stage in self.body:
            stage.register_forward_hook(lambda _, __, given: self.collected.append(given))

    def forward(self, image: Tensor) -> list[Tensor]:
        self.collected.clear()
        self.body(image)
        return [image, *self.collected]


def test_an_encoder_that_collects_stages_by_hooks_collects_what_was_put_back(tiny_model: ModelConfig) -> None:
    network = _token_network(tiny_model)
    network.segmenter.encoder, network.segmenter.decoder = _Collecting(), _Upsampled()
    network.multiple = network.stride = 4
    for layer in ("encoder.1", "encoder.2"):
        output, leaf = run_to_layer(network, IMAGES, layer)
        assert torch.autograd.grad(output.class_logits[:, 0].sum(), leaf)[0].abs().sum() > 0
    assert _hooks(network) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "encoder", "depth"),
    [("DPT", "tu-vit_tiny_patch16_224", None), ("Unet", "tu-swin_tiny_patch4_window7_224", 5)],
)
def test_transformers_as_they_are(architecture: str, encoder: str, depth: int | None) -> None:
    network, images = _network(_resnet(architecture, depth, encoder)), torch.rand(1, 1, 224, 224)
    for layer in layer_names(network):
        output, leaf = run_to_layer(network, images, layer)
        seen = output.mask_logits if layer.startswith("decoder") else output.class_logits
        assert torch.autograd.grad(seen[0, 0].sum(), leaf)[0].abs().sum() > 0
        assert leaf.shape[-1] == 224 // layer_stride(network, layer)
