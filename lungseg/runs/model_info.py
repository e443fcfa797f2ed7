"""What is known of a model besides its weights, and the JSON that travels in every file of it."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lungseg.errors import UserError, check

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

    def __post_init__(self) -> None:
        # Checked by type too: the values may come from a file of anyone's.
        size, stride, heat = self.image_size, self.map_stride, self.temperature
        check_classes(self.classes)
        check(type(size) is int and 32 <= size <= 2048, "image_size", "a whole number in 32..2048 pixels", size)
        check(type(self.keep_aspect) is bool, "keep_aspect", "true or false", self.keep_aspect)
        check(type(stride) is int and 0 < stride <= size, "map_stride", "a whole number in 1..image_size", stride)
        check(type(heat) in (int, float) and 0 < heat < math.inf, "temperature", "above 0 and finite", heat)
        check(isinstance(self.version, str), "version", "text", self.version)
        training = self.description.get("training", {})
        unknown = training.get("infection_unknown", []) if isinstance(training, dict) else None
        plain = isinstance(unknown, list) and all(isinstance(name, str) for name in unknown)
        check(plain, "training", "a mapping whose infection_unknown is a list of names", training)


def check_classes(names: Any) -> None:
    """Raise a UserError unless these are the names of at least one class, as a list or tuple, none of them twice."""
    plain = isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names)
    check(plain and 0 < len(names) == len(set(names)), "classes", "names, none of them twice", names)


def info_from_json(text: str) -> ModelInfo:
    """What is stored with a model under `KEY`, as a JSON object.

    Raises:
        UserError: Not of a format that this version knows, or a value of another type or range than `ModelInfo` has;
            the caller names the file.
    """
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"what it says of itself is no JSON ({type(error).__name__})") from error
    if not isinstance(stored, dict) or "format" not in stored:
        raise UserError("another program wrote it, for it names no format")
    if (found := stored["format"]) != 1:
        raise UserError(f"its format is {found!r:.40}, and this version of lungseg reads 1; a newer one may read it")
    names = [each.name for each in fields(ModelInfo) if each.name != "description"]
    if missing := [name for name in names if name not in stored]:
        raise UserError(f"it does not say its {missing[0]}")
    known = {name: stored.pop(name) for name in names}
    if isinstance(known["classes"], list):
        known["classes"] = tuple(known["classes"])
    return ModelInfo(**known, description={name: value for name, value in stored.items() if name != "format"})


def info_to_json(info: ModelInfo) -> str:
    """The inverse of `info_from_json`."""
    known = asdict(info)
    description = known.pop("description")
    return json.dumps({"format": 1, **known, **description})
