"""Files that are whole or absent: written beside their place under another name, then renamed."""

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    write_whole(path, text.encode())


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values as indented JSON."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_png(picture: np.ndarray[Any, Any], path: Path) -> None:
    """Write a picture uint8 (H, W, 3)."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    write_whole(path, content.getvalue())


def without_nan(value: Any) -> Any:
    """The same nested plain values with None for every float that is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(path: Path) -> str:
    """12 hex digits of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
