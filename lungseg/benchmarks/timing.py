"""The frame of benchmarks: what is compared runs in turns, and the first is the yardstick of the others."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch

from lungseg.config import ModelConfig
from lungseg.runs.progress import one_opencv_thread

TINY = ModelConfig(
    encoder="tu-mobilenetv3_small_050", encoder_depth=4, decoder_channels=[16, 16, 8, 8], map_stride=8, dropout=0.0
)
"""A network for where its speed does not matter."""
Tasks = Mapping[str, Callable[[], object]]


def medians(
    tasks: Tasks, repeats: int, clock: Callable[[], float] = time.process_time
) -> Iterator[tuple[str, float, float]]:
    """Name, median seconds (of CPU, unless another clock is given), and these over the first one's, of each task."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    # In turns, so that what else the machine does falls on all alike.
    for turn in range(repeats + 1):
        for name, run in tasks.items():
            start = clock()
            run()
            if turn > 0:  # the first turn fills caches and compiles kernels
                spent[name].append(clock() - start)
    first = median(next(iter(spent.values())))
    for name, times in spent.items():
        yield name, median(times), median(times) / first


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and OpenCV on one thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_opencv_thread():
            yield
    finally:
        torch.set_num_threads(threads)
