"""Many files through a predictor: decoded ahead, in batches, results written behind, never many in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import DataError
from lungseg.inference.inputs import Input
from lungseg.inference.journal import Row
from lungseg.inference.prediction import OVERLAY_PX, Prediction, png
from lungseg.inference.predictor import Predictor, SquarePrediction
from lungseg.inference.preprocess import Picture
from lungseg.runs.progress import ahead, cores, one_opencv_thread
from lungseg.runs.whole_files import write_whole

Decoded = tuple[Picture, NDArray[np.uint8]] | DataError
"""An image and its square for the network, or why there is none."""
Writer = Callable[[Input, Prediction], Row]


def predict_files(predictor: Predictor, files: Sequence[Input], write: Writer) -> Iterator[Row]:
    """Predict and write files, and yield a row each, in their order.

    At most about three batches of images are in memory. A thread a core decodes and writes, this one runs the network.

    Args:
        predictor: Its `batch_size` images go through the network at a time.
        files: A file that cannot be read gives a row with `error`, and the next one follows.
        write: Writes what is predicted of a file and gives its row; called from several threads.
    """

    def decode(file: Input) -> Decoded:
        try:
            return predictor.prepare(file.path)
        except DataError as error:
            return error

    def finish(item: tuple[Input, Decoded, SquarePrediction | None]) -> Row:
        file, image, predicted = item
        try:
            if isinstance(image, DataError) or predicted is None:
                return _row(file, error=image)
            return _row(file, **write(file, predictor.finish(image[0], predicted)))
        except DataError as error:
            return _row(file, error=error)

    # Threads, not processes: OpenCV and zlib let other threads run, and no image needs to be sent anywhere.
    pool = ThreadPoolExecutor(cores())
    with one_opencv_thread():
        try:
            decoded = zip(files, ahead(pool, decode, files, predictor.batch_size), strict=True)
            yield from ahead(pool, finish, _run_network(predictor, decoded), predictor.batch_size)
        finally:
            pool.shutdown(cancel_futures=True)  # else an error would wait for everything that is queued


def write_prediction(output: Path, file: Input, prediction: Prediction, dicom: bool = False) -> Row:
    """Write `masks/NAME.png` (0 and 255) and `overlays/NAME.png`, and give the row of the image.

    With `dicom`, of an input that is DICOM, `dicom/NAME.seg.dcm` and `dicom/NAME.overlay.dcm` too; a DataError where
    its header lacks what they need.
    """
    mask, overlay = f"masks/{file.png}", f"overlays/{file.png}"
    if dicom:
        from lungseg.inference.dicom_out import write_dicom

        write_dicom(output / "dicom", file, prediction)
    write_whole(output / overlay, png(prediction.overlay(OVERLAY_PX)))
    # The mask comes last: where it is there, so is everything else, and a rerun need not do the image again.
    write_whole(output / mask, prediction.mask_png())
    return {**prediction.row(), "mask": mask, "overlay": overlay}


def _run_network(
    predictor: Predictor, decoded: Iterable[tuple[Input, Decoded]]
) -> Iterator[tuple[Input, Decoded, SquarePrediction | None]]:
    """Run the network, in batches, on the files that could be read, and pass all of them on."""
    remaining = iter(decoded)
    while batch := list(islice(remaining, predictor.batch_size)):
        squares = [image[1] for _, image in batch if not isinstance(image, DataError)]
        predicted = iter(predictor.run(np.stack(squares)) if squares else ())
        for file, image in batch:
            yield file, image, None if isinstance(image, DataError) else next(predicted)


def _row(file: Input, error: object = None, **values: Any) -> Row:
    stamp = file.stamp() if file.path.exists() else ""
    reason = None if error is None else str(error).removeprefix(f"{file.path}: ")
    return {"id": file.id, **values, "error": reason, "stamp": stamp}
