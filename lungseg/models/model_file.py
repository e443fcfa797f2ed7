"""A network as one file of tensors: safetensors, with all that rebuilds it as JSON in its header; no code in it.

In the layout of the Hugging Face Hub such a file lies in a folder, with that JSON beside it and a model card.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lungseg.config import ModelConfig
from lungseg.config.fields import field_types, from_yaml
from lungseg.errors import UserError, check
from lungseg.models.ensemble import Ensemble
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import KEY, ModelInfo, info_from_json, info_to_json
from lungseg.runs.run import HUB_CONFIG, HUB_WEIGHTS
from lungseg.runs.whole_files import write_json, write_text, write_whole


def write_model_file(path: Path, network: LungNetwork, info: ModelInfo, half: bool = False) -> None:
    """Write a network, on any device, to a .safetensors file; the description must hold its config section, `model`.

    With `half`, weights of two dimensions and more are saved as float16, half the size; biases, statistics of BatchNorm
    and the normalisation of the input stay float32. It is computed in float32 in any case.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        wide = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim >= 2}
        tensors |= {name: tensor.half() for name, tensor in wide.items()}
    write_whole(path, save(tensors, metadata={KEY: info_to_json(info), "format": "pt"}))


def read_model_file(path: Path) -> tuple[LungNetwork, ModelInfo]:
    """Read a network, in evaluation mode on the CPU, float32; nothing is downloaded.

    A file without our header is taken with the config.json beside it (Hugging Face layout).

    Raises:
        UserError: One line naming the file: damaged, not of lungseg, or of a newer version.
    """
    beside = path.with_name(HUB_CONFIG)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY) or (beside.is_file() and beside.read_text(encoding="utf-8"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({type(error).__name__}); is it whole?") from error
    if not text:
        raise UserError(f"{path}: tensors, but not of lungseg: its header has no {KEY!r}, and there is no {HUB_CONFIG}")
    try:
        info = info_from_json(text)
        sections = read_sections(info.description)
    except UserError as error:
        raise UserError(f"{path}: not a model of this version of lungseg: {error}") from error
    network = build_networks(path, sections, len(info.classes), tensors, info.multi_label)
    check(
        info.map_stride == network.stride,
        f"{path}: map_stride",
        f"{network.stride}, as its network has",
        info.map_stride,
    )
    return network, info


def read_model_section(values: Any) -> ModelConfig:
    """The section `model` of a file's own description, every value checked; a UserError that names the key."""
    check(isinstance(values, dict), "model", "a mapping", values)
    kinds = {key.removeprefix("model."): kind for key, kind in field_types().items() if key.startswith("model.")}
    if unknown := [name for name in values if name not in kinds]:
        raise UserError(f"model.{unknown[0]}: unknown key, perhaps of a newer version")
    read = {}
    for name, value in values.items():
        try:
            read[name] = from_yaml(kinds[name], value)
        except ValueError as error:
            raise UserError(f"model.{name}: {error}") from error
    return ModelConfig(**read)


def read_sections(description: Mapping[str, Any]) -> list[ModelConfig]:
    """The sections `model` of a file's own description: one, or of an ensemble those in `members`."""
    members = description.get("members")
    if members is None:
        return [read_model_section(description.get("model"))]
    check(isinstance(members, list) and len(members) >= 2, "members", "a list of two sections 'model' or more", members)
    return [read_model_section(section) for section in members]


def build_networks(
    path: Path, sections: Sequence[ModelConfig], classes: int, tensors: dict[str, Any], multi_label: bool = False
) -> LungNetwork:
    """The network of one section, or the ensemble of several; arguments and errors as of `build_network`."""
    if len(sections) == 1:
        return build_network(path, sections[0], classes, tensors, multi_label)
    starts = [f"members.{number}." for number in range(len(sections))]
    if strange := next((name for name in tensors if not name.startswith(tuple(starts))), None):
        raise UserError(f"{path}: its tensors are not those of an ensemble of {len(sections)} (first {strange})")
    own = [{name.removeprefix(at): t for name, t in tensors.items() if name.startswith(at)} for at in starts]
    members = [
        build_network(path, *each, multi_label) for each in zip(sections, [classes] * len(own), own, strict=True)
    ]
    return Ensemble(members).eval()


def build_network(
    path: Path, config: ModelConfig, classes: int, tensors: dict[str, Any], multi_label: bool = False
) -> LungNetwork:
    """The network of a config, in evaluation mode on the CPU, with tensors of a file; a UserError if they misfit."""
    config = dataclasses.replace(config, encoder_weights=None)  # those of the file replace them; nothing is downloaded
    broken = next((n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None)
    if broken is not None:
        raise UserError(f"{path}: its weights hold NaN or infinity (first in {broken}); train it anew")
    _check_shapes(path, config, classes, tensors)
    network = LungNetwork(config, classes, multi_label)
    try:
        network.load_state_dict(tensors)  # copies, so float16 becomes float32 here
    except RuntimeError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    return network.eval()


def _check_shapes(path: Path, config: ModelConfig, classes: int, tensors: dict[str, Any]) -> None:
    """Refuse tensors that are not those of the network that a file describes, before that takes any memory."""
    try:
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in LungNetwork(config, classes).state_dict().items()}
    except UserError as error:
        raise UserError(f"{path}: not a model of this version of lungseg: {error}") from error
    except (RuntimeError, NotImplementedError):
        return  # an encoder that reads its own weights while it is built
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if differing := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
        name = differing[0]
        raise UserError(
            f"{path}: its tensors are not those of the network it describes ({len(differing)} differ; {name} has shape "
            f"{found.get(name, 'none')} and would need {wanted.get(name, 'none')})"
        )


def write_hub_folder(folder: Path, network: LungNetwork, info: ModelInfo, half: bool = False) -> None:
    """Write a network as a folder that `Run.open` takes, here or once it is uploaded (`hf upload`).

    The folder is made if need be, and a README.md that is there stays; else a short model card is written. The other
    arguments are those of `write_model_file`.
    """
    write_model_file(folder / HUB_WEIGHTS, network, info, half)
    write_json(folder / HUB_CONFIG, json.loads(info_to_json(info)))
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", _card(info))


def find_hub_folder(name: str | Path, revision: str | None = None) -> Path:
    """Find a folder of `write_hub_folder`, or `OWNER/NAME` on the Hub, which is downloaded once and then kept.

    A revision is a branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: Neither a folder with a model nor a name on the Hub.
        UserError: It could not be downloaded.
    """
    folder = Path(name).expanduser()
    if (folder / HUB_WEIGHTS).is_file():
        return folder
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise FileNotFoundError(f"no model at {str(name)!r}: a folder with {HUB_WEIGHTS}, or OWNER/NAME on the Hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=[HUB_CONFIG, HUB_WEIGHTS]))
    except (OSError, ValueError) as error:  # all of its own errors are one of these
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{str(name)!r} could not be had from the Hub ({type(error).__name__}: {reason})") from error


def _card(info: ModelInfo) -> str:
    from huggingface_hub import ModelCardData

    licence = str(info.description.get("licence", "not stated"))
    # The Hub knows licences by identifiers of its own, such as `cc-by-sa-4.0`; a sentence is for readers alone.
    known = licence if re.fullmatch(r"[a-z0-9.-]+", licence) else None
    several = " (an image may have several, or none)" if info.multi_label else ""
    tags = ["chest-x-ray", "image-segmentation", "class-activation-map"]
    return f"""---
{ModelCardData(library_name="lungseg", tags=tags, license=known).to_yaml()}
---

# Lung mask, class and class map of a chest X-ray

Classes: {", ".join(info.classes) or "none"}{several}. Image side: {info.image_size} px. Licence: {licence}.
{_about_infection(info)}Not a medical device.

```python
from lungseg.inference.predictor import Predictor

prediction = Predictor.from_pretrained("FOLDER OR OWNER/NAME")("xray.png")
```
"""


def _about_infection(info: ModelInfo) -> str:
    """A line on the infection output, where there is one."""
    if not info.description["model"].get("infection"):
        return ""
    unseen = ", ".join(info.description.get("training", {}).get("infection_unknown", ()))
    guess = f"; of {unseen} that extrapolates, for there were no infection masks to learn from" if unseen else ""
    return f"Infection, and its share of the lungs, is predicted for every image{guess}.\n"
