"""Decoded samples of a split in one memory-mapped file, built once, shared by all workers and ranks without copying.

Stands between `decode` and `dataset`. A file is named by all that decides its bytes, so whatever changes is built anew;
nothing but the user deletes the old ones, and that may happen at any time.
"""

import errno
import hashlib
import logging
import mmap
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from filelock import FileLock, Timeout

from lungseg.data.decode import Plane, pack_row, read_sample, row_bytes, unpack_row
from lungseg.data.folders import lung_files
from lungseg.data.sample import Sample
from lungseg.errors import DataError
from lungseg.runs.progress import in_threads

VERSION = 1  # Raised whenever the same files give other bytes; part of the key.
SUFFIX = ".cache"
# Reading makes the process seem to grow to the size of the file. Every so many reads the pages are given back to the
# page cache, where they stay for the next reader.
_READS_BETWEEN_RELEASES = 64

_log = logging.getLogger(__name__)


class ImageCache:
    """A cache file, mapped when first read: it may be handed to other processes, and all share its pages."""

    def __init__(self, path: Path, count: int, image_size: int):
        self.path, self.count, self.image_size = path, count, image_size
        self._map: mmap.mmap | None = None
        self._reads = 0

    @classmethod
    def locate(
        cls, samples: Sequence[Sample], image_size: int, keep_aspect: bool = True, folder: Path | None = None
    ) -> Self:
        """Give the cache of these samples of one split, whose order is its index, whether its file is there or not.

        Size and aspect are those of `read_sample`; without a folder it lies where `cache_path` says.
        """
        split = samples[0].split if samples else "empty"
        key = cache_key(samples, image_size, keep_aspect)
        path = cache_path(folder, f"{split}-{len(samples)}-{image_size}px-{key}{SUFFIX}")
        return cls(path, len(samples), image_size)

    def build(self, samples: Sequence[Sample], keep_aspect: bool = True) -> Self:
        """Write the file if it is not there, from the samples and the aspect that `locate` was given.

        Several processes may call this at once: one builds, the others wait for it. No half-written file ever bears
        the final name.

        Raises:
            DataError: One line: all faulty files of the samples (the first three named), or a folder that cannot
                take the cache.
        """
        if not self.is_complete():
            with locked(self.path, "cache", "data.cache=false"):
                if not self.is_complete():  # another process may have built it while this one waited
                    _build(self.path, samples, self.image_size, keep_aspect)
        return self

    @classmethod
    def open_or_build(
        cls, samples: Sequence[Sample], image_size: int, keep_aspect: bool = True, folder: Path | None = None
    ) -> Self:
        """Give what `locate` finds; `build` it first if it is not there."""
        return cls.locate(samples, image_size, keep_aspect, folder).build(samples, keep_aspect)

    def read(self, index: int) -> tuple[Plane, Plane]:
        """Give image and masks of a sample, (S, S) uint8 each, as `read_sample` does; copies, free to be changed."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.path} holds {self.count} samples, no sample {index!r}")
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                reason = f"the cache cannot be opened ({error.strerror}); start again to build it anew"
                raise DataError(f"{self.path}: {reason}") from None
        length = row_bytes(self.image_size)
        row = np.frombuffer(self._map, np.uint8, length, index * length).copy()
        self._reads += 1
        if self._reads % _READS_BETWEEN_RELEASES == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return unpack_row(row, self.image_size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping behind: another process maps the file itself."""
        return {**self.__dict__, "_map": None}

    @property
    def size_bytes(self) -> int:
        """Size of the file once it is there."""
        return self.count * row_bytes(self.image_size)

    def is_complete(self) -> bool:
        """Whether the file is there, with all its rows."""
        try:
            return self.path.stat().st_size == self.size_bytes
        except OSError:
            return False


