"""Methods that give a class activation map, each a function `(network, images, target, layer) -> (B, h, w)`.

All take a `LungNetwork`, compiled or not, in any mode, and leave it, its gradients and its random state untouched: they
can be called anywhere in training. The score S that gradients are taken of is the class logit. Maps are raw, at the
layer's size; `resize_map(cam, layer_stride(network, layer), size)` brings them to the image.
"""

import difflib
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.cam.layers import FEATURES, layer_stride, read_layer, run_to_layer
from lungseg.cam.lung import resize_map
from lungseg.cam.state import ordinary, undisturbed, with_gradients
from lungseg.errors import UserError
from lungseg.models.network import LungOutput

Target = Tensor | int | None
"""(B,) int64 class of each image, one class for all, or None: the class predicted for each."""
CHUNK = 32  # Most masked images in one pass of Score-CAM.


class Method(Protocol):
    """A method that gives a class activation map."""

    def __call__(self, network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
        """(B, 1, H, W) float32 in [0, 1] -> (B, h, w) float32."""


def class_activation_map(
    network: nn.Module, images: Tensor, target: Target = None, method: str = "cam", layer: str = FEATURES
) -> Tensor:
    """Map of where the evidence for a class lies.

    Args:
        network: A `LungNetwork`.
        images: (B, 1, H, W) float32 in [0, 1].
        target: Class whose evidence is asked for; None is the predicted one.
        method: A key of `METHODS`.
        layer: One of `layer_names(network)`.

    Returns:
        (B, h, w) float32; range and sign are the method's.

    Raises:
        UserError: Unknown method, layer or class, or a layer that the method cannot be applied to.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(METHODS)}"
        raise UserError(f"method: unknown method {method!r}; {hint}")
    return METHODS[method](network, images, target, layer)


def class_map_of(output: LungOutput, target: Tensor) -> Tensor:
    """Closed-form CAM: the class map itself, exact and in the same pass.

    `M_c(x, y) = sum_k (w_ck - mean_c w_ck) f_k(x, y)`, whose pooled value plus bias is the class logit.
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

    Args:
        output: What the network gave for a batch.
        target: (B,) int64 class of each image.

    Returns:
        (B, h, w) float32, any sign.
    """
    return _of_class(output.class_maps, target)


def cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """Closed-form CAM of a network, see `class_map_of`; `features` only; any sign. A given class needs no decoder."""
    if layer != FEATURES:
        raise UserError(f"layer: method 'cam' is defined at {FEATURES!r} only, got {layer!r}; take another method")
    if target is None:
        output, _ = read_layer(network, images, layer)
        return class_map_of(output, _classes(output.class_logits, target))
    with undisturbed(network) as plain, torch.no_grad():
        maps = plain.class_maps(ordinary(images))
    return _of_class(maps, _classes(maps[..., 0, 0], target))


def grad_cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """Grad-CAM: `relu(sum_k w_k A_k)` with `w_k = mean_xy dS/dA_k(x, y)`. 0 or more.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
    """
    activation, gradient = _activation_and_gradient(network, images, target, layer)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).relu()


def grad_cam_pp(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """Grad-CAM++: `relu(sum_k w_k A_k)` with `w_k = sum_xy a_k(x, y) relu(dS/dA_k(x, y))`. 0 or more.

    `a = g^2 / (2 g^2 + g^3 sum_xy A_k)` with g = dS/dA_k(x, y), that is `1 / (2 + g sum_xy A_k)`, and 0 where g is 0.
    The paper's factor exp(S), equal for all pixels, is left out. Meant for activations of 0 or more: others can bring
    the denominator to 0. The package grad-cam adds 1e-6 to the first form's denominator, which drowns g^2 where
    gradients are around 1e-3, as they are behind an average pooling; here nothing is added.
    Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
    WACV 2018.
    """
    activation, gradient = _activation_and_gradient(network, images, target, layer)
    positive = gradient.relu()
    denominator = 2 + positive * activation.sum(dim=(2, 3), keepdim=True)
    weights = torch.where(denominator == 0, 0, positive / denominator).sum(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).relu()


def hires_cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """HiResCAM: `sum_k dS/dA_k(x, y) A_k(x, y)`. Any sign; at `features` its sum plus the class's bias is the logit.

    Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv 2011.08891, 2020.
    """
    activation, gradient = _activation_and_gradient(network, images, target, layer)
    return (gradient * activation).sum(dim=1)


def layer_cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """LayerCAM: `relu(sum_k relu(dS/dA_k(x, y)) A_k(x, y))`. 0 or more; made for early layers too.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021.
    """
    activation, gradient = _activation_and_gradient(network, images, target, layer)
    return (gradient.relu() * activation).sum(dim=1).relu()


def eigen_cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """EigenCAM: the activation's first principal component, `A v_1`. Any sign; the same for every class.

    A is (h * w, K) with its mean over the pixels taken from each channel, `A = U S V^T`. The paper does not centre; the
    package grad-cam does, and so does this: uncentred, the first component is little more than the mean activation.
    The sign of v_1 is arbitrary: it is chosen such that the map correlates positively with `sum_k A_k(x, y)^2` before
    centring, so that the map is high where the layer is active. NaN where the activation is not finite.
    Muhammad, Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020.
    """
    output, activation = read_layer(network, images, layer)
    _classes(output.class_logits, target)
    pixels = activation.double().flatten(2).transpose(1, 2)
    finite = pixels.isfinite().all(dim=(1, 2)).view(-1, 1)
    pixels = torch.where(finite[..., None], pixels, 0)
    projection = _first_component(pixels - pixels.mean(dim=1, keepdim=True))
    covariance = (projection * pixels.square().sum(dim=2)).sum(dim=1, keepdim=True)  # the projection's mean is 0
    signed = torch.where(covariance < 0, -projection, projection)
    return torch.where(finite, signed, torch.nan).float().view(len(images), *activation.shape[-2:])


def score_cam(network: nn.Module, images: Tensor, target: Target, layer: str = FEATURES) -> Tensor:
    """Score-CAM: `relu(sum_k w_k A_k)` with `w = softmax_k S(image * H_k)`. 0 or more.

    H_k is A_k upsampled to the image and scaled to [0, 1]. The paper subtracts the logit of a baseline image from every
    score; the softmax does not see it. Costs K passes an image, the prediction of the mask included. Upsampling is
    bilinear between the centres of a map's pixels, as in the authors' code; the package grad-cam aligns the corners
    instead, which moves evidence by up to half a pixel of the map.
    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPRW 2020.
    """
    output, activation = read_layer(network, images, layer)
    classes = _classes(output.class_logits, target)
    scores = channel_scores(network, images, activation, classes, layer_stride(network, layer))
    return (scores.softmax(dim=1)[:, :, None, None] * activation.float()).sum(dim=1).relu()


METHODS: dict[str, Method] = {
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_pp": grad_cam_pp,
    "hires_cam": hires_cam,
    "layer_cam": layer_cam,
    "eigen_cam": eigen_cam,
    "score_cam": score_cam,
}


def _activation_and_gradient(network: nn.Module, images: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    """A layer's activation and the gradient of each image's class logit there, both (B, K, h, w) float32."""
    layer_stride(network, layer)
    independent = (
        f"layer: the class logits do not depend on the output {layer!r}, so no method by gradient works there; "
        f"take 'eigen_cam' or 'score_cam', or layer {FEATURES!r}"
    )
    if layer.startswith("decoder."):
        raise UserError(independent)
    output, activation = run_to_layer(network, images, layer)
    classes = _classes(output.class_logits, target)
    with with_gradients():
        chosen = F.one_hot(classes, output.class_logits.shape[1]).to(output.class_logits)
        (gradient,) = torch.autograd.grad(output.class_logits, activation, chosen, allow_unused=True)
    if gradient is None:
        raise UserError(independent)
    return activation.detach().float(), gradient.float()


def _of_class(class_maps: Tensor, target: Tensor) -> Tensor:
    """(B, C, h, w), (B,) int64 -> (B, h, w): each image's map of its class; without classes all 0."""
    if not class_maps.shape[1]:
        return class_maps.new_zeros(len(class_maps), *class_maps.shape[2:])
    return class_maps.gather(1, target.view(-1, 1, 1, 1).expand(-1, 1, *class_maps.shape[-2:]))[:, 0]


def _classes(class_logits: Tensor, target: Target) -> Tensor:
    """(B,) int64 class of each image."""
    count, known = class_logits.shape
    if not known:
        raise UserError("target: this network knows no classes, so there is no class map")
    if target is None:
        return class_logits.argmax(dim=1)
    classes = torch.as_tensor(target, device=class_logits.device)
    if classes.dtype != torch.int64 or classes.shape not in ((), (count,)):
        raise UserError(
            f"target: must be an int, or int64 of shape ({count},), got {classes.dtype} of shape {tuple(classes.shape)}"
        )
    if bool(((classes < 0) | (classes >= known)).any()):
        raise UserError(f"target: classes are 0 to {known - 1}, got {classes.tolist()!r}")
    return classes.expand(count)


def _first_component(pixels: Tensor) -> Tensor:
    """(B, n, K) float64, centred -> (B, n): the pixels along the direction in which they vary most."""
    if pixels.shape[1] <= pixels.shape[2]:  # the smaller of the two Gram matrices has the same component
        place = _leading(pixels @ pixels.mT)
        length: Tensor = torch.linalg.vector_norm(pixels.mT @ place[..., None], dim=1)
        return place * length
    return (pixels @ _leading(pixels.mT @ pixels)[..., None])[..., 0]


def _leading(matrix: Tensor) -> Tensor:
    """(B, m, m) symmetric -> (B, m) unit eigenvector of the largest eigenvalue."""
    vectors: Tensor = torch.linalg.eigh(matrix).eigenvectors
    return vectors[..., -1]


def channel_scores(
    network: nn.Module, images: Tensor, activation: Tensor, target: Tensor, stride: int, chunk: int = CHUNK
) -> Tensor:
    """Class logit of each image times each channel's activation, upsampled and scaled to [0, 1] over the image.

    Args:
        network: A `LungNetwork`.
        images: (B, 1, H, W) float32 in [0, 1].
        activation: (B, K, h, w) any dtype and range; a channel that is the same everywhere gives a black image.
        target: (B,) int64 class of each image.
        stride: Input pixels per pixel of the activation.
        chunk: Most masked images in one pass; B * K passes' worth in all.

    Returns:
        (B, K) float32.
    """
    count, channels = activation.shape[:2]
    size = (images.shape[-2], images.shape[-1])
    scores = []
    with undisturbed(network) as plain, torch.no_grad():
        images, target = ordinary(images), ordinary(target)
        for part in torch.split(torch.arange(count * channels, device=images.device), chunk):
            image, channel = part // channels, part % channels
            masks = _to_unit_range(resize_map(activation[image, channel], stride, size))
            class_logits = plain.classify(images[image] * masks[:, None])
            scores.append(class_logits.gather(1, target[image, None])[:, 0])
    return torch.cat(scores).view(count, channels)


def _to_unit_range(maps: Tensor) -> Tensor:
    """(N, H, W) float32, each map from its minimum at 0 to its maximum at 1."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + 1e-8)
