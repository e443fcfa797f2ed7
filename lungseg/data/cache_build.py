"""Builds a cache file: all samples decoded by threads into a temporary file that is renamed at the end."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lungseg.data.decode import read_sample
from lungseg.data.rows import pack_row, row_bytes
from lungseg.data.sample import Sample
from lungseg.errors import DataError
from lungseg.runs.progress import in_threads

SUFFIX = ".cache"

Row = bytes | DataError
"""A packed sample, or what is wrong with it."""

_log = logging.getLogger(__name__)


def build(path: Path, samples: Sequence[Sample], image_size: int, keep_aspect: bool = True) -> None:
    """Write the cache of the samples to `path`, in their order; to be called with its `lock` held.

    Raises:
        DataError: One line with the faulty files of all samples: how many, the first three.
        OSError: The folder cannot take it; then, as after any error, nothing is left there.
    """
    needed, free = len(samples) * row_bytes(image_size), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{_size(needed)} needed, {_size(free)} free")
    partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            _write(file, samples, image_size, keep_aspect)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _say_what_is_there(path, len(samples))


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock beside `path`, waiting for whoever has it; it ends with its holder, however that one ends.

    Where the file system knows no locks every process builds for itself, and the last rename wins.
    """
    name = path.with_suffix(".lock")  # stays: who deletes a lock file takes it from those who wait for it
    with name.open("w") as file:
        try:
            _wait_for(file, name)
            _remove_what_crashes_left(path)
        except (ImportError, OSError) as error:
            _log.warning("%s: no lock here (%s); processes that start together each build the cache", name, error)
        yield


def _wait_for(file: IO[str], name: Path) -> None:
    import fcntl  # not on every system

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"cache: another process is building it; waiting for {name}")
        fcntl.flock(file, fcntl.LOCK_EX)


def _remove_what_crashes_left(path: Path) -> None:
    for partial in path.parent.glob(f"{path.stem}.*.partial"):
        partial.unlink(missing_ok=True)


def _write(file: IO[bytes], samples: Sequence[Sample], image_size: int, keep_aspect: bool) -> None:
    def decode(sample: Sample) -> Row:
        try:
            return pack_row(*read_sample(sample, image_size, keep_aspect))
        except DataError as error:
            return error

    faults: list[DataError] = []
    for row in in_threads(decode, samples, f"cache of {samples[0].split}" if samples else "cache"):
        if isinstance(row, DataError):
            faults.append(row)
        elif not faults:
            file.write(row)
    if faults:
        more = "; ...; `python -m lungseg.audit` lists all" if len(faults) > 3 else ""
        first = "; ".join(map(str, faults[:3]))
        raise DataError(f"{len(faults)} of {len(samples)} samples cannot be decoded: {first}{more}")
    file.flush()
    os.fsync(file.fileno())


def _say_what_is_there(path: Path, count: int) -> None:
    others = [other.stat().st_size for other in path.parent.glob(f"*{SUFFIX}") if other != path]
    beside = f"; {len(others)} more in this folder, {_size(sum(others))}" if others else ""
    _say(f"cache: {count:,} images, {_size(path.stat().st_size)} in {path}{beside}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
