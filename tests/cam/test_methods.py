from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lungseg.cam.layers import layer_names, layer_stride, read_layer
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import METHODS, channel_scores, class_activation_map, class_map_of
from lungseg.config import ModelConfig
from lungseg.models.network import LungNetwork

BY_GRADIENT = ("grad_cam", "grad_cam_pp", "hires_cam", "layer_cam")
IMAGES = torch.rand(3, 1, 48, 60, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([2, 0, 1])


MADE: dict[str, LungNetwork] = {}
CASES = [(method, "features") for method in METHODS] + [(method, "encoder.2") for method in METHODS if method != "cam"]
CASES += [("eigen_cam", "decoder.2"), ("score_cam", "decoder.2")]


def _network(config: ModelConfig, **changes: Any) -> LungNetwork:
    """Made once for each config; no test changes it."""
    config = dataclasses.replace(config, **{"head_channels": 8} | changes)
    if str(config) not in MADE:
        MADE[str(config)] = _made(config)
    return MADE[str(config)]


def _made(config: ModelConfig) -> LungNetwork:
    torch.manual_seed(0)
    network = LungNetwork(config, classes=3)
    torch.nn.init.normal_(network.classifier.bias)
    with torch.no_grad():
        for _ in range(10):
            network(torch.rand(4, 1, 64, 64))  # BatchNorm gets statistics
        network.classifier.project.weight.mul_(10)
    return network.eval()


@pytest.fixture(params=["linear-average", "conv-average", "linear-lung", "conv-lung"])
def network(tiny_model: ModelConfig, request: pytest.FixtureRequest) -> LungNetwork:
    head, pooling = request.param.split("-")
    return _network(tiny_model, head=head, pooling=pooling)


def test_pooled_class_maps_plus_bias_are_the_class_logits(network: LungNetwork) -> None:
    with torch.no_grad():
        output = network(IMAGES)
    weights = torch.ones(3, 1, 3, 4)
    if network.classifier.pooling == "lung":
        weights = torch.nn.functional.adaptive_avg_pool2d(output.mask_logits.sigmoid(), (3, 4))
    pooled = (output.class_maps * weights).sum((2, 3)) / weights.sum((2, 3))
    torch.testing.assert_close(pooled + network.classifier.bias, output.class_logits)


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_positive_closed_form_is_grad_cam_times_the_number_of_pixels(tiny_model: ModelConfig, head: str) -> None:
    network = _network(tiny_model, head=head, pooling="average")
    closed, grad_cam = (METHODS[name](network, IMAGES, CLASSES) for name in ("cam", "grad_cam"))
    torch.testing.assert_close(closed.relu(), 3 * 4 * grad_cam)
    assert closed.max() > 0 > closed.min()


def test_hires_cam_of_the_features_sums_to_the_logit_without_its_bias(network: LungNetwork) -> None:
    """With any pooling: it is the class map times the pooling's weights."""
    sums = METHODS["hires_cam"](network, IMAGES, CLASSES).sum((1, 2))
    logits = network(IMAGES).class_logits[torch.arange(3), CLASSES]
    torch.testing.assert_close(sums + network.classifier.bias[CLASSES], logits)


def test_closed_form_is_the_class_map_of_the_output(network: LungNetwork) -> None:
    with torch.no_grad():
        output = network(IMAGES)
    closed = METHODS["cam"](network, IMAGES, CLASSES)
    assert torch.equal(closed, class_map_of(output, CLASSES)) and torch.equal(closed[0], output.class_maps[0, 2])


def test_layer_cam_of_the_features_keeps_channels_that_speak_for_the_class(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    weight = network.classifier.project.weight[:, :, 0, 0]
    positive = (weight - weight.mean(0))[CLASSES].relu()
    expected = torch.einsum("bk,bkhw->bhw", positive, network(IMAGES).features).relu() / 12
    torch.testing.assert_close(METHODS["layer_cam"](network, IMAGES, CLASSES), expected.detach())


@pytest.mark.parametrize(("method", "layer"), CASES)
def test_a_batch_gives_what_its_images_give_alone(tiny_model: ModelConfig, method: str, layer: str) -> None:
    network = _network(tiny_model, head="conv", pooling="lung")
    batch = class_activation_map(network, IMAGES, CLASSES, method, layer)
    stride = layer_stride(network, layer)
    assert batch.shape == (3, 48 // stride, 64 // stride) and batch.dtype == torch.float32
    assert batch.abs().sum() > 0 and not batch.requires_grad
    alone = [class_activation_map(network, IMAGES[i : i + 1], CLASSES[i : i + 1], method, layer) for i in range(3)]
    scale = float(batch.abs().max())
    torch.testing.assert_close(batch / scale, torch.cat(alone) / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_target_is_the_predicted_class_a_class_for_all_or_one_for_each(tiny_model: ModelConfig, method: str) -> None:
    network = _network(tiny_model)
    with torch.no_grad():
        predicted = network(IMAGES).class_logits.argmax(1)
    one, each = (class_activation_map(network, IMAGES, t, method) for t in (1, torch.ones(3, dtype=torch.int64)))
    assert torch.equal(one, each)
    assert torch.equal(class_activation_map(network, IMAGES, None, method), METHODS[method](network, IMAGES, predicted))
    other = class_activation_map(network, IMAGES, 2, method)
    assert torch.equal(one, other) == (method == "eigen_cam")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "target: classes are 0 to 2, got 3"),
        (torch.tensor([0, 1, -1]), r"target: classes are 0 to 2, got \[0, 1, -1\]"),
        (torch.tensor([0, 1]), r"target: must be an int, or int64 of shape \(3,\), got torch.int64 of shape \(2,\)"),
        (torch.zeros(3), r"target: must be an int, or int64 of shape \(3,\), got torch.float32"),
    ],
)
def test_a_target_that_is_no_class_is_refused(tiny_model: ModelConfig, target: Tensor | int, message: str) -> None:
    for method in METHODS:
        with pytest.raises(ValueError, match=message):
            class_activation_map(_network(tiny_model), IMAGES, target, method)


def test_unknown_methods_and_layers_are_answered_with_the_nearest(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    with pytest.raises(ValueError, match="method: unknown method 'gradcam'; did you mean 'grad_cam'"):
        class_activation_map(network, IMAGES, method="gradcam")
    with pytest.raises(ValueError, match="unknown method 'xyz'; choose from cam, grad_cam"):
        class_activation_map(network, IMAGES, method="xyz")
    for method in METHODS:
        with pytest.raises(ValueError, match=r"'encoder.9'"):
            class_activation_map(network, IMAGES, method=method, layer="encoder.9")


def test_methods_by_gradient_are_refused_where_the_class_does_not_come_from(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model, pooling="lung")
    for method in BY_GRADIENT:
        with pytest.raises(ValueError, match=r"do not depend on the output 'decoder.1'.* take 'eigen_cam' or 'score_"):
            class_activation_map(network, IMAGES, method=method, layer="decoder.1")
    with pytest.raises(ValueError, match=r"method 'cam' is defined at 'features' only, got 'encoder.1'"):
        class_activation_map(network, IMAGES, layer="encoder.1")


def test_a_stage_that_leads_to_the_mask_alone_is_refused(tiny_model: ModelConfig) -> None:
    """As of encoders with parallel branches (HRNet): here the classifier is cut off."""
    network = _made(tiny_model)
    network.classifier.register_forward_pre_hook(lambda _, given: (given[0].detach(), given[1]))
    with pytest.raises(ValueError, match=r"the class logits do not depend on the output 'encoder.4'"):
        class_activation_map(network, IMAGES, method="grad_cam", layer="encoder.4")


def test_all_layers_take_a_gradient_with_finer_maps(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model, map_stride=8)
    for layer in layer_names(network):
        if not layer.startswith("decoder"):
            assert class_activation_map(network, IMAGES, 0, "hires_cam", layer).abs().sum() > 0
    closed, grad_cam = (METHODS[name](network, IMAGES, CLASSES) for name in ("cam", "grad_cam"))
    torch.testing.assert_close(closed.relu(), 6 * 8 * grad_cam)


@pytest.mark.parametrize("layer", ["features", "encoder.1"])
def test_eigen_cam_is_the_direction_of_most_variance_and_high_where_the_layer_is_active(
    tiny_model: ModelConfig, layer: str
) -> None:
    """Fewer pixels than channels (features) and more (encoder.1)."""
    network = _network(tiny_model)
    activation = read_layer(network, IMAGES, layer)[1].double().flatten(2)
    cams = METHODS["eigen_cam"](network, IMAGES, CLASSES, layer).double().flatten(1)
    for cam, pixels in zip(cams, activation, strict=True):
        centred = pixels - pixels.mean(1, keepdim=True)
        singular = torch.linalg.svdvals(centred)
        torch.testing.assert_close(cam.norm(), singular[0], rtol=1e-5, atol=0)
        torch.testing.assert_close((centred @ cam).norm() / cam.norm(), singular[0], rtol=1e-5, atol=0)
        assert torch.corrcoef(torch.stack([cam, pixels.square().sum(0)]))[0, 1] > 0


def test_eigen_cam_is_zero_for_a_layer_without_variance_and_nan_for_one_that_is_not_finite(
    tiny_model: ModelConfig,
) -> None:
    network = _network(tiny_model)
    images = IMAGES.clone()
    images[1] = torch.nan
    project = network.classifier.dropout.register_forward_hook(
        lambda _, __, given: torch.where(given != given, given, 1)
    )
    cam = METHODS["eigen_cam"](network, images, CLASSES)
    project.remove()
    assert (cam[[0, 2]] == 0).all() and cam[1].isnan().all()


def test_score_cam_sees_few_images_at_a_time_whatever_the_chunk(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    activation = read_layer(network, IMAGES, "features")[1]
    seen: list[int] = []
    handle = network.segmenter.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    whole, parts = (channel_scores(network, IMAGES, activation, CLASSES, 16, chunk) for chunk in (1000, 7))
    handle.remove()
    count = 3 * activation.shape[1]
    assert seen[0] == count and max(seen[1:]) == 7 and sum(seen) == 2 * count
    torch.testing.assert_close(whole, parts)


def test_score_cam_scores_are_the_logits_of_images_seen_through_each_channel(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model)
    activation = read_layer(network, IMAGES, "encoder.3")[1]
    scores = channel_scores(network, IMAGES, activation, CLASSES, 8)
    mask = resize_map(activation[1, 4:5], 8, (48, 60))
    mask = (mask - mask.min()) / (mask.max() - mask.min())
    torch.testing.assert_close(scores[1, 4], network(IMAGES[1:2] * mask[None]).class_logits[0, 0])
    expected = torch.einsum("bk,bkhw->bhw", scores.softmax(1), activation).relu()
    torch.testing.assert_close(METHODS["score_cam"](network, IMAGES, CLASSES, "encoder.3"), expected)
