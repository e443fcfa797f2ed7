"""Networks in the layout of the Hugging Face Hub: a folder with config.json, model.safetensors and a model card."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lungseg.errors import UserError
from lungseg.models.model_file import read_model_file, write_model_file
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo, info_to_json
from lungseg.runs.run import HUB_CONFIG, HUB_WEIGHTS
from lungseg.runs.whole_files import write_json, write_text


def save_pretrained(network: LungNetwork, info: ModelInfo, folder: str | Path, half: bool = False) -> None:
    """Write a network as a folder that `from_pretrained` reads, here or once it is uploaded (`hf upload`).

    Args:
        network: In any mode, on any device.
        info: As of `model_file.write_model_file`.
        folder: Made if need be. A README.md that is there stays; otherwise a short model card is written.
        half: As of `model_file.write_model_file`.
    """
    folder = Path(folder)
    write_model_file(folder / HUB_WEIGHTS, network, info, half)
    write_json(folder / HUB_CONFIG, json.loads(info_to_json(info)))
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", _card(info))


def from_pretrained(name: str | Path, revision: str | None = None) -> tuple[LungNetwork, ModelInfo]:
    """Read a network, in evaluation mode on the CPU.

    Args:
        name: A folder of `save_pretrained`, or `OWNER/NAME` on the Hub, which is downloaded once and then kept.
        revision: Branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: Neither a folder nor a name on the Hub.
        ValueError: It could not be downloaded, or is not a model of lungseg.
    """
    return read_model_file(_local(name, revision) / HUB_WEIGHTS)


def _local(name: str | Path, revision: str | None) -> Path:
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
    licence = str(info.description.get("licence", "not stated"))
    head = ["library_name: lungseg", "tags: [chest-x-ray, image-segmentation, class-activation-map]"]
    if re.fullmatch(r"[a-z0-9.-]+", licence):
        head.append(f"license: {licence}")
    return "\n".join(
        [
            *("---", *head, "---", "", "# Lung mask, class and class map of a chest X-ray", ""),
            f"Classes: {', '.join(info.classes)}. Image side: {info.image_size} px. Licence: {licence}.",
            "Not a medical device.",
            "",
            "```python",
            "from lungseg.inference.predictor import Predictor",
            "",
            'prediction = Predictor.from_pretrained("FOLDER OR OWNER/NAME")("xray.png")',
            "```",
            "",
        ]
    )
