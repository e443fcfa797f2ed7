from __future__ import annotations

import dataclasses

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.head import MapClassifier
from lungseg.models.network import LungNetwork


def _network(config: ModelConfig, seed: int = 0) -> LungNetwork:
    torch.manual_seed(seed)
    network = LungNetwork(config, classes=3).eval()
    torch.nn.init.normal_(network.classifier.bias)
    return network


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_class_map_mean_plus_bias_equals_logit(tiny_model: ModelConfig, head: str) -> None:
    network = _network(dataclasses.replace(tiny_model, head=head, dropout=0.5)).train()
    output = network(torch.rand(3, 1, 64, 96))
    expected = output.class_maps.mean(dim=(2, 3)) + network.classifier.bias
    torch.testing.assert_close(output.class_logits, expected)


def test_lung_pooling_is_the_mean_weighted_by_the_predicted_lung(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, pooling="lung"))
    output = network(torch.rand(2, 1, 64, 64))
    weight = F.adaptive_avg_pool2d(output.mask_logits.sigmoid(), output.class_maps.shape[-2:])
    mean = (output.class_maps * weight).sum((2, 3)) / weight.sum((2, 3))
    torch.testing.assert_close(output.class_logits, mean + network.classifier.bias)


def test_lung_pooling_gives_the_bias_where_no_lung_is_predicted(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, pooling="lung"))
    with torch.no_grad():
        network.segmenter.segmentation_head[0].weight.zero_()
        network.segmenter.segmentation_head[0].bias.fill_(-60.0)
    logits = network(torch.rand(2, 1, 64, 64)).class_logits
    torch.testing.assert_close(logits, network.classifier.bias.expand(2, 3))


class _Brightest(MapClassifier):
    def pool_weights(self, class_maps: Tensor, lung_probs: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(lung_probs, class_maps.shape[-2:])


@pytest.mark.parametrize(
    ("change", "head", "decodes"),
    [
        ({}, MapClassifier, False),
        ({"head": "conv", "map_stride": 8}, MapClassifier, False),
        ({"pooling": "lung"}, MapClassifier, True),
        ({}, _Brightest, True),
        ({"lung": False}, MapClassifier, False),
    ],
)
def test_classify_gives_the_logits_of_a_pass_and_decodes_only_where_the_pooling_reads_the_lungs(
    tiny_model: ModelConfig, change: dict[str, object], head: type[MapClassifier], decodes: bool
) -> None:
    network = LungNetwork(dataclasses.replace(tiny_model, **change), classes=3, head=head).eval()
    image = torch.rand(2, 1, 60, 64)
    expected, decoded = network(image).class_logits, []
    if network.has_lung:
        network.segmenter.decoder.register_forward_hook(lambda *_: decoded.append(True))
    torch.testing.assert_close(network.classify(image), expected, rtol=0, atol=0)
    assert bool(decoded) == decodes


def test_class_loss_does_not_train_the_mask_through_lung_pooling(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, pooling="lung"))
    network(torch.rand(2, 1, 64, 64)).class_logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.segmenter.segmentation_head.parameters())


