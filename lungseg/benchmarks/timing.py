"""Timing for benchmarks: ways in turns, by default in CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import cv2
import torch


def medians(
    ways: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Seconds of each way by a clock, run in turns, after one turn that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    # In turns, so that what else the machine does falls on all alike.
    for turn in range(repeats + 1):
        for name, run in ways.items():
            start = clock()
            run()
            if turn > 0:  # the first turn fills caches and compiles kernels
                spent[name].append(clock() - start)
    return {name: median(times) for name, times in spent.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and OpenCV on one thread inside."""
    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(opencv_threads)
