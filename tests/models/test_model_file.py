"""One-file models and the Hugging Face layout: what is written is what is read, and nothing in it runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lungseg.errors import UserError
from lungseg.inference.predictor import Predictor
from lungseg.inference.torch_backend import load_torch
from lungseg.models.checkpoint import load_model
from lungseg.models.model_file import find_hub_folder, read_model_file, write_model_file
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo, info_from_json, info_to_json
from lungseg.runs.run import Run

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(untrained: Path) -> tuple[LungNetwork, ModelInfo]:
    network, info = load_model(Run.open(untrained))
    return network, dataclasses.replace(info, temperature=1.5)


def test_a_model_file_holds_network_and_info(tmp_path: Path, model: tuple[LungNetwork, ModelInfo]) -> None:
    network, info = model
    write_model_file(tmp_path / "m.safetensors", network, info)
    read, read_info = read_model_file(tmp_path / "m.safetensors")
    assert read_info == info
    assert not read.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_half_keeps_what_is_one_dimensional_and_computes_in_float32(
    tmp_path: Path, model: tuple[LungNetwork, ModelInfo]
) -> None:
    network, info = model
    for half in (False, True):
        write_model_file(tmp_path / f"{half}.safetensors", network, info, half)
    stored = load_file(tmp_path / "True.safetensors")
    kinds = {name: tensor.dtype for name, tensor in stored.items()}
    assert all(
        (kinds[name] == torch.float16) == (tensor.ndim >= 2)
        for name, tensor in stored.items()
        if tensor.is_floating_point()
    )
    assert kinds["mean"] == kinds["std"] == torch.float32
    sizes = [(tmp_path / f"{half}.safetensors").stat().st_size for half in (True, False)]
    assert sizes[0] < 0.75 * sizes[1]
    read, _ = read_model_file(tmp_path / "True.safetensors")
    assert all(p.dtype == torch.float32 for p in read.parameters())
    one, other = (load_torch(Run.open(tmp_path / f"{half}.safetensors"), "cpu") for half in (True, False))
    np.testing.assert_allclose(one(IMAGE[None]).class_probs, other(IMAGE[None]).class_probs, atol=5e-3)


def test_info_survives_json() -> None:
    info = ModelInfo(("a", "b"), 64, False, 8, 1.25, "0.1", {"licence": "mit", "training": {"epochs": 3}})
    assert info_from_json(info_to_json(info)) == info
    assert '"format": 1' in info_to_json(info)  # which older versions read
    several = dataclasses.replace(info, multi_label=True, thresholds=(0.5, 0.25))
    assert info_from_json(info_to_json(several)) == several
    assert '"format": 2' in info_to_json(several)  # which they refuse rather than take its sigmoids for a softmax
    with pytest.raises(UserError, match="thresholds: must be a number in"):
        dataclasses.replace(several, thresholds=(0.5,))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "tensors, but not of lungseg"),
        ({"lungseg": '{"format": 3}'}, "its format is 3, this version of lungseg reads 1 and 2"),
        ({"lungseg": '{"format": 1, "classes": ["a"]}'}, "it does not say its image_size"),
        ({"lungseg": "[" * 100000}, "what it says of itself is no JSON"),
        ({"lungseg": '{"format": 1}'}, "not a model of this version of lungseg"),
        ({"lungseg": "no json"}, "not a model of this version of lungseg"),
    ],
)
def test_a_file_of_other_tensors_is_one_line(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(ValueError, match=rf"x.safetensors: .*{message}"):
        read_model_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        *(
            ("image_size", value, "image_size: must be a whole number in 32")
            for value in (10**9, 0, -1, 64.0, "64", None)
        ),
        *(("map_stride", value, "map_stride: must be a") for value in (0, 65, "8", None)),
        ("map_stride", 16, "map_stride: must be 8, as its network has, got 16"),
        *(("temperature", value, "temperature: must be above 0 and f") for value in (0, -1.0, float("nan"), "1", None)),
        *(("classes", value, "classes: must be names, none") for value in (["a", "a"], [1, 2], "abc", {"a": 1})),
        ("classes", [], "its tensors are not those of the network it describes"),
        ("classes", ["a", "b"], "its tensors are not those of the network it describes"),
        *(
            ("keep_aspect", 1, "keep_aspect"),
            ("version", 2, "version"),
            ("training", {"infection_unknown": 1}, "training"),
        ),
        *(("model", value, "model: must be a mapping") for value in (None, [], "resnet18")),
        ("model", {"attention": True}, "model.attention: unknown key, perhaps of a newer version"),
        ("model", {"encoder": 5}, "model.encoder: expected text"),
        ("model", {"encoder": "resnet1"}, "model.encoder: unknown encoder"),
        ("model", {"head_channels": 10**12}, "its tensors are not those of the network it describes"),
        ("model", {"encoder": "resnet152"}, "its tensors are not those of the network"),
    ],
)
def test_a_header_is_checked_field_by_field(
    tmp_path: Path, model: tuple[LungNetwork, ModelInfo], key: str, value: Any, named: str
) -> None:
    path = tmp_path / "m.safetensors"
    header = json.loads(info_to_json(model[1])) | {key: value}
    if key == "model" and isinstance(value, dict):
        header[key] = model[1].description["model"] | value
    tensors = {name: tensor.contiguous() for name, tensor in model[0].state_dict().items()}
    save_file(tensors, path, {"lungseg": json.dumps(header)})
    with pytest.raises(UserError) as caught:
        read_model_file(path)
    assert str(path) in str(caught.value) and named in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, untrained: Path) -> None:
    run = Path(shutil.copytree(untrained, tmp_path / "run"))
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("weight"))
    content["state_dict"][name].view(-1)[3] = float("nan")
    torch.save(content, run / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"best.ckpt: its weights hold NaN or infinity \(first in segmenter"):
        load_model(Run.open(run))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lungseg": 1}, "not of lungseg"),
        ({"epoch": None}, "without its epoch or its weights"),
        ({"state_dict": []}, "without its epoch or its weights"),
        ({"lungseg": {"model": {"depth": 3}, "classes": ["a"]}}, "model.depth: unknown key"),
        ({"lungseg": {"model": {}, "classes": ["a", "a"]}}, "classes: must be names, none of them twice"),
    ],
)
def test_a_checkpoint_is_checked_as_a_model_file_is(
    tmp_path: Path, untrained: Path, change: dict[str, Any], named: str
) -> None:
    run = Path(shutil.copytree(untrained, tmp_path / "run"))
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save(content | change, run / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=rf"best.ckpt: .*{named}"):
        load_model(Run.open(run))


def test_a_cut_file_and_one_with_other_tensors_are_one_line(
    tmp_path: Path, model: tuple[LungNetwork, ModelInfo]
) -> None:
    path = tmp_path / "m.safetensors"
    write_model_file(path, *model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"m.safetensors: not a readable .safetensors file"):
        read_model_file(path)
    save_file({"x": torch.zeros(2)}, path, {"lungseg": info_to_json(model[1])})
    with pytest.raises(
        ValueError, match=r"its tensors are not those of the network it describes \(\d+ differ; .* has shape none and"
    ):
        read_model_file(path)


def test_hub_folder_is_read_as_path_and_by_from_pretrained(
    tmp_path: Path, model: tuple[LungNetwork, ModelInfo], untrained: Path
) -> None:
    Predictor.load(untrained, "cpu").save_pretrained(tmp_path / "hub")
    names = sorted(path.name for path in (tmp_path / "hub").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["image_size"] == 64
    wanted = Predictor.load(untrained, "cpu")([IMAGE])[0]
    for read in (Predictor.load(tmp_path / "hub", "cpu"), Predictor.from_pretrained(tmp_path / "hub", "cpu")):
        assert np.array_equal(read([IMAGE])[0].probabilities, wanted.probabilities)


def test_a_card_says_for_whom_infection_is_an_extrapolation(
    tmp_path: Path, untrained: Path, untrained_infection: Path
) -> None:
    for run in (untrained, untrained_infection):
        Predictor.load(run, "cpu").save_pretrained(tmp_path / run.name)
    cards = [(tmp_path / run.name / "README.md").read_text() for run in (untrained, untrained_infection)]
    assert "nfection" not in cards[0]
    assert "is predicted for every image; of Non-COVID that extrapolates" in cards[1]
    wanted, read = (Predictor.load(path, "cpu") for path in (untrained_infection, tmp_path / untrained_infection.name))
    assert read([IMAGE])[0].row() == wanted([IMAGE])[0].row()
    assert read([IMAGE])[0].severity is not None


def test_hub_folder_whose_tensors_were_saved_by_others_is_read_by_its_config(tmp_path: Path, untrained: Path) -> None:
    Predictor.load(untrained, "cpu").save_pretrained(tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    assert Predictor.from_pretrained(tmp_path, "cpu").info.image_size == 64


def test_hub_name_is_asked_for_by_name_and_revision(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Predictor.load(untrained, "cpu").save_pretrained(tmp_path)
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert Predictor.from_pretrained("owner/name", "cpu", "v2").info.image_size == 64
    assert asked == [
        ("owner/name", {"revision": "v2", "allow_patterns": ["config.json", "model.safetensors"]}),
    ]


def test_hub_name_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'owner/there-is-none' could not be had from the Hub \("):
        find_hub_folder("owner/there-is-none")
    with pytest.raises(FileNotFoundError, match=r"no model at '.*': a folder with model.safetensors, or OWNER/NAME"):
        find_hub_folder(tmp_path)
