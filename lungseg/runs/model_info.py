"""What is known of a model besides its weights, and the JSON that travels in every file of it."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lungseg.errors import UserError

KEY = "lungseg"
"""Under which a model file holds what `info_to_json` gives."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model besides its weights."""

    classes: tuple[str, ...]  # Names, in the order of every output over classes.
    image_size: int  # Side of the square the network sees, pixels.
    keep_aspect: bool  # Images that are not square are letterboxed; false: stretched.
    map_stride: int  # Input pixels per class-map pixel.
    temperature: float = 1.0  # That the backend divides class logits by before the softmax.
    version: str = ""  # Of lungseg, when the model was written.
    description: dict[str, Any] = field(default_factory=dict)
    """Plain values for a reader: `licence`, `training`, `model` (the config section), `source`, ..."""


def info_from_json(text: str) -> ModelInfo:
    """What is stored with a model under `KEY`, as a JSON object.

    Raises:
        UserError: Not of a format that this version knows; the caller names the file.
    """
    stored = json.loads(text)
    if stored.get("format") != 1:
        raise UserError(f"its format is {stored.get('format')!r}, this version reads 1; install a newer lungseg")
    known = {each.name: stored.pop(each.name) for each in fields(ModelInfo) if each.name != "description"}
    known["classes"] = tuple(known["classes"])
    return ModelInfo(**known, description={name: value for name, value in stored.items() if name != "format"})


def info_to_json(info: ModelInfo) -> str:
    """The inverse of `info_from_json`."""
    known = asdict(info)
    description = known.pop("description")
    return json.dumps({"format": 1, **known, **description})
