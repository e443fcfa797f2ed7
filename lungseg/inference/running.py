"""Many files through a predictor: decoded ahead, in batches, results written behind, never many in memory at once."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import DataError
from lungseg.inference.inputs import Input
from lungseg.inference.journal import Row
from lungseg.inference.prediction import Prediction
from lungseg.inference.predictor import Found, Predictor
from lungseg.inference.preprocess import Picture
from lungseg.runs.progress import SECONDS_BETWEEN_LINES, cores, one_opencv_thread

Prepared = tuple[Picture, NDArray[np.uint8]] | DataError
T = TypeVar("T")


def predict_files(
    predictor: Predictor, files: Sequence[Input], write: Callable[[Input, Prediction], Row]
) -> Iterator[Row]:
    """Predict and write files, and yield a row each, in their order.

    At most about three batches of images are in memory. A thread a core decodes and writes, this one runs the network.

    Args:
        predictor: Its `batch_size` images go through the network at a time.
        files: A file that cannot be read gives a row with `error`, and the next one follows.
        write: Writes what is predicted of a file and gives its row; called from several threads.
    """
    pool = ThreadPoolExecutor(cores())
    finishing: deque[Future[Row]] = deque()
    with one_opencv_thread():
        try:
            prepared = _ahead(pool, lambda file: _prepare(predictor, file), files, predictor.batch_size)
            while group := list(islice(prepared, predictor.batch_size)):
                for file, ready, found in _through(predictor, group):
                    finishing.append(pool.submit(_finish, predictor, file, ready, found, write))
                while len(finishing) > predictor.batch_size:
                    yield finishing.popleft().result()
            while finishing:
                yield finishing.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def shown(rows: Iterator[Row], total: int, what: str = "predict", bar: bool = True) -> Iterator[Row]:
    """Pass rows on, with how far they are and how fast on standard error, and a line for each that is an error.

    Args:
        rows: Of `predict_files`.
        total: How many there will be.
        what: Begins the bar and every line.
        bar: Draw a bar if standard error is a terminal; otherwise a line now and then.
    """
    if bar and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit=" images", leave=False) as drawn:
            for row in rows:
                drawn.update()
                if row["error"] is not None:
                    drawn.write(_complaint(row), file=sys.stderr)
                yield row
        return
    begun = said = time.monotonic()
    for done, row in enumerate(rows, 1):
        if row["error"] is not None:
            print(_complaint(row), file=sys.stderr, flush=True)
        yield row
        if (now := time.monotonic()) - said >= SECONDS_BETWEEN_LINES:
            said = now
            rate = done / (now - begun)
            print(f"{what}: {done:,} of {total:,} ({rate:.1f} images/s)", file=sys.stderr, flush=True)


def _complaint(row: Row) -> str:
    return f"skipped {row['id']}: {row['error']}"


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Input], T], files: Sequence[Input], count: int
) -> Iterator[tuple[Input, T]]:
    """Yield `function(file)` in order, with `count` more under way."""
    waiting: deque[tuple[Input, Future[T]]] = deque()
    for file in files:
        waiting.append((file, pool.submit(function, file)))
        if len(waiting) > count:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _prepare(predictor: Predictor, file: Input) -> Prepared:
    try:
        return predictor.prepare(file.path)
    except DataError as error:
        return error


def _through(
    predictor: Predictor, group: Sequence[tuple[Input, Prepared]]
) -> Iterator[tuple[Input, Prepared, Found | None]]:
    """Run the network on those of a group that could be read."""
    squares = [ready[1] for _, ready in group if not isinstance(ready, DataError)]
    found = iter(predictor.run(np.stack(squares)) if squares else ())
    for file, ready in group:
        yield file, ready, None if isinstance(ready, DataError) else next(found)


def _finish(
    predictor: Predictor,
    file: Input,
    ready: Prepared,
    found: Found | None,
    write: Callable[[Input, Prediction], Row],
) -> Row:
    if isinstance(ready, DataError) or found is None:
        return _row(file, error=str(ready).removeprefix(f"{file.path}: "))
    try:
        return _row(file, **write(file, predictor.finish(ready[0], found)))
    except DataError as error:
        return _row(file, error=str(error).removeprefix(f"{file.path}: "))


def _row(file: Input, error: str | None = None, **values: Any) -> Row:
    stamp = file.stamp() if file.path.exists() else ""
    return {"id": file.id, **values, "error": error, "stamp": stamp}