@pytest.mark.parametrize("map_stride", [None, 8])
def test_maps_times_their_stride_cover_the_image_with_and_without_classes(
    tiny_model: ModelConfig, map_stride: int | None
) -> None:
    for classes in (3, 0):
        network = LungNetwork(dataclasses.replace(tiny_model, map_stride=map_stride), classes).eval()
        output = network(torch.rand(1, 1, 64, 64))
        assert output.class_maps.shape == (1, classes, 64 // network.stride, 64 // network.stride)


def test_class_maps_sum_to_zero_over_the_classes(tiny_model: ModelConfig) -> None:
    maps = _network(tiny_model)(torch.rand(2, 1, 64, 64)).class_maps
    torch.testing.assert_close(maps.sum(dim=1), torch.zeros_like(maps[:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40), (100, 70)])
def test_any_image_size_gives_masks_of_that_size(tiny_model: ModelConfig, size: tuple[int, int]) -> None:
    output = _network(tiny_model)(torch.rand(2, 1, *size))
    assert output.mask_logits.shape == (2, 1, *size)
    assert output.class_maps.shape == (2, 3, -(-size[0] // 16), -(-size[1] // 16))
    assert output.features.shape[-2:] == output.class_maps.shape[-2:]
    assert all(tensor.isfinite().all() for tensor in output[:4]) and output.disagreement is None


@pytest.mark.parametrize("weights", [None, "lite0"])
def test_normalisation_happens_inside_the_network(weights: str | None) -> None:
    network = LungNetwork(ModelConfig(encoder="tu-tf_efficientnet_lite0", encoder_weights=weights), classes=3)
    expected = (0.5, 0.25) if weights is None else (127 / 255, 128 / 255)
    assert (float(network.mean), float(network.std)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "architecture",
    ["Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3Plus", "UPerNet", "Segformer"],
)
def test_architectures_of_smp_by_name(architecture: str) -> None:
    depth = None if architecture == "PSPNet" else 5
    network = _network(ModelConfig(architecture=architecture, encoder="resnet18", encoder_depth=depth))
    output = network(torch.rand(2, 1, 64, 64))
    assert output.mask_logits.shape == (2, 1, 64, 64)
    torch.testing.assert_close(output.class_logits, output.class_maps.mean((2, 3)) + network.classifier.bias)


@pytest.mark.parametrize(
    ("architecture", "encoder", "size"),
    [
        ("PAN", "resnet18", 256),
        ("Unet", "mit_b0", 64),
        *(
            pytest.param("Unet", f"tu-{name}", size, marks=pytest.mark.slow)
            for name, size in (
                *(("maxvit_pico_rw_256", 256), ("maxxvit_rmlp_nano_rw_256", 256), ("coatnet_pico_rw_224", 224)),
                *(("gcvit_xxtiny", 224), ("efficientformerv2_s0", 224), ("hiera_tiny_224", 224)),
                *(("swinv2_cr_tiny_224", 224), ("convnext_atto", 64), ("mobilenetv4_conv_small_035", 64)),
                *(("regnetx_002", 64), ("efficientvit_b0", 64), ("nextvit_small", 64), ("vgg11_bn", 64)),
            )
        ),
    ],
)
def test_what_smp_builds_is_built(architecture: str, encoder: str, size: int) -> None:
    """With the images that it takes, and the same network as smp's own, but for what no output depends on."""
    config = ModelConfig(architecture=architecture, encoder=encoder, encoder_depth=None)
    network = LungNetwork(config, 3)
    network.check_takes(size, 2)
    plain = smp.create_model(architecture.lower(), encoder, encoder_weights=None, in_channels=1, classes=1)
    assert {n: t.shape for n, t in network.segmenter.state_dict().items()} == {
        n: t.shape for n, t in plain.state_dict().items()
    }


@pytest.mark.parametrize(("architecture", "size", "batch"), [("DeepLabV3", 64, 1), ("UPerNet", 64, 1)])
def test_what_cannot_run_is_one_line_and_changes_nothing(architecture: str, size: int, batch: int) -> None:
    torch.manual_seed(0)
    network = LungNetwork(ModelConfig(architecture=architecture, encoder="resnet18", encoder_depth=None), 3)
    before, drawn = {n: t.clone() for n, t in network.state_dict().items()}, torch.random.get_rng_state()
    with pytest.raises(UserError, match=rf"model: this network takes no batch of {batch} images of {size} px \("):
        network.check_takes(size, batch)
    network.check_takes(size, 2)
    assert network.training and torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_infection_adds_a_mask_channel(tiny_model: ModelConfig) -> None:
    assert _network(dataclasses.replace(tiny_model, infection=True))(torch.rand(1, 1, 64, 64)).mask_logits.shape[1] == 2


def test_bfloat16_autocast_keeps_logits_exact_to_their_maps(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.rand(2, 1, 64, 64))
    assert output.mask_logits.dtype == output.class_logits.dtype == output.class_maps.dtype == torch.float32
    torch.testing.assert_close(output.class_logits, output.class_maps.mean((2, 3)) + network.classifier.bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet43"}, r"model.encoder: unknown encoder 'resnet43'; did you mean 'resnet34'"),
        ({"encoder": "tu-resnet1t8"}, r"model.encoder: unknown encoder 'tu-resnet1t8'; did you mean 'tu-resnet18"),
        ({"architecture": "Unett"}, r"model.architecture: unknown architecture 'Unett'; choose from Unet,"),
        ({"decoder_channels": [16, 8]}, r"model: Unet with .* cannot be built"),
        ({"architecture": "FPN", "decoder_channels": [16]}, r"model.decoder_channels: FPN has no such option"),
        ({"encoder": "resnet18", "drop_path": 0.1}, r"model.drop_path: encoder 'resnet18' has no such option"),
        ({"encoder": "tu-vgg11", "drop_path": 0.1}, r"model: Unet with 'tu-vgg11' cannot be built: .*drop_path_rate"),
    ],
)
def test_a_network_that_cannot_be_built_says_which_key(tiny_model: ModelConfig, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LungNetwork(dataclasses.replace(tiny_model, **changes), classes=3)


def test_stochastic_depth_acts_in_training_and_not_after(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, encoder="tu-resnet18", drop_path=0.9))
    image = torch.rand(4, 1, 64, 64)
    assert torch.equal(network(image).class_maps, network(image).class_maps)
    encoder = network.segmenter.encoder.train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.ones_(module.eval().weight)  # timm starts the last of a block at 0
    assert not torch.equal(network(image).class_maps, network(image).class_maps)


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("head", ["linear", "conv"])
def test_finer_maps_have_the_stride_asked_for_and_stay_exact(tiny_model: ModelConfig, stride: int, head: str) -> None:
    network = _network(dataclasses.replace(tiny_model, map_stride=stride, head=head, head_channels=8))
    output = network(torch.rand(2, 1, 50, 64))
    assert (network.stride, network.multiple) == (stride, 16)
    assert output.class_maps.shape == (2, 3, 64 // stride, 64 // stride)
    assert output.mask_logits.shape == (2, 1, 50, 64)
    expected = output.class_maps.mean(dim=(2, 3)) + network.classifier.bias
    torch.testing.assert_close(output.class_logits, expected)


def test_finer_maps_read_every_stage_down_to_the_deepest(tiny_model: ModelConfig) -> None:
    network = _network(dataclasses.replace(tiny_model, map_stride=4))
    assert network.merge is not None
    widths = [int(lateral[0].in_channels) for lateral in network.merge.laterals]  # type: ignore[index, arg-type]
    assert widths == list(network.segmenter.encoder.out_channels[2:])
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = network(image).class_logits
        for lateral in network.merge.laterals:
            kept = lateral[0].weight.clone()  # type: ignore[index]
            lateral[0].weight.zero_()  # type: ignore[index]
            assert not torch.allclose(network(image).class_logits, before)
            lateral[0].weight.copy_(kept)  # type: ignore[index]


def test_the_encoders_own_stride_merges_nothing(tiny_model: ModelConfig) -> None:
    assert LungNetwork(dataclasses.replace(tiny_model, map_stride=16), classes=3).merge is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map_stride": 16, "encoder_depth": 3, "decoder_channels": [8, 8, 8]}, "deepest stride is 8, got 16"),
        (
            {
                "architecture": "DPT",
                "encoder": "tu-vit_tiny_patch16_224",
                "encoder_depth": 4,
                "map_stride": 8,
                "decoder_channels": None,
            },
            "no pyramid",
        ),
    ],
)
def test_a_map_stride_that_the_encoder_lacks_is_refused(
    tiny_model: ModelConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LungNetwork(dataclasses.replace(tiny_model, **change), classes=3)


@pytest.mark.parametrize("change", [{}, {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}])
def test_what_no_output_depends_on_is_frozen_and_all_else_learns(
    tiny_model: ModelConfig, change: dict[str, object]
) -> None:
    network = LungNetwork(dataclasses.replace(tiny_model, **change), classes=3)
    output = network(torch.rand(2, 1, 64, 64))
    (output.mask_logits.sum() + output.class_logits.sum()).backward()
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen and all(name.startswith("segmenter.encoder.") for name in frozen)
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
    assert network.training and all(child.training for child in network.modules())
