"""The layers a class activation map can be taken at: their names, their strides, and running a network up to one.

`features` is what the classifier's 1x1 convolution reads, `encoder.1` to `encoder.N` are the outputs of the encoder's
stages (N the deepest), `decoder.1`, ... those of the decoder's blocks, coarse to fine, where it has blocks.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lungseg.cam.state import eager, ordinary, undisturbed
from lungseg.errors import UserError, did_you_mean
from lungseg.models.ensemble import Ensemble
from lungseg.models.network import LungNetwork, LungOutput

FEATURES = "features"
Layout = Literal["maps", "pixels", "tokens"]
"""(B, K, h, w), (B, h, w, K), or (B, P + h * w, K) with P tokens that belong to no pixel."""


def layer_names(network: nn.Module) -> list[str]:
    """All layers of a network, the default first."""
    return list(_strides(eager(network)))


def layer_stride(network: nn.Module, layer: str) -> int:
    """Input pixels per pixel of a layer's map; what `resize_map` takes.

    Raises:
        UserError: Unknown layer.
    """
    strides = _strides(eager(network))
    if layer not in strides:
        near = did_you_mean(difflib.get_close_matches(layer, strides, n=3, cutoff=0.5))
        hint = near or f"; choose from {', '.join(strides)}"
        raise UserError(f"layer: this network has no layer {layer!r}{hint}")
    return strides[layer]


def read_layer(network: nn.Module, images: Tensor, layer: str) -> tuple[LungOutput, Tensor]:
    """Run a network on images (B, 1, H, W) float32 in [0, 1] and keep what one layer gives; no gradients.

    The network is a `LungNetwork`, compiled or not, in any mode.

    Returns:
        The output, and the activation (B, K, h, w) in the pass's own dtype; h = ceil(H / stride) with padding.

    Raises:
        UserError: Unknown layer.
    """
    layer_stride(network, layer)
    with undisturbed(network) as plain, torch.no_grad():
        if layer == FEATURES:
            output: LungOutput = plain(ordinary(images))
            return output, output.features
        caught: list[Any] = []
        with _hooked([_holder(plain, layer)], lambda _, __, given: caught.append(given)):
            output = plain(ordinary(images))
    return output, _stages(caught[0], plain)[layer] if layer.startswith("encoder.") else caught[0]


def encoder_outputs(network: LungNetwork, images: Tensor) -> dict[str, Tensor]:
    """Run a network, as it is, and give every stage of its encoder by layer, shallowest first."""
    caught: list[Any] = []
    with _hooked([network.segmenter.encoder], lambda _, __, given: caught.append(given)):
        network(images)
    return _stages(caught[0], network)


def run_to_layer(network: nn.Module, images: Tensor, layer: str) -> tuple[LungOutput, Tensor]:
    """Run a network such that `torch.autograd.grad` of its output with respect to one layer can be taken.

    The pass records gradients from that layer on only: its activation is cut out, made a leaf, and put back by a
    forward hook that is gone afterwards. No parameter has to require gradients, and none gets one. Arguments are those
    of `read_layer`.

    Returns:
        The output, and the activation (B, K, h, w), a leaf that requires gradients, in the pass's own dtype. The class
        logits do not depend on layers of the decoder.

    Raises:
        UserError: Unknown layer, or a stage that no module of the encoder puts out.
    """
    layer_stride(network, layer)
    leaves: list[Tensor] = []
    calls = 0
    with undisturbed(network) as plain, torch.no_grad():
        images = ordinary(images)
        carrier = _carrier(plain, images, layer)

        def splice(_: nn.Module, __: Any, carried: Tensor) -> Tensor | None:
            nonlocal calls
            calls += 1
            if calls != carrier.call:
                return None
            leaves.append(_unpack(carried, carrier.layout, carrier.size).detach().clone().requires_grad_())
            torch.set_grad_enabled(True)  # until `no_grad` above ends
            return carrier.pack(leaves[0], carried)

        with _hooked([carrier.module], splice):
            output: LungOutput = plain(images)
    return output, leaves[0]


class _Carrier(NamedTuple):
    """The call of a module whose output carries a layer's activation to all that follows."""

    module: nn.Module
    call: int = 1
    layout: Layout = "maps"
    size: tuple[int, int] = (0, 0)

    def pack(self, maps: Tensor, carried: Tensor) -> Tensor:
        """The module's own layout from (B, K, h, w); `carried` gives the tokens that belong to no pixel."""
        if self.layout == "maps":
            return maps
        if self.layout == "pixels":
            return maps.permute(0, 2, 3, 1)
        pixels = maps.flatten(2).transpose(1, 2)
        return torch.cat([carried[:, : carried.shape[1] - pixels.shape[1]], pixels], dim=1)


