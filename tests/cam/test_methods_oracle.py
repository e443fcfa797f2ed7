"""The methods against the package grad-cam, on the network with its other outputs taken off."""

from __future__ import annotations

import copy
import dataclasses
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lungseg.cam.layers import run_to_layer
from lungseg.cam.methods import METHODS
from lungseg.config import ModelConfig
from lungseg.models.network import LungNetwork

TINY = ModelConfig(encoder="tu-mobilenetv3_small_050", encoder_depth=4, decoder_channels=[16, 16, 8, 8], dropout=0.0)
pytestmark = pytest.mark.skipif(find_spec("pytorch_grad_cam") is None, reason="grad-cam is not installed")
THEIRS = {
    "grad_cam": "GradCAM",
    "grad_cam_pp": "GradCAMPlusPlus",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
    "score_cam": "ScoreCAM",
}
CLASSES = torch.tensor([2, 0, 1])


class ClassLogits(nn.Module):
    """What the package can take: one output."""

    def __init__(self, network: LungNetwork):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).class_logits
        return logits


@pytest.fixture(scope="module")
def images() -> Tensor:
    torch.manual_seed(3)
    coarse = torch.rand(3, 1, 8, 8)
    return nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module", params=["linear", "conv"])
def network(images: Tensor, request: pytest.FixtureRequest) -> LungNetwork:
    """BatchNorm has seen the images, so that no layer is near zero."""
    torch.manual_seed(0)
    network = LungNetwork(dataclasses.replace(TINY, head=request.param, head_channels=8), classes=3)
    with torch.no_grad():
        for _ in range(20):
            network(images)
        network.classifier.project.weight.mul_(30)
    return network.eval()


@pytest.fixture
def centres_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one difference in Score-CAM: the package upsamples masks with their corners aligned."""
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))


def _module(network: LungNetwork, layer: str) -> nn.Module:
    """Where the package finds the layer."""
    timm_model = network.segmenter.encoder.model
    return {"features": network.classifier.dropout, "encoder.1": timm_model.act1}[layer]


def _theirs(network: LungNetwork, images: Tensor, method: str, layer: str) -> Any:
    import pytorch_grad_cam as package  # takes seconds
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(c)) for c in CLASSES]
    with getattr(package, THEIRS[method])(ClassLogits(network), [_module(network, layer)]) as cam:
        return cam(images, targets)


def _normalised(cam: Tensor, size: tuple[int, int] = (64, 64)) -> Any:
    """As the package does it: ReLU, scale to [0, 1], resize, scale again."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(scale_cam_image(np.maximum(cam.numpy(), 0), size))


@pytest.mark.parametrize("layer", ["features", "encoder.1"])
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam", "score_cam"])
def test_method_equals_the_package(
    network: LungNetwork, images: Tensor, method: str, layer: str, centres_aligned: None
) -> None:
    ours = _normalised(METHODS[method](network, images, CLASSES, layer))
    theirs = _theirs(network, images, method, layer)
    assert theirs.max() > 0.99, "nothing to compare"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("layer", ["features", "encoder.1"])
def test_eigen_cam_equals_the_package_but_for_its_sign(network: LungNetwork, images: Tensor, layer: str) -> None:
    ours = METHODS["eigen_cam"](network, images, CLASSES, layer)
    theirs = _theirs(network, images, "eigen_cam", layer)
    for cam, their in zip(ours, theirs, strict=True):
        errors = [np.abs(_normalised(sign * cam[None]) - their).max() for sign in (1, -1)]
        assert min(errors) < 1e-4 and max(errors) > 0.5


def test_score_cam_differs_from_the_package_in_upsampling_alone(network: LungNetwork, images: Tensor) -> None:
    """With corners aligned the package moves masks; `test_method_equals_the_package` sets that right and no more."""
    ours = _normalised(METHODS["score_cam"](network, images, CLASSES))
    assert np.abs(ours - _theirs(network, images, "score_cam", "features")).max() > 1e-3


@pytest.mark.parametrize("layer", ["features", "encoder.1"])
@pytest.mark.parametrize("scale", [1e4, 3e-3])
def test_grad_cam_pp_equals_the_package_but_for_the_epsilon_it_adds_to_a_squared_gradient(
    network: LungNetwork, images: Tensor, layer: str, scale: float
) -> None:
    """Equal where gradients are large; at 3e-3, as of an untrained head on a map of 16 x 16, its map changes."""
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled.classifier.project.weight.mul_(scale)
    ours = _normalised(METHODS["grad_cam_pp"](scaled, images, CLASSES, layer))
    theirs = _theirs(scaled, images, "grad_cam_pp", layer)
    np.testing.assert_allclose(_normalised(_published_grad_cam_pp(scaled, images, layer, 1e-6)), theirs, atol=1e-4)
    np.testing.assert_allclose(_normalised(_published_grad_cam_pp(scaled, images, layer, 0.0)), ours, atol=1e-4)
    difference = np.abs(ours - theirs).max()
    assert difference < 1e-4 if scale == 1e4 else difference > 0.01


def _published_grad_cam_pp(network: LungNetwork, images: Tensor, layer: str, eps: float) -> Tensor:
    """Equations 5, 10 and 19 of the paper as they are written, with the package's constant in the denominator."""
    output, activation = run_to_layer(network, images, layer)
    score = output.class_logits[torch.arange(3), CLASSES].sum()
    (g,) = torch.autograd.grad(score, activation)
    a = activation.detach()
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + eps)
    weights = (torch.where(g != 0, alpha, 0) * g.relu()).sum((2, 3), keepdim=True)
    return (weights * a).sum(1)
