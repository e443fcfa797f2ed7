"""The whole of `python -m lungseg.predict`: what is still to do, on one device or several, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lungseg.errors import UserError
from lungseg.inference.dicom_out import check_highdicom
from lungseg.inference.inputs import Input, find_inputs
from lungseg.inference.journal import Journal, Row, check_settings, collect_parts, done_ids, write_csv
from lungseg.inference.predictor import Predictor
from lungseg.inference.running import predict_files, shown
from lungseg.inference.shards import parse_shard, run_shards
from lungseg.inference.writing import write_prediction
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


@dataclass(frozen=True)
class Outcome:
    """What came of it, in numbers of files."""

    inputs: int
    before: int
    """Done by an earlier run."""
    done: int
    skipped: int
    """Could not be read."""
    flagged: int
    """With at least one flag, earlier ones included."""
    lost: tuple[str, ...] = ()
    """Devices whose process did not reach its end."""


def predict(options: Options) -> Outcome:
    """Predict all that is not done yet; see `lungseg.predict`.

    Raises:
        FileNotFoundError: An input or a model that is not there.
        ValueError: An option out of range, an output folder of other predictions, or in use.
    """
    devices = options.device.split(",")
    shard = parse_shard(options.shard) if options.shard else None
    if shard and len(devices) > 1:
        raise UserError(f"--device: one device for a shard, got {options.device!r}")
    if options.dicom_out:
        check_highdicom()
    inputs = find_inputs(options.inputs, options.output)
    check_settings(options.output, _settings(options, inputs.root))
    if shard:
        return _predict_shard(options, shard, inputs.files[shard[0] :: shard[1]])
    journal = Journal(options.output)
    try:
        collect_parts(journal)
        todo, lost = _todo(options, inputs.files), []
        journal.drop({file.id for file in todo})
        if todo and len(devices) > 1:
            lost = run_shards(_words(options), devices)
            collect_parts(journal)
        elif todo:
            _predict_into(journal, options, todo)
        return _outcome(journal, inputs.files, todo, lost)
    finally:
        write_csv(journal)
        journal.close()


def _predict_shard(options: Options, shard: tuple[int, int], files: Sequence[Input]) -> Outcome:
    journal = Journal(options.output, shard)
    try:
        todo = _todo(options, files)
        journal.drop({file.id for file in todo})
        if todo:
            _predict_into(journal, options, todo, f"predict {options.shard}")
        return _outcome(journal, files, todo, [])
    finally:
        journal.close()


def _predict_into(journal: Journal, options: Options, files: Sequence[Input], what: str = "predict") -> None:
    predictor = Predictor.load(
        options.checkpoint,
        options.device,
        tta=options.tta,
        threshold=options.threshold,
        batch_size=options.batch_size,
    )
    calibration = str(predictor.info.description.get("calibration", ""))
    if calibration.startswith("none"):
        print(f"note: probabilities are not calibrated ({calibration})", file=sys.stderr)
    write = partial(write_prediction, options.output, dicom=options.dicom_out)
    for row in shown(predict_files(predictor, files, write), len(files), what, bar=options.shard is None):
        journal.add(row)


def _todo(options: Options, files: Sequence[Input]) -> list[Input]:
    done = done_ids(options.output, files)
    return [file for file in files if file.id not in done]


def _settings(options: Options, root: Path) -> Row:
    """What results depend on."""
    return {
        "inputs_below": str(root),
        "model": digest(Run.open(options.checkpoint).model),
        "tta": options.tta,
        "threshold": options.threshold,
        "dicom_out": options.dicom_out,
    }


def _words(options: Options) -> list[str]:
    """Arguments of the command that mean the same, but for device and shard."""
    words = ["--output", str(options.output), "--batch-size", str(options.batch_size)]
    words += ["--threshold", repr(options.threshold)]
    words += ["--checkpoint", str(options.checkpoint)] if options.checkpoint else []
    words += ["--tta"] if options.tta else []
    words += ["--dicom-out"] if options.dicom_out else []
    return [*words, "--", *options.inputs]


def _outcome(journal: Journal, files: Sequence[Input], todo: Sequence[Input], lost: Sequence[str]) -> Outcome:
    asked, new = {file.id for file in files}, {file.id for file in todo}
    done = skipped = flagged = 0
    for row in journal.rows():
        if row["id"] in new:
            done += row["error"] is None
            skipped += row["error"] is not None
        flagged += row["id"] in asked and bool(row.get("flags"))
    return Outcome(len(files), len(files) - len(todo), done, skipped, flagged, tuple(lost))
