"""The whole of `python -m lungseg.predict`: what is still to do, on one device or several, and what came of it.

Several devices are one process each, with every n-th file. Prediction needs no collective calls, so nothing ties the
processes together but the output folder: none waits for another, and the loss of one costs its shard alone.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lungseg.errors import DataError, UserError, printable
from lungseg.inference.dicom_out import check_highdicom, write_dicom
from lungseg.inference.inputs import Input, find_inputs
from lungseg.inference.journal import Journal, Row, done_ids, keep_settings, settings_agree
from lungseg.inference.prediction import OVERLAY_PX, Prediction
from lungseg.inference.predictor import Predictor, SquarePrediction, load_backend
from lungseg.inference.preprocess import Picture
from lungseg.reporting.drawing import mask_png, png
from lungseg.runs.memory import keep_freed_memory
from lungseg.runs.progress import ahead, cores, one_opencv_thread, tracked
from lungseg.runs.run import Run
from lungseg.runs.whole_files import digest, write_whole

_CONCURRENT = 4  # Images a pass, at most, where passes are concurrent: what they leave then stays in the caches.

Decoded = tuple[str, Picture, NDArray[np.uint8]] | DataError
"""A file's stamp when it was read, its image, and its square for the network; or why there is none."""
Predicted = tuple[str, Picture, SquarePrediction] | DataError
Writer = Callable[[Input, Prediction], Row]
_OF_ONE_FILE = (DataError, OSError, MemoryError, cv2.error)
"""What may befall a file, or the writing of its results, and is no reason to give the others up."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    inputs: tuple[str, ...]
    output: Path
    checkpoint: Path | None = None
    device: str = "auto"  # One, or several with commas: a process each.
    backend: str = "auto"  # As of `load_backend`.
    batch_size: int = 16
    tta: bool = False
    threshold: float = 0.5
    dicom_out: bool = False
    shard: str | None = None  # `I/N`: every N-th file, from the I-th on.


class Outcome(NamedTuple):
    """What came of it, in numbers of files."""

    inputs: int
    before: int  # Done by an earlier run.
    done: int
    skipped: int  # Could not be read.
    flagged: int  # With at least one flag, earlier ones included.
    lost: list[str]  # Devices whose process did not reach its end.


def predict(options: Options) -> Outcome:
    """Predict all that is not done yet; see `lungseg.predict`.

    Raises:
        FileNotFoundError: An input or a model that is not there.
        UserError: An option out of range, an output folder of other predictions, or in use.
    """
    devices, shard = options.device.split(","), parse_shard(options.shard)
    if shard and len(devices) > 1:
        raise UserError(f"--device: one device for a shard, got {options.device!r}")
    if options.dicom_out:
        check_highdicom()  # now, not after an hour at the first DICOM file
    root, files = find_inputs(options.inputs, options.output)
    # Without a checkpoint that is the .safetensors file whatever the backend: results of both may mix,
    # as those of two devices may.
    settings: Row = {"inputs_below": str(root), "model": digest(Run.open(options.checkpoint).model)}
    settings |= {name: getattr(options, name) for name in ("tta", "threshold", "dicom_out")}
    settings_agree(options.output, settings)
    # Every n-th rather than a block: series in one folder are alike, and blocks would take unequal times.
    files = files[shard[0] :: shard[1]] if shard else files
    journal = Journal(options.output, shard)
    try:
        if not shard:
            journal.collect_shards()
        done = done_ids(options.output, files)
        todo, lost = [file for file in files if file.id not in done], []
        journal.drop({file.id for file in todo})  # so that there is one line an image, whatever was before
        if todo and len(devices) > 1:
            lost = _run_shards(options, devices)
            journal.collect_shards()
        elif todo:
            _predict_into(journal, options, todo, settings)
        return _outcome(journal, files, todo, lost)
    finally:
        if not shard:
            journal.write_csv()  # after a Ctrl-C too: what is done can be used
        journal.close()


def predict_files(predictor: Predictor, files: Sequence[Input], write: Writer) -> Iterator[Row]:
    """Predict and write files, and yield a row each, in their order.

    At most about three batches of images are in memory, or eight images a core. A thread a core decodes and calls
    `write`. Those threads run the network too where its passes are concurrent, else this one does. A file that cannot
    be read gives a row with `error`, and the next one follows.
    """

    def decode(file: Input) -> Decoded:
        try:
            stamp = file.stamp()
            picture, square = predictor.prepare(file.path)
            if file.stamp() != stamp:
                raise DataError("it was changed while it was read; run the command again")
            return stamp, picture, square
        except _OF_ONE_FILE as error:
            return _reason(file, error)

    def finish(item: tuple[Input, Predicted]) -> Row:
        file, found = item
        try:
            if isinstance(found, DataError):
                raise found
            stamp, picture, predicted = found
            return {"id": file.id, **write(file, predictor.finish(picture, predicted)), "error": None, "stamp": stamp}
        except _OF_ONE_FILE as error:
            return {"id": file.id, "error": str(_reason(file, error)), "stamp": ""}

    def run(batch: list[tuple[Input, Decoded]]) -> list[tuple[Input, Predicted]]:
        squares = [image[2] for _, image in batch if not isinstance(image, DataError)]
        predicted = iter(predictor.run(np.stack(squares)) if squares else ())
        return [
            (file, image if isinstance(image, DataError) else (*image[:2], next(predicted))) for file, image in batch
        ]

    # Threads, not processes: OpenCV, zlib and onnxruntime let others run, and no image needs to be sent anywhere.
    concurrent, size = predictor.backend.concurrent, predictor.batch_size
    size = min(size, _CONCURRENT) if concurrent else size
    pool = ThreadPoolExecutor(cores())
    with one_opencv_thread():
        try:
            decoded = zip(files, ahead(pool, decode, files, size), strict=True)
            batches = iter(lambda: list(islice(decoded, size)), [])
            passed = ahead(pool, run, batches, cores()) if concurrent else map(run, batches)
            yield from ahead(pool, finish, chain.from_iterable(passed), max(size, cores()))
        finally:
            pool.shutdown(cancel_futures=True)  # else an error would wait for everything that is queued


def write_prediction(output: Path, file: Input, prediction: Prediction, dicom: bool = False) -> Row:
    """Write `masks/NAME.png` (0 and 255), if lungs are predicted, and `overlays/NAME.png`; give the row of the image.

    Where infection is predicted, `infection_masks/NAME.png` too, like the mask.
    With `dicom`, of an input that is DICOM, `dicom/NAME.seg.dcm` and `dicom/NAME.overlay.dcm` too; a DataError where
    its header lacks what they need.
    """
    mask, overlay = f"masks/{file.png}" if prediction.has_lung else None, f"overlays/{file.png}"
    infection_mask = None if prediction.infection is None else f"infection_masks/{file.png}"
    if dicom:
        write_dicom(output / "dicom", file, prediction)
    write_whole(output / overlay, png(prediction.overlay(OVERLAY_PX)))
    if prediction.infection is not None:
        write_whole(output / f"infection_masks/{file.png}", mask_png(prediction.infection))
    # The mask comes last: where it is there, so is everything else, and a rerun need not do the image again.
    if mask is not None:
        write_whole(output / mask, mask_png(prediction.mask))
    return {**prediction.row(), "mask": mask, "infection_mask": infection_mask, "overlay": overlay}


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """`I/N`, the I-th (from 0) of N shards, or None; anything else is a UserError."""
    if not text:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard: I/N with 0 <= I < N, such as 0/4, got {text!r}")
    return int(index), int(count)


def _predict_into(journal: Journal, options: Options, files: Sequence[Input], settings: Row) -> None:
    chosen = {name: getattr(options, name) for name in ("tta", "threshold", "batch_size")}
    predictor = Predictor(load_backend(options.checkpoint, options.device, options.backend, threads=1), **chosen)
    if (
        getattr(getattr(predictor.backend, "device", None), "type", "") == "cpu"
    ):  # PyTorch, which frees all in each pass
        keep_freed_memory()
    keep_settings(options.output, settings)  # not before: a wrong model must not take the folder for itself
    calibration = str(predictor.info.description.get("calibration", ""))
    if calibration.startswith("none") and predictor.info.classes:
        print(f"note: probabilities are not calibrated ({calibration})", file=sys.stderr)
    rows = predict_files(predictor, files, partial(write_prediction, options.output, dicom=options.dicom_out))
    title = f"predict {options.shard}" if options.shard else "predict"
    # The bars of shards, which share a terminal, would draw over each other.
    for row in tracked(rows, len(files), title, bar=options.shard is None):
        if row["error"] is not None:
            tqdm.write(
                printable(f"skipped {row['id']}: {row['error']}"), file=sys.stderr
            )  # above the bar, if there is one
        journal.add(row)


def _run_shards(options: Options, devices: Sequence[str]) -> list[str]:
    """Run the command once a device, wait, and give the devices whose process did not reach its end."""
    command = [sys.executable, "-m", "lungseg.predict", "--output", str(options.output)]
    command += ["--backend", options.backend]
    command += ["--batch-size", str(options.batch_size), "--threshold", repr(options.threshold)]
    command += ["--checkpoint", str(options.checkpoint)] if options.checkpoint else []
    command += [*["--tta"] * options.tta, *["--dicom-out"] * options.dicom_out]
    children = []
    try:
        # Their summaries are left out, for the last one is of all; what they say of files and errors is shown.
        for index, device in enumerate(devices):
            words = ["--device", device, "--shard", f"{index}/{len(devices)}", "--", *options.inputs]
            children.append(subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL))
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            child.terminate()
    # 1 is the exit code after files that could not be read, which is no reason to run them again.
    return [device for device, code in zip(devices, codes, strict=True) if code not in (0, 1)]


def _outcome(journal: Journal, files: Sequence[Input], todo: Sequence[Input], lost: list[str]) -> Outcome:
    asked, new = {file.id for file in files}, {file.id for file in todo}
    done = skipped = flagged = 0
    for row in journal.rows():
        if row["id"] in new:
            done += row["error"] is None
            skipped += row["error"] is not None
        flagged += row["id"] in asked and bool(row.get("flags"))
    return Outcome(len(files), len(files) - len(todo), done, skipped, flagged, lost)


def _reason(file: Input, error: BaseException) -> DataError:
    """Why one file is skipped, without its path, which the row has already."""
    text = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
    if isinstance(error, (MemoryError, cv2.error)):
        text = "there is not enough memory for it" if isinstance(error, MemoryError) else "OpenCV cannot handle it"
    return DataError(text.removeprefix(f"{file.path}: "))
