"""Looking into a network in the middle of anything, training included, and leaving it as it was found."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from lungseg.models.network import LungNetwork


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every sub-module's own mode as it was outside."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


@contextmanager
def with_gradients() -> Iterator[None]:
    """Gradients can be computed inside, even under `no_grad` and `inference_mode`.

    Autocast caches no weights meanwhile: in older torch one cast here, without gradients, would serve the training step
    around as well, whose weights would then get none (pytorch issue 112583).
    """
    cached = torch.is_autocast_cache_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        torch.set_autocast_cache_enabled(False)
        try:
            yield
        finally:
            torch.set_autocast_cache_enabled(cached)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[LungNetwork]:
    """The network to look into: not compiled, evaluating, able to give gradients; all undone afterwards."""
    plain = eager(network)
    with evaluating(plain), with_gradients(), _not_compiling():
        yield plain


def eager(network: nn.Module) -> LungNetwork:
    """The network under `torch.compile`, or itself: hooks of a compiled network are not reliable."""
    return cast(LungNetwork, getattr(network, "_orig_mod", network))


def ordinary(tensor: Tensor) -> Tensor:
    """The same values without history, as a tensor that autograd may keep; call it inside `with_gradients`."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _not_compiling() -> AbstractContextManager[None]:
    """Run compiled parts of a network as they are written; free where nothing was compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))
