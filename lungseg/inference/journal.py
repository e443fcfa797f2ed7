"""predictions.jsonl: a line an image the moment it is done, so that a rerun continues; predictions.csv made of it."""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lungseg.errors import UserError
from lungseg.inference.inputs import Input

JSONL, CSV, SETTINGS = "predictions.jsonl", "predictions.csv", "settings.json"
PARTS = "predictions.part-*.jsonl"
"""Lines of processes that share the work, until they are collected."""

Row = dict[str, Any]


class Journal:
    """The lines of an output folder, or of one shard's part of it, open for more; one process at a time.

    Args:
        folder: The output.
        shard: `(i, n)`: the part of the i-th of n processes; None: the whole.

    Raises:
        ValueError: Another process is writing it.
    """

    def __init__(self, folder: Path, shard: tuple[int, int] | None = None):
        self.path = folder / (JSONL if shard is None else PARTS.replace("*", f"{shard[0]}-of-{shard[1]}"))
        self._file = _open_locked(self.path)

    def add(self, row: Row) -> None:
        """Append a line; it is with the system when this returns."""
        self._file.write(_line(row))
        self._file.flush()

    def rows(self) -> Iterator[Row]:
        """Lines written so far; one cut by a kill is left out."""
        return _read(self.path)

    def drop(self, ids: Collection[str]) -> None:
        """Take out every line of these ids."""
        if not any(row["id"] in ids for row in self.rows()):
            return
        part = self.path.with_name(f"{self.path.name}.part")
        with part.open("wb") as file:
            file.writelines(_line(row) for row in self.rows() if row["id"] not in ids)
        part.replace(self.path)
        self._file.close()
        self._file = _open_locked(self.path)

    def close(self) -> None:
        """Let others write."""
        self._file.close()


def done_ids(folder: Path, files: Sequence[Input]) -> set[str]:
    """Ids of files whose results are there and that have not changed since."""
    stamps: dict[str, str] = {}
    for path in (folder / JSONL, *sorted(folder.glob(PARTS))):
        for row in _read(path):
            stamps[row["id"]] = row["stamp"] if row["error"] is None else ""
    return {
        file.id
        for file in files
        if file.id in stamps and stamps[file.id] == file.stamp() and (folder / "masks" / file.png).exists()
    }


def collect_parts(journal: Journal) -> None:
    """Move the lines of shards that have ended into the journal of the whole.

    Raises:
        ValueError: One of them is still running.
    """
    for path in sorted(journal.path.parent.glob(PARTS)):
        with _open_locked(path):
            for row in _read(path):
                journal.add(row)
            path.unlink()


def write_csv(journal: Journal) -> None:
    """Write predictions.csv, sorted by id; only where lines begin is held in memory."""
    starts: dict[str, int] = {}
    probs: list[str] = []
    target = journal.path.with_name(CSV)
    part = target.with_name(f"{CSV}.part")
    with journal.path.open("rb") as lines, part.open("w", encoding="utf-8", newline="") as file:
        start = 0
        for line in lines:
            row = json.loads(line)
            probs = probs or [name for name in row if name.startswith("prob_")]
            starts[row["id"]] = start
            start += len(line)
        writer = csv.DictWriter(file, _columns(probs), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for _, start in sorted(starts.items()):
            lines.seek(start)
            writer.writerow({name: _cell(value) for name, value in json.loads(lines.readline()).items()})
    part.replace(target)


def _columns(probs: Sequence[str]) -> list[str]:
    sides = [f"lung_{side}_{unit}" for unit in ("px", "cm2") for side in ("left", "right")]
    about = ["flags", "flag_reasons", "width_px", "height_px", "mask", "overlay", "error"]
    return ["id", "predicted", *probs, "evidence_in_lungs", *sides, *about]


def check_settings(folder: Path, settings: Row) -> None:
    """Keep what the results depend on with them, or see that it is the same as before.

    Raises:
        ValueError: The folder holds results of another model, of other settings, or of other inputs.
    """
    path = folder / SETTINGS
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{SETTINGS}.{os.getpid()}.part")  # of this process: shards may start together
        part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if kept.get(name) != value:
            raise UserError(
                f"{folder}: holds predictions with {name} {kept.get(name)!r}, now it is {value!r}; "
                "give another --output, or delete it"
            )


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _read(path: Path) -> Iterator[Row]:
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _cell(value: Any) -> Any:
    """A list as one cell; a name that is not UTF-8 as the system's bytes, escaped."""
    text = "; ".join(value) if isinstance(value, list) else value
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


def _open_locked(path: Path) -> IO[bytes]:
    """Open for appending after the last whole line; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{path.parent}: another process is predicting into it; wait for it to end") from None
    _cut_torn_line(file)
    return file


def _cut_torn_line(file: IO[bytes]) -> None:
    file.seek(0)
    whole = 0
    for line in file:
        whole += len(line) if line.endswith(b"\n") else 0
    file.truncate(whole)
    file.seek(whole)
