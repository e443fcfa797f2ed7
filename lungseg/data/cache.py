"""Decoded samples of a split in one memory-mapped file, built once, shared by all workers and ranks without copying.

Stands between `decode` and `dataset`. A file is named by all that decides its bytes, so whatever changes is built anew;
nothing but the user deletes the old ones, and that may happen at any time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.data.cache_build import SUFFIX, build, lock
from lungseg.data.decode import Plane
from lungseg.data.folders import lung_parts
from lungseg.data.rows import row_bytes, unpack_row
from lungseg.data.sample import Sample
from lungseg.errors import DataError

VERSION = 1
"""Raised whenever the same files give other bytes; part of the key."""
_READS_BETWEEN_RELEASES = 64
"""Then pages go back to the page cache, where they stay; else each process seems to grow to the size of the file."""


class ImageCache:
    """A cache file, mapped when first read: it may be handed to other processes, and all share its pages."""

    def __init__(self, path: Path, count: int, image_size: int):
        self.path, self.count, self.image_size = path, count, image_size
        self._map: mmap.mmap | None = None
        self._reads = 0

    @classmethod
    def open_or_build(
        cls,
        samples: Sequence[Sample],
        image_size: int,
        keep_aspect: bool = True,
        folder: Path | None = None,
    ) -> ImageCache:
        """Open the cache of these samples, whose order is its index; build it first if it is not there.

        Several processes may call this at once: one builds, the others wait for it. No half-written file ever bears
        the final name.

        Args:
            samples: Of one split.
            image_size: Side S, pixels.
            keep_aspect: As in `read_sample`.
            folder: Where caches lie; None for `default_folder()`.

        Raises:
            DataError: One line: all faulty files of the samples (the first three named), or a folder that cannot
                take the cache.
        """
        folder = (folder or default_folder()).expanduser().absolute()
        path = folder / _file_name(samples, image_size, keep_aspect)
        cache = cls(path, len(samples), image_size)
        if not cache._is_whole():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with lock(path):
                    if not cache._is_whole():
                        build(path, samples, image_size, keep_aspect)
            except OSError as error:
                raise DataError(
                    f"{folder}: the cache cannot be written there ({error.strerror or error}); set data.cache_dir or "
                    "LUNGSEG_CACHE to another folder, or data.cache=false"
                ) from None
        return cache

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Plane, Plane]:
        """Give image and masks of a sample, (S, S) uint8 each, as `read_sample` does; copies, free to be changed."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.path} holds {self.count} samples, no sample {index!r}")
        mapped, length = self._map or self._open(), row_bytes(self.image_size)
        row = np.frombuffer(mapped, np.uint8, length, index * length).copy()
        self._reads += 1
        if self._reads % _READS_BETWEEN_RELEASES == 0 and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return unpack_row(row, self.image_size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping behind: another process maps the file itself."""
        return {**self.__dict__, "_map": None}

    def _is_whole(self) -> bool:
        try:
            return self.path.stat().st_size == self.count * row_bytes(self.image_size)
        except OSError:
            return False

    def _open(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(
                f"{self.path}: the cache cannot be opened ({error.strerror}); start again to build it anew"
            ) from None
        return self._map


def default_folder() -> Path:
    """`$LUNGSEG_CACHE`, else `lungseg` in `$XDG_CACHE_HOME`, else `~/.cache/lungseg`."""
    own, general = os.environ.get("LUNGSEG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(general or "~/.cache", "lungseg")


def cache_key(samples: Iterable[Sample], image_size: int, keep_aspect: bool = True) -> str:
    """Give 16 hex digits over version, size, `keep_aspect`, and path, bytes and mtime of every file in order."""
    digest = hashlib.sha256(repr((VERSION, image_size, keep_aspect)).encode())
    here = str(Path.cwd())
    for sample in samples:
        lung = lung_parts(sample.lung) if sample.lung else ()
        infection = (sample.infection,) if sample.infection else ()
        states = [[_state(here, file) for file in files] for files in ((sample.image,), lung, infection)]
        digest.update(repr(states).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _state(here: str, file: Path) -> tuple[str, int, int]:
    """What tells a changed file: path, bytes, nanoseconds of its last change. A missing one is told when decoded."""
    path = os.path.join(here, file)  # noqa: PTH118 (this is called for every file)
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return path, -1, -1
    return path, found.st_size, found.st_mtime_ns


def _file_name(samples: Sequence[Sample], image_size: int, keep_aspect: bool) -> str:
    split = samples[0].split if samples else "empty"
    return f"{split}-{len(samples)}-{image_size}px-{cache_key(samples, image_size, keep_aspect)}{SUFFIX}"
