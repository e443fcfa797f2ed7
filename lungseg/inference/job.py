"""The whole of `python -m lungseg.predict`: what is still to do, on one device or several, and what came of it.

Several devices are one process each, with every n-th file. Prediction needs no collective calls, so nothing ties the
processes together but the output folder: none waits for another, and the loss of one costs its shard alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lungseg.errors import UserError
from lungseg.inference.dicom_out import check_highdicom
from lungseg.inference.inputs import Input, find_inputs
from lungseg.inference.journal import Journal, Row, check_settings, done_ids
from lungseg.inference.pipeline import predict_files, write_prediction
from lungseg.inference.predictor import Predictor
from lungseg.runs.progress import tracked
from lungseg.runs.run import Run
from lungseg.runs.whole_files import digest


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    inputs: tuple[str, ...]
    output: Path
    checkpoint: Path | None = None
    device: str = "auto"
    """One, or several with commas: a process each."""
    batch_size: int = 16
    tta: bool = False
    threshold: float = 0.5
    dicom_out: bool = False
    shard: str | None = None
    """`I/N`: every N-th file, from the I-th on."""


class Outcome(NamedTuple):
    """What came of it, in numbers of files."""

    inputs: int
    before: int
    """Done by an earlier run."""
    done: int
    skipped: int
    """Could not be read."""
    flagged: int
    """With at least one flag, earlier ones included."""
    lost: list[str]
    """Devices whose process did not reach its end."""


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
    settings: Row = {"inputs_below": str(root), "model": digest(Run.open(options.checkpoint).model)}
    settings |= {name: getattr(options, name) for name in ("tta", "threshold", "dicom_out")}
    check_settings(options.output, settings)
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
            _predict_into(journal, options, todo)
        return _outcome(journal, files, todo, lost)
    finally:
        if not shard:
            journal.write_csv()  # after a Ctrl-C too: what is done can be used
        journal.close()


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """`I/N`, the I-th (from 0) of N shards, or None; anything else is a UserError."""
    if not text:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard: I/N with 0 <= I < N, such as 0/4, got {text!r}")
    return int(index), int(count)


def _predict_into(journal: Journal, options: Options, files: Sequence[Input]) -> None:
    chosen = {name: getattr(options, name) for name in ("tta", "threshold", "batch_size")}
    predictor = Predictor.load(options.checkpoint, options.device, **chosen)
    calibration = str(predictor.info.description.get("calibration", ""))
    if calibration.startswith("none"):
        print(f"note: probabilities are not calibrated ({calibration})", file=sys.stderr)
    rows = predict_files(predictor, files, partial(write_prediction, options.output, dicom=options.dicom_out))
    title = f"predict {options.shard}" if options.shard else "predict"
    # The bars of shards, which share a terminal, would draw over each other.
    for row in tracked(rows, len(files), title, bar=options.shard is None):
        if row["error"] is not None:
            tqdm.write(f"skipped {row['id']}: {row['error']}", file=sys.stderr)  # above the bar, if there is one
        journal.add(row)


def _run_shards(options: Options, devices: Sequence[str]) -> list[str]:
    """Run the command once a device, wait, and give the devices whose process did not reach its end."""
    command = [sys.executable, "-m", "lungseg.predict", "--output", str(options.output)]
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