def _unpack(carried: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """(B, K, h, w) from a module's own layout."""
    if layout == "maps":
        return carried
    if layout == "pixels":
        return carried.permute(0, 3, 1, 2)
    pixels = carried[:, -size[0] * size[1] :].transpose(1, 2)
    return pixels.reshape(*pixels.shape[:2], *size)


def _carrier(network: LungNetwork, images: Tensor, layer: str) -> _Carrier:
    """Where to cut a layer out."""
    if isinstance(network, Ensemble):
        raise UserError("method: an ensemble has no gradient at one layer; take cam, or one of its members")
    if layer == FEATURES:
        if network.classifier is None:
            raise UserError(f"layer: {FEATURES!r} is read by the classifier, which this network has not")
        return _Carrier(network.classifier.dropout)
    if layer.startswith("decoder."):
        return _Carrier(_holder(network, layer))
    return _carrier_of_stage(network, images[:1], layer)


def _carrier_of_stage(network: LungNetwork, image: Tensor, layer: str) -> _Carrier:
    """Find the first module whose output is a stage of the encoder, by running one image.

    Encoders differ in where a stage ends, and some hand on copies in another layout (Swin: channels last, ViT: tokens)
    that nothing else reads; so a module's output is compared with the stage, in all layouts.
    """
    calls: Counter[nn.Module] = Counter()
    seen: list[tuple[nn.Module, int, Tensor, Tensor]] = []

    def record(module: nn.Module, _: Any, given: Any) -> None:
        calls[module] += 1
        if isinstance(given, Tensor):
            seen.append((module, calls[module], given, given.clone()))

    with _hooked(list(network.segmenter.encoder.modules())[1:], record):
        stage = encoder_outputs(network, image)[layer]
    size = (stage.shape[-2], stage.shape[-1])
    # What a later module changed in place is not what its own module gave: a gradient there would leave the change out.
    same = [torch.allclose(given, copy, rtol=0, atol=0, equal_nan=True) for _, _, given, copy in seen]
    kept = [(module, call, given) for (module, call, given, _), unchanged in zip(seen, same, strict=True) if unchanged]
    for module, call, given in kept:
        if given is stage:
            return _Carrier(module, call)
    for module, call, given in kept:
        for layout in _layouts(given, stage):
            if torch.equal(_unpack(given, layout, size), stage):
                return _Carrier(module, call, layout, size)
    raise UserError(f"layer {layer!r}: no module of this encoder puts it out, so no gradient can be taken there")


def _layouts(given: Tensor, stage: Tensor) -> list[Layout]:
    """The layouts in which a tensor could hold a stage (1, K, h, w)."""
    _, channels, height, width = stage.shape
    shape = given.shape[1:]
    fits: dict[Layout, bool] = {
        "maps": shape == stage.shape[1:],
        "pixels": shape == (height, width, channels),
        "tokens": len(shape) == 2 and shape[0] >= height * width and shape[1] == channels,
    }
    return [layout for layout, fit in fits.items() if fit]


def _stages(encoded: Any, network: LungNetwork) -> dict[str, Tensor]:
    """The stages in what the encoder gives, by layer; vision transformers (DPT) give (stages, prefix tokens)."""
    stages = encoded[0] if isinstance(encoded, tuple) else encoded
    return {f"encoder.{number}": stage for number, stage in enumerate(stages[-_depth(network) :], 1)}


def _holder(network: LungNetwork, layer: str) -> nn.Module:
    """The module whose output holds a layer: the encoder all its stages, a decoder's block itself."""
    if layer.startswith("encoder."):
        encoder: nn.Module = network.segmenter.encoder
        return encoder
    return [block for _, block in _decoder_blocks(network)][int(layer.removeprefix("decoder.")) - 1]


def _depth(network: LungNetwork) -> int:
    """Number of the encoder's stages; encoders other than those of DPT also hand the image on, as stage 0."""
    encoder = network.segmenter.encoder
    return len(encoder.out_channels) - (0 if hasattr(encoder, "output_strides") else 1)


def _strides(network: LungNetwork) -> dict[str, int]:
    """Every layer's stride. Stages without channels, which stand in where transformers have none, are no layers."""
    if isinstance(network, Ensemble):
        return {FEATURES: network.stride}
    encoder, depth = network.segmenter.encoder, _depth(network)
    deepest = int(encoder.output_stride)
    own = getattr(encoder, "output_strides", [min(2**k, deepest) for k in range(1, depth + 1)])
    stages = zip(own, encoder.out_channels[-depth:], strict=True)
    strides = {FEATURES: network.stride}
    strides |= {f"encoder.{k}": int(stride) for k, (stride, channels) in enumerate(stages, 1) if channels}
    return strides | {f"decoder.{k}": stride for k, (stride, _) in enumerate(_decoder_blocks(network), 1)}


def _decoder_blocks(network: LungNetwork) -> list[tuple[int, nn.Module]]:
    """(stride, block) of every decoder block with an output; U-Net++ names its blocks `x_{row}_{column}`."""
    blocks = getattr(network.segmenter.decoder, "blocks", None)
    depth, deepest = _depth(network), int(network.segmenter.encoder.output_stride)
    if isinstance(blocks, nn.ModuleDict):
        grid = [(int(name.split("_")[-1]) + 1, block) for name, block in blocks.items()]
        return [(deepest >> level, block) for level, block in grid if not block.is_empty]
    return [(min(2 ** (depth - k), deepest), block) for k, block in enumerate(blocks or [], 1)]


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """A forward hook on each module, before all others there, for as long as the block lasts."""
    handles = [module.register_forward_hook(hook, prepend=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
