"""Training with the compiled network, and without it where it cannot be compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lungseg.config import Config, DataConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from lungseg.fit import fit
from lungseg.models.network import LungNetwork
from lungseg.training.compiling import compile_network


@pytest.fixture
def network(tiny_model: ModelConfig) -> LungNetwork:
    torch.manual_seed(0)
    return LungNetwork(tiny_model, 3)


def test_what_cannot_be_compiled_runs_as_it_is_and_is_said_once(
    network: LungNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def fail(image: Tensor) -> Any:
            raise RuntimeError("no C++\ncompiler")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    run, image = compile_network(network.eval()), torch.rand(2, 1, 64, 64)
    for _ in range(2):
        torch.testing.assert_close(run(image), network(image))
    expected = "trainer.compile: the network could not be compiled, and runs as it is (RuntimeError: no C++ compiler)"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_training_alone_runs_compiled(
    tmp_path: Path, phantoms: Path, tiny_model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    def compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def run(image: Tensor) -> Any:
            seen.append((function.__self__.training, len(image)))  # type: ignore[attr-defined]
            return function(image)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    fit(
        Config(
            run=RunConfig(dir=str(tmp_path), report=False),
            data=DataConfig(root=str(phantoms), image_size=64, batch_size=5, workers=0),
            model=tiny_model,
            trainer=TrainerConfig(max_epochs=1, accelerator="cpu", compile=True),
            wandb=WandbConfig(mode="disabled"),
        )
    )
    assert seen and all(training for training, _ in seen)
    assert len({size for _, size in seen}) == 1, "another size would be compiled anew"


@pytest.mark.slow
def test_the_compiled_network_has_the_same_outputs_and_gradients(network: LungNetwork) -> None:
    image = torch.rand(2, 1, 64, 64)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.train()
    network.segmenter.encoder.eval()  # its drop path would draw anew
    found = []
    for run in (compile_network(network), network):
        output = run(image)
        loss = output.mask_logits.square().mean() + output.class_logits.square().mean()
        found.append((tuple(output), torch.autograd.grad(loss, parameters)))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)