def say_what_comes(caches: Sequence[ImageCache]) -> None:
    """Print what those of the caches in one folder that are not there yet will take, before any of them is written.

    Raises:
        DataError: It is more than is free there.
    """
    missing = [cache for cache in caches if not cache.is_complete()]
    if not missing:
        return
    folder, needed = missing[0].path.parent, sum(cache.size_bytes for cache in missing)
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    parts = ", ".join(f"{cache.path.name.partition('-')[0]} {_size(cache.size_bytes)}" for cache in missing)
    if needed > free:
        hint = "set data.cache_dir or LUNGSEG_CACHE to another folder, name fewer splits, as data.cache=[val,test], or "
        reason = f"the cache takes {_size(needed)} ({parts}), and {_size(free)} are free there"
        raise DataError(f"{folder}: {reason}; {hint}data.cache=false")
    images = sum(cache.count for cache in missing)
    line = f"cache: {images:,} images will be decoded into {folder}: {_size(needed)} ({parts}), {_size(free)} are free"
    print(line, file=sys.stderr, flush=True)


def cache_path(folder: Path | None, name: str) -> Path:
    """Place of a file in a folder; None: `$LUNGSEG_CACHE`, else `$XDG_CACHE_HOME/lungseg`, else `~/.cache/lungseg`."""
    own, general = os.environ.get("LUNGSEG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folder = folder or (Path(own) if own else Path(general or "~/.cache", "lungseg"))
    return folder.expanduser().absolute() / name


def cache_key(samples: Iterable[Sample], image_size: int, keep_aspect: bool = True) -> str:
    """Give 16 hex digits over version, size, `keep_aspect`, and path, bytes and mtime of every file in order."""
    digest = hashlib.sha256(repr((VERSION, image_size, keep_aspect)).encode())
    here = str(Path.cwd())
    for sample in samples:
        lung = lung_files(sample.lung) if sample.lung else ()
        infection = (sample.infection,) if sample.infection else ()
        states = [[_state(here, file) for file in files] for files in ((sample.image,), lung, infection)]
        digest.update(repr(states).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path, what: str, without: str) -> Iterator[None]:
    """Hold the lock beside `path`, waiting for whoever has it; it ends with its holder, however that one ends.

    Its folder is made, and what builders that crashed have left of `path` is removed once the lock is held. Where the
    file system knows no locks every process builds for itself, and the last rename wins.

    Raises:
        DataError: `what` cannot be written there; names the setting that does `without`.
    """
    # A lock that is a mere file would outlive a process that is killed, and nobody would ever build.
    held = FileLock(path.with_suffix(".lock"), fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            print(f"cache: another process is building it; waiting for {held.lock_file}", file=sys.stderr, flush=True)
            held.acquire()
        except PermissionError:
            raise  # not a matter of locks: nothing can be written there at all
        except OSError as error:
            _log.warning("%s: no lock here (%s); processes that start together each build it", held.lock_file, error)
        for partial in path.parent.glob(f"{path.stem}.*.partial") if held.is_locked else ():
            partial.unlink(missing_ok=True)
        yield
    except OSError as error:
        hint = f"set data.cache_dir or LUNGSEG_CACHE to another folder, or {without}"
        reason = f"the {what} cannot be written there ({error.strerror or error})"
        raise DataError(f"{path.parent}: {reason}; {hint}") from None
    finally:
        held.release()


def _state(here: str, file: Path) -> tuple[str, int, int]:
    """Give what shows that a file has changed: path, bytes, nanoseconds of its last change."""
    path = os.path.join(here, file)  # noqa: PTH118 (this is called for every file)
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return path, -1, -1  # decoding will say that it is missing
    return path, status.st_size, status.st_mtime_ns


def _build(path: Path, samples: Sequence[Sample], image_size: int, keep_aspect: bool) -> None:
    """Write the cache of the samples to `path`, in their order, with its `lock` held; an error leaves nothing there."""
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
    others = [other.stat().st_size for other in path.parent.glob(f"*{SUFFIX}") if other != path]
    beside = f"; {len(others)} more in this folder, {_size(sum(others))}" if others else ""
    print(f"cache: {len(samples):,} images, {_size(needed)} in {path}{beside}", file=sys.stderr, flush=True)


def _write(file: IO[bytes], samples: Sequence[Sample], image_size: int, keep_aspect: bool) -> None:
    def decode(sample: Sample) -> bytes | DataError:
        try:
            return pack_row(*read_sample(sample, image_size, keep_aspect))
        except DataError as error:
            return error

    # After the first fault nothing more is written, but the rest is decoded all the same: a user who mends a data set
    # wants to hear of every faulty file at once.
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
    os.fsync(file.fileno())  # a rename must not become visible before the bytes are on the disk


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
