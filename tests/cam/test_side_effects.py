"""A class activation map may be asked for anywhere, and nothing shows that it was."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from lungseg.cam.methods import METHODS, class_activation_map
from lungseg.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.datamodule import LungDataModule
from lungseg.models.network import LungNetwork
from lungseg.training.module import LungModule

CASES = [(method, "features") for method in METHODS]
CASES += [("grad_cam", "encoder.2"), ("layer_cam", "encoder.4"), ("eigen_cam", "encoder.3"), ("score_cam", "decoder.3")]
SHALLOW = [*CASES[:-3], ("eigen_cam", "decoder.3")]
AROUND: dict[str, Callable[[], Any]] = {
    "nothing": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "bf16": lambda: torch.autocast("cpu", torch.bfloat16),
}


def _network(config: ModelConfig) -> LungNetwork:
    """In training, with dropout that would show, gradients to lose, and one layer in evaluation mode."""
    torch.manual_seed(0)
    network = LungNetwork(dataclasses.replace(config, head="conv", head_channels=8, dropout=0.5), classes=3)
    network(torch.rand(4, 1, 64, 64)).class_logits.sum().backward()
    network.classifier.module[1].eval()
    return network


@pytest.fixture(scope="module")
def networks() -> tuple[LungNetwork, LungNetwork]:
    """The same network twice, in training and in evaluation."""
    tiny = ModelConfig(encoder="tu-test_efficientnet", encoder_depth=4, decoder_channels=[16, 16, 8, 8])
    network = _network(tiny)
    return network, copy.deepcopy(network).eval()


@pytest.fixture
def shallow(tiny_model: ModelConfig) -> LungNetwork:
    return _network(dataclasses.replace(tiny_model, encoder_depth=3, decoder_channels=[8, 8, 8]))


def _images(count: int = 2) -> Tensor:
    return torch.rand(count, 1, 40, 64, generator=torch.Generator().manual_seed(1))


def _state(network: nn.Module) -> list[Any]:
    """All that a call could leave behind, bit for bit."""
    modules = list(network.modules())
    return [
        {name: value.clone() for name, value in network.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        [p.requires_grad for p in network.parameters()],
        [module.training for module in modules],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        torch.get_rng_state(),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled()),
    ]


@contextlib.contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    before = _state(network)
    yield
    torch.testing.assert_close(_state(network), before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def expected(networks: tuple[LungNetwork, LungNetwork]) -> dict[tuple[str, str], Tensor]:
    """Maps of class 1 from a network in evaluation, by method and layer."""
    return {case: class_activation_map(networks[1], _images(), 1, *case) for case in CASES}


@pytest.mark.parametrize(
    ("around", "frozen"), [*((name, False) for name in AROUND), ("nothing", True), ("inference_mode", True)]
)
def test_every_method_works_in_any_mode_and_changes_nothing(
    networks: tuple[LungNetwork, LungNetwork], expected: dict[tuple[str, str], Tensor], around: str, frozen: bool
) -> None:
    network = networks[0].requires_grad_(not frozen)
    tolerance = 0.2 if around == "bf16" else 1e-5
    for (method, layer), cam in expected.items():
        with AROUND[around]():
            images, target = _images() * 1, torch.ones(2, dtype=torch.int64)  # inference tensors under that mode
            with _unchanged(network):
                got = class_activation_map(network, images, target, method, layer)
        assert got.dtype == torch.float32 and not got.requires_grad
        assert float((got - cam).abs().max()) <= tolerance * float(cam.abs().max()), (method, layer)


def test_a_compiled_network_gives_the_same_maps_and_stays_compiled(shallow: LungNetwork) -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    network = shallow.eval()
    compiled: Any = torch.compile(network, backend=backend)
    with torch.no_grad():
        compiled(_images())
        count = len(graphs)
        for case in SHALLOW:
            cam = class_activation_map(compiled, _images(), 1, *case)
            assert torch.equal(cam, class_activation_map(network, _images(), 1, *case))
        compiled(_images())
    assert len(graphs) == count > 0


def test_a_pass_under_way_can_still_be_differentiated(tiny_model: ModelConfig) -> None:
    network = _network(tiny_model).eval()
    gradients = []
    for ask in (False, True):
        network.zero_grad()
        loss = network(_images()).class_logits.square().sum()
        if ask:
            for method, layer in CASES:
                class_activation_map(network, _images(), 1, method, layer)
        loss.backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_calls_leave_no_tensors_behind(shallow: LungNetwork) -> None:
    images = _images(1)[..., :32, :32]

    def tensors_alive(calls: int) -> int:
        for i in range(calls):
            class_activation_map(shallow, images, None, *SHALLOW[i % len(SHALLOW)])
        gc.collect()
        return sum(issubclass(type(item), Tensor) for item in gc.get_objects())

    assert tensors_alive(len(SHALLOW)) >= tensors_alive(5 * len(SHALLOW))


class _Asking(Callback):
    """Asks for maps wherever Lightning lets it."""

    def __init__(self) -> None:
        self.places: set[str] = set()

    def _ask(self, place: str, module: LightningModule, images: Tensor) -> None:
        self.places.add(place)
        network: Any = module.network
        with _unchanged(network):
            for case in CASES[:: 1 if place == "backward" else 4]:
                cam = class_activation_map(network, images[:1], None, *case)
                assert cam.isfinite().all() and not cam.requires_grad

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch["image"]
        self._ask("start", pl_module, self._batch)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ask("backward", pl_module, self._batch)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, number: int = 0
    ) -> None:
        self._ask(f"validation {torch.is_inference_mode_enabled()}", pl_module, batch["image"])

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, number: int = 0
    ) -> None:
        self._ask(f"test {torch.is_inference_mode_enabled()}", pl_module, batch["image"])


def _train(tiny: ModelConfig, phantoms: Path, callbacks: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    """Fit with gradients accumulated over two batches, validate, test -> weights, random state."""
    seed_everything(0, verbose=False)
    config = dataclasses.replace(tiny, dropout=0.3, head="conv", head_channels=8)
    module = LungModule(config, LossConfig(), OptimConfig(), list(CLASSES), [1.0] * 3)
    data_config = DataConfig(root=str(phantoms), image_size=64, batch_size=6, workers=0)
    data = LungDataModule(data_config, AugmentConfig(), seed=0)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=2,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    return module.network.state_dict(), torch.get_rng_state()


def test_training_is_bit_identical_with_and_without_maps(tiny_model: ModelConfig, phantoms: Path) -> None:
    asking = _Asking()
    plain = _train(tiny_model, phantoms, [])
    torch.testing.assert_close(_train(tiny_model, phantoms, [asking]), plain, rtol=0, atol=0)
    assert asking.places == {"start", "backward", "validation False", "validation True", "test True"}


def _train_distributed(rank: int, config: ModelConfig, folder: str) -> None:
    """Two processes train in step, without maps, then anew with maps on the first process alone."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = []
    for ask in (False, True):
        network = _network(config)
        parallel = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01)
        for step in range(3):
            images = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(10 * step + rank))
            optimizer.zero_grad()
            loss = parallel(images).class_logits.square().mean()
            if ask and rank == 0:
                for method, layer in CASES:
                    class_activation_map(network, images[:1], None, method, layer)
            loss.backward()
            optimizer.step()
        found.append({name: value.clone() for name, value in network.state_dict().items()})
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_maps_on_one_of_two_processes_keep_both_in_step(tiny_model: ModelConfig, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_distributed, (tiny_model, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for without, with_maps in ranks:
        torch.testing.assert_close(with_maps, without, rtol=0, atol=0)
    for name, value in ranks[0][1].items():
        if "running" not in name:
            assert torch.equal(value, ranks[1][1][name]), name
