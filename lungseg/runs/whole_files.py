"""Files that are whole or absent: written beside their place under another name, then renamed."""

import csv
import hashlib
import io
import json
import math
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lungseg.errors import printable


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path`, of the same ending, to write to: renamed to `path` at the end, gone if the body fails.

    Folders on the way are made. No other process is ever given the same name, so of several that write one file each
    writes a whole one, and the last stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, whatever the length of the file's own name, which may be the longest that the file system takes.
    part = path.with_name(f".{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Delete what a process that was killed has left in a folder of its own, and in those below, under such names."""
    for part in folder.rglob(".*.part*"):
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes; folders on the way are made."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; of names that are not, the system's bytes are escaped."""
    write_whole(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values as indented JSON."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def to_csv(lines: Iterable[Iterable[Any]]) -> str:
    """Lines as CSV: None and NaN are empty cells, flags 0 and 1, numbers have nine digits (all that a float32 has)."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue()


def safe_cell(text: str) -> str:
    """Text as a cell of CSV that no spreadsheet takes for a formula (`=1+1` in a file's name), on one line."""
    return f"'{printable(text)}" if text.startswith(("=", "+", "-", "@")) else printable(text)


def plain_cell(cell: str) -> str:
    """The text of which `safe_cell` has made a cell."""
    return cell[1:] if cell.startswith(("'=", "'+", "'-", "'@")) else cell


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return safe_cell(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return int(value) if isinstance(value, bool) else value


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
