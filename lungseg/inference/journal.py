"""predictions.jsonl: a line an image the moment it is done, so that a rerun continues; predictions.csv made of it."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lungseg.data.severity import Severity
from lungseg.errors import UserError
from lungseg.inference.inputs import Input
from lungseg.runs.whole_files import safe_cell, write_json, write_text, write_whole

JSONL, CSV, SETTINGS = "predictions.jsonl", "predictions.csv", "settings.json"
SHARDS = "predictions.part-*.jsonl"  # Journals of processes that share the files, until they are collected.

Row = dict[str, Any]


class Journal:
    """The lines of an output folder, which is made if need be, or of one shard of its files, open for more.

    Shard `(i, n)` is that of the i-th of n processes that share the files. A UserError if another process writes it.
    """

    def __init__(self, folder: Path, shard: tuple[int, int] | None = None):
        self.path = folder / (JSONL if shard is None else SHARDS.replace("*", f"{shard[0]}-of-{shard[1]}"))
        self._lock = _lock(self.path)
        found = list(_read(self.path))
        # Lines, not rows: a folder may hold a million images, and a parsed row takes several times the memory.
        rows = [(row["id"], line) for line in found if (row := _row_of(line))]
        lines, self._lines = [line for _, line in rows], dict(rows)
        if len(lines) < len(found):
            write_whole(self.path, b"".join(lines))
        self._file = self.path.open("ab")
        self._file.truncate(sum(map(len, lines)))  # a kill may have torn the last line

    def add(self, row: Row) -> None:
        """Append a line; it is with the system when this returns."""
        self._lines[row["id"]] = line = (json.dumps(row) + "\n").encode()
        self._file.write(line)
        self._file.flush()

    def rows(self) -> Iterator[Row]:
        """The last row of each image."""
        return map(json.loads, self._lines.values())

    def drop(self, ids: Collection[str]) -> None:
        """Take out every line of these ids."""
        if self._lines.keys().isdisjoint(ids):
            return
        self._lines = {name: line for name, line in self._lines.items() if name not in ids}
        self._file.close()  # before it is replaced: Windows replaces no open file
        write_whole(self.path, b"".join(self._lines.values()))
        self._file = self.path.open("ab")

    def collect_shards(self) -> None:
        """Move the lines of shards that have ended into this journal.

        Raises:
            UserError: One of them is still running.
        """
        for path in sorted(self.path.parent.glob(SHARDS)):
            lock = _lock(path)
            for line in _read(path):
                if row := _row_of(line):
                    self.add(row)
            path.unlink()
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def write_csv(self) -> None:
        """Write predictions.csv, sorted by id."""
        first = next((row for row in self.rows() if row["error"] is None), {})
        probs = [name for name in first if name.startswith("prob_")]
        areas = [f"lung_{side}_{unit}" for unit in ("px", "cm2") for side in ("left", "right")]
        # The same columns of every model: those on infection are empty where it is not predicted.
        infected = [*(f"infected_{part}" for part in Severity._fields), "infection_extrapolated"]
        about = ["flags", "flag_reasons", "width_px", "height_px", "mask", "infection_mask", "overlay", "error"]
        apart = ["disagreement_classes", "disagreement_lungs"]  # of an ensemble
        columns = ["id", "predicted", *probs, "class_set", *apart, "evidence_in_lungs", *areas, *infected, *about]
        rows = (json.loads(line) for _, line in sorted(self._lines.items()))
        write_text(self.path.with_name(CSV), csv_of(rows, columns))

    def close(self) -> None:
        """Let others write."""
        self._file.close()
        self._lock.release()


def csv_of(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Rows as CSV, a list in one cell, text as `safe_cell` makes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        joined = {name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()}
        writer.writerow({name: safe_cell(v) if isinstance(v, str) else v for name, v in joined.items()})
    return text.getvalue()


def done_ids(folder: Path, files: Sequence[Input]) -> set[str]:
    """Ids of files whose results are there, of whatever shard, and that have not changed since."""
    paths = (folder / JSONL, *sorted(folder.glob(SHARDS)))
    rows = (row for path in paths for line in _read(path) if (row := _row_of(line)))
    results = {row["id"]: ("" if row["error"] else row["stamp"], row.get("mask", "")) for row in rows}

    def is_done(file: Input) -> bool:
        stamp, mask = results.get(file.id, ("", ""))
        # A model of classes alone writes no mask; the overlay then is what was written last.
        last = folder / ("overlays" if mask is None else "masks") / file.png
        return stamp == file.stamp() and last.exists()

    return {file.id for file in files if is_done(file)}


def settings_agree(folder: Path, settings: Row) -> None:
    """See that a folder holds no results that depend on other settings; a UserError if it does."""
    path = folder / SETTINGS
    if not path.is_file():
        return
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(
            f"{path}: cannot be read, so nobody knows how the results beside it were made; delete them"
        ) from None
    for name, value in settings.items():
        if saved.get(name) != value:
            raise UserError(
                f"{folder}: holds predictions with {name} {saved.get(name)!r}, now it is {value!r}; "
                "give another --output, or delete it"
            )


def keep_settings(folder: Path, settings: Row) -> None:
    """Save with the results what they depend on, unless it is there."""
    if not (folder / SETTINGS).is_file():
        write_json(folder / SETTINGS, settings)


def _row_of(line: bytes) -> Row | None:
    """The row of a line; None of one that is broken, whose image is then done again."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"id", "error", "stamp"} <= row.keys() else None


def _read(path: Path) -> Iterator[bytes]:
    """The whole lines of a journal, which another process may be writing; none where there is no file."""
    if path.is_file():
        with path.open("rb") as lines:
            yield from (line for line in lines if line.endswith(b"\n"))


def _lock(path: Path) -> FileLock:
    """Lock a journal until the lock is released or the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own: on Windows nobody could read the journal itself while it is locked.
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{path.parent}: another process is predicting into it; wait for it to end") from None
    return lock
