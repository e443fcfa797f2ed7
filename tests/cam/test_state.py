from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lungseg.cam.state import eager, evaluating, ordinary, undisturbed, with_gradients


def test_modes_of_every_layer_are_restored() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    network[1].eval()
    with pytest.raises(RuntimeError, match="inside"), evaluating(network):
        assert not network[0].training
        raise RuntimeError("inside")
    assert network[0].training and not network[1].training


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_can_be_taken_anywhere_and_the_mode_around_is_restored(around: Any) -> None:
    with around():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        images = torch.ones(2)
        with with_gradients():
            leaf = ordinary(images).requires_grad_()
            (gradient,) = torch.autograd.grad((leaf**3).sum(), leaf)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert gradient.tolist() == [3, 3] and not images.requires_grad


def test_autocast_keeps_no_weights_cast_inside() -> None:
    layer = nn.Linear(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="inside"), with_gradients():
            assert not torch.is_autocast_cache_enabled()
            with torch.no_grad():
                layer(torch.ones(1, 2))
            raise RuntimeError("inside")
        assert torch.is_autocast_cache_enabled()
        layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None


def test_ordinary_tensors_share_memory_and_only_inference_tensors_are_copied() -> None:
    images = torch.ones(2, requires_grad=True)
    assert ordinary(images).data_ptr() == images.data_ptr() and not ordinary(images).requires_grad
    with torch.inference_mode():
        made = torch.ones(2)
    assert made.is_inference() and not ordinary(made).is_inference()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_unwrapped_and_runs_as_written_inside(in_place: bool) -> None:
    runs = []

    def backend(graph: Any, _: Any) -> Any:
        runs.append(graph)
        return graph.forward

    network: Any = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled: Any = network if in_place else torch.compile(network, backend=backend)
    if in_place:
        network.compile(backend=backend)
    assert eager(compiled) is network
    with undisturbed(compiled) as plain:
        assert plain is network
        compiled(torch.ones(1, 2))
    assert not runs
    for _ in range(2):
        compiled(torch.ones(1, 2))
        with undisturbed(compiled):
            pass
    assert len(runs) == 1, "compiled code is kept"
