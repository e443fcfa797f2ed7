"""What a person sees while it measures: a bar on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

SECONDS = 30.0
"""Least time between two plain lines of one pass."""

T = TypeVar("T")


class Over(Protocol):
    """A way to pass over batches, `total` in number if they cannot be counted."""

    def __call__(self, batches: Iterable[T], total: int | None = None) -> Iterator[T]:
        """The same batches."""


def silent(batches: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Pass over batches without a word."""
    return iter(batches)


def no_word(line: str) -> None:
    """Say nothing."""


class Watch:
    """Says what is being done, and shows how far it is."""

    def __init__(self) -> None:
        self._doing = ""

    def say(self, line: str) -> None:
        """Name what comes next."""
        self._doing = line
        print(line, flush=True)

    def over(self, batches: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Pass over batches, `total` in number if they cannot be counted."""
        total = len(batches) if isinstance(batches, Sized) else total
        if sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(batches, total=total, leave=False, unit="batch")
            return
        told = time.monotonic()
        for number, batch in enumerate(batches, 1):
            yield batch
            if time.monotonic() - told > SECONDS:
                told = time.monotonic()
                print(f"  {self._doing}: {number} of {total} batches", flush=True)
