"""What is known of a model besides its weights, and the JSON that travels in every file of it."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lungseg.errors import UserError, check

_FORMAT, _NEWER = 2, ("multi_label", "thresholds")  # Format 1 has neither.
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
    multi_label: bool = False  # An image may have several of the classes, or none: each has a probability of its own.
    thresholds: tuple[float, ...] = ()
    """(C,) probability in (0, 1] from which on each class is called, where an image may have several; else empty."""

    @property
    def has_lung(self) -> bool:
        """Whether lungs are predicted; false of a model of classes alone."""
        section = self.description.get("model")
        return bool(section.get("lung", True)) if isinstance(section, dict) else True

    @property
    def least_probability(self) -> tuple[float, ...] | None:
        """(C,) probability from which on a class belongs to an image's set; None where sets were not chosen."""
        sets = self.description.get("class_sets")
        return tuple(sets["least_probability"]) if isinstance(sets, dict) else None

    def __post_init__(self) -> None:
        # Checked by type too: the values may come from a file of anyone's.
        size, stride, heat = self.image_size, self.map_stride, self.temperature
        check_classes(self.classes)
        check(type(size) is int and 32 <= size <= 2048, "image_size", "a whole number in 32..2048 pixels", size)
        check(type(self.keep_aspect) is bool, "keep_aspect", "true or false", self.keep_aspect)
        check(type(stride) is int and 0 < stride <= size, "map_stride", "a whole number in 1..image_size", stride)
        check(type(heat) in (int, float) and 0 < heat < math.inf, "temperature", "above 0 and finite", heat)
        check(isinstance(self.version, str), "version", "text", self.version)
        check(type(self.multi_label) is bool, "multi_label", "true or false", self.multi_label)
        right = all(type(each) is float and 0 <= each <= 1 for each in self.thresholds)
        right = right and len(self.thresholds) == (len(self.classes) if self.multi_label else 0)
        check(right, "thresholds", "a number in [0, 1] a class where several may be there, else none", self.thresholds)
        training = self.description.get("training", {})
        unknown = training.get("infection_unknown", []) if isinstance(training, dict) else None
        plain = isinstance(unknown, list) and all(isinstance(name, str) for name in unknown)
        check(plain, "training", "a mapping whose infection_unknown is a list of names", training)
        sets = self.description.get("class_sets")
        least = sets.get("least_probability") if isinstance(sets, dict) else None
        plain = isinstance(least, list) and len(least) == len(self.classes)
        plain = plain and all(type(each) in (int, float) and 0 <= each <= 1 for each in least or ())
        wanted = "a mapping whose least_probability is a number in [0, 1] a class"
        check(sets is None or (plain and not self.multi_label), "class_sets", wanted, sets)


def check_classes(names: Any) -> None:
    """Raise a UserError unless these are names of classes, as a list or tuple, none of them twice."""
    plain = isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names)
    check(plain and len(names) == len(set(names)), "classes", "names, none of them twice", names)


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
    if (found := stored["format"]) not in (1, _FORMAT):
        raise UserError(f"its format is {found!r:.40}, this version of lungseg reads 1 and {_FORMAT}; a newer one may")
    names = [each.name for each in fields(ModelInfo) if each.name != "description"]
    names = [name for name in names if found == _FORMAT or name not in _NEWER]
    if missing := [name for name in names if name not in stored]:
        raise UserError(f"it does not say its {missing[0]}")
    known = {name: stored.pop(name) for name in names}
    known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return ModelInfo(**known, description={name: value for name, value in stored.items() if name != "format"})


def info_to_json(info: ModelInfo) -> str:
    """The inverse of `info_from_json`."""
    known = asdict(info)
    description = known.pop("description")
    plain = not info.multi_label and info.classes and description.get("model", {}).get("lung", True)
    plain = plain and "members" not in description
    if plain:  # what versions that know nothing else can read
        known = {name: value for name, value in known.items() if name not in _NEWER}
    return json.dumps({"format": 1 if plain else _FORMAT, **known, **description})
