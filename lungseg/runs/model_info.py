"""What is known of a model besides its weights, and the JSON that travels in every file of it."""

import json
from dataclasses import dataclass, field
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
    names = ("classes", "image_size", "keep_aspect", "map_stride", "temperature", "version")
    known = {name: stored[name] for name in names}
    known["classes"] = tuple(stored["classes"])
    return ModelInfo(**known, description={k: v for k, v in stored.items() if k not in (*names, "format")})


def info_to_json(info: ModelInfo) -> str:
    """The inverse of `info_from_json`."""
    fields = {
        "classes": list(info.classes),
        "image_size": info.image_size,
        "keep_aspect": info.keep_aspect,
        "map_stride": info.map_stride,
        "temperature": info.temperature,
        "version": info.version,
    }
    return json.dumps({"format": 1, **fields, **info.description})
