"""Work through many files on all cores: results in order, a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str, quiet: bool = False) -> Iterator[R]:
    """Yield `function(item)` in the order of the items, computed a little ahead by a thread a core.

    Threads rather than processes: what takes the time here (OpenCV, zlib, hashlib) lets other threads run, nothing
    needs to be copied between them, and it works the same inside a training, a notebook or a script.

    Args:
        function: Called from several threads at once; what it raises ends the work.
        items: One a call.
        what: Title of the bar and of the lines, both on standard error.
        quiet: Show neither.
    """
    results = _ahead(function, items)
    return results if quiet else _shown(results, len(items), what)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    workers = cores()
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers)
    with _opencv_kept():
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 8 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _opencv_kept() -> Iterator[None]:
    """One OpenCV thread in each of ours, and its log level as before: our threads set it one over the other."""
    level, threads = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        cv2.utils.logging.setLogLevel(level)


def _shown(results: Iterator[R], total: int, what: str) -> Iterator[R]:
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(results, what, total, leave=False)
        return
    said = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)
