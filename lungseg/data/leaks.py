"""Training without the copies of images that are scored: found once for a data set, remembered beside the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungseg.data.cache import cache_key, default_folder
from lungseg.data.cache_build import lock
from lungseg.data.duplicates import training_copies
from lungseg.data.sample import Sample
from lungseg.errors import DataError

VERSION = 1
"""Raised whenever the search would find others in the same files."""


def without_training_copies(samples: Sequence[Sample], folder: Path | None = None) -> list[Sample]:
    """The samples without those of Train that show the same exposure as one of Val or Test.

    Several processes may call this at once: one searches, the others wait for its list.

    Args:
        samples: Of all splits.
        folder: Where caches lie; None for `default_folder()`.

    Raises:
        DataError: A file cannot be read, or the folder cannot take the list.
    """
    folder = (folder or default_folder()).expanduser().absolute()
    path = folder / f"copies-{VERSION}-{cache_key(samples, 0)}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(path):
            if not path.exists():
                part = path.with_suffix(".partial")
                part.write_text("\n".join(sorted(training_copies(samples))), encoding="utf-8", errors="surrogateescape")
                part.replace(path)
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(
            f"{folder}: the list of copies cannot be kept there ({error.strerror or error}); "
            "set data.cache_dir to another folder, or data.exclude_leaks=false"
        ) from None
    copies = set(text.splitlines())
    return [sample for sample in samples if sample.id not in copies]
