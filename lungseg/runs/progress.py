"""Long work on many files or batches: computed ahead on all cores, with a bar on a terminal and lines elsewhere."""

import logging
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import cv2

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")
R = TypeVar("R")


class Track(Protocol):
    """A way to pass over batches, `total` in number where they cannot be counted."""

    def __call__(self, batches: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Yield the same batches."""


def silent(batches: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Pass over batches without a word."""
    return iter(batches)


def no_word(line: str) -> None:
    """Say nothing."""


class Progress:
    """Says on standard output what is being done, and shows how far it is."""

    def __init__(self) -> None:
        self._doing = ""

    def say(self, line: str) -> None:
        """Name what comes next."""
        self._doing = line
        print(line, flush=True)

    def track(self, batches: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Pass over batches, `total` in number where they cannot be counted."""
        return tracked(batches, total, f"  {self._doing}")


def tracked(items: Iterable[T], total: int | None, what: str, bar: bool = True) -> Iterator[T]:
    """Pass items on; on standard error, under the title `what`, a bar if it is a terminal, else a line now and then.

    Without `bar` there are lines on a terminal too. `total` is needed where items cannot be counted.
    """
    total = len(items) if isinstance(items, Sized) else total
    if bar and sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, what, total, leave=False)
        return
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - said >= SECONDS_BETWEEN_LINES:
            said = now
            of = "" if total is None else f" of {total:,}"
            print(f"{what}: {done:,}{of} ({done / (now - started):.3g}/s)", file=sys.stderr, flush=True)


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str, quiet: bool = False) -> Iterator[R]:
    """Yield `function(item)` in the order of the items, computed a little ahead by a thread a core.

    What the function raises ends the work. `what` is the title of `tracked`, which `quiet` leaves out.

    Threads rather than processes: what takes the time here (OpenCV, zlib, hashlib) lets other threads run, nothing
    needs to be copied between them, and it works the same inside a training, a notebook or a script.
    """

    def results() -> Iterator[R]:
        with one_opencv_thread(), ThreadPoolExecutor(cores()) as pool:
            yield from ahead(pool, function, items, 8 * cores())

    return results() if quiet else tracked(results(), len(items), what)


def ahead(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """Yield `function(item)` in order, with up to `count` more under way in the pool."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """One OpenCV thread in each of ours, and its log level as before: our threads set it one over the other."""
    level, threads = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def only_errors(*loggers: str, level: int = logging.ERROR) -> Iterator[None]:
    """Hold back warnings, and what loggers of these names say below `level`: what a library notes on how it works."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
