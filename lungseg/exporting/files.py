"""Exporting a model: the content of the file is made, checked against the network, and only then written."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.errors import ExportError, UserError
from lungseg.exporting import recording
from lungseg.exporting.graph import INPUT, DeployedNetwork, GraphOutputs
from lungseg.exporting.precision import to_fp16, to_int8
from lungseg.exporting.quantisation_drop import Exam, Scores, compare, find_exam
from lungseg.exporting.self_check import LIMIT, Arrays, Check, FileAtWork, check_file
from lungseg.inference.onnx_backend import open_session
from lungseg.inference.torch_backend import load_torch
from lungseg.models.model_file import read_model_file, write_model_file
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_whole

Format = Literal["onnx", "torch", "safetensors"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch", ".safetensors": "safetensors"}


@dataclass(frozen=True)
class Order:
    """What is to be exported, checked.

    Raises:
        ValueError: A format that does not fit the file's name, or a precision that the format has not.
    """

    output: Path
    format: Format
    precision: Precision
    licence: str | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        suffix = next(suffix for suffix, name in SUFFIXES.items() if name == self.format)
        if self.output.suffix != suffix:
            raise UserError(f"--output: a file of --format {self.format} ends in {suffix}, got {str(self.output)!r}")
        there = {"onnx": get_args(Precision), "torch": ("fp32",), "safetensors": ("fp32", "fp16")}[self.format]
        if self.precision not in there:
            raise UserError(f"--precision: {self.format} files have {', '.join(there)}, got {self.precision!r}")


def format_of(output: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        ValueError: None of them.
    """
    if output.suffix not in SUFFIXES:
        raise UserError(f"--output: must end in {', '.join(SUFFIXES)}, got {str(output)!r}")
    return SUFFIXES[output.suffix]


def export(checkpoint: Path | None, order: Order) -> Iterator[str]:
    """Write the file and say what was found, line by line.

    Args:
        checkpoint: As of `Run.open`.
        order: What is wanted.

    Raises:
        ExportError: The check failed; nothing is written.
        ValueError: Not a model, or a package that is missing.
    """
    if order.format == "onnx":
        recording.require_onnx()
    source = Run.open(checkpoint)
    if source.kind == "onnx":
        raise UserError(f"{source.model}: exported already; give the run folder or the .safetensors file it came from")
    model = load_torch(source, "cpu")
    network, info = model.network, _described(model.info, source, order.licence)
    yield f"model    {source.model}  ({', '.join(info.classes)}; {info.image_size} px)"
    if order.format == "safetensors":
        yield from _export_tensors(network, info, order)
        return
    program = recording.record(DeployedNetwork(network, info))
    if order.format == "torch":
        content = recording.to_pt2(program, info)
        yield _passed(check_file(_run_pt2(content), network, info), "the network")
    else:
        whole = recording.to_onnx(program, info)
        content = whole.SerializeToString()
        run = run_onnx(content)
        yield _passed(check_file(run, network, info), "the network")
        if order.precision != "fp32":
            exam = find_exam(source, info)
            smaller, scores, lines = _shrink(whole, run, exam, order.precision)
            yield from lines
            content = _with_scores(smaller, exam, scores, order.precision)
    yield _write(order.output, content)


def run_onnx(content: bytes) -> FileAtWork:
    """An ONNX file at work."""
    session = open_session(content)
    names = list(GraphOutputs._fields)
    return lambda images: dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def _run_pt2(content: bytes) -> FileAtWork:
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: NDArray[np.uint16]) -> Arrays:
        with torch.inference_mode():
            found = module(torch.from_numpy(images))
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run


def _described(info: ModelInfo, source: Run, licence: str | None) -> ModelInfo:
    """With the run's own config, its folders left out, and the licence if one is given."""
    more: dict[str, Any] = {}
    if source.kind == "checkpoint":
        config = source.config()
        root = "phantoms" if config.data.root is None else Path(config.data.root).name
        plain = dataclasses.asdict(config)
        plain["data"] |= {"root": root, "cache_dir": None}
        del plain["run"], plain["wandb"]
        more = {"config": plain, "training_data": root}
    if licence is not None:
        more["licence"] = licence
    return dataclasses.replace(info, description={**info.description, **more})


def _passed(check: Check, what: str) -> str:
    """The line of a check that holds; an error of one that does not."""
    if not check.largest < LIMIT:  # NaN does not hold
        name, found = check.worst, check.differences
        raise ExportError(
            f"the file differs from {what} by {found[name]:.1e} in {name} (limit {LIMIT:.0e}); not written"
        )
    return (
        f"check    largest difference from {what} {check.largest:.1e} ({check.worst}; limit {LIMIT:.0e}); "
        f"letterbox off by {check.levels} of 255 grey levels in {100 * check.share:.2f} % of pixels"
    )


def _shrink(whole: Any, run: FileAtWork, exam: Exam, precision: Precision) -> tuple[Any, dict[str, Scores], list[str]]:
    """Make the smaller model and measure it beside the whole one."""
    smaller = to_fp16(whole) if precision == "fp16" else to_int8(whole, exam.calibration())
    scores = compare({"fp32": run, precision: run_onnx(smaller.SerializeToString())}, exam.batches())
    lines = [f"note     measured on phantoms: {exam.note}"] if exam.note else []
    lines.append(f"measured on {exam.name}, {scores['fp32'].images} images")
    for name, found in scores.items():
        lost = "".join(
            f"  {score} {getattr(found, score):.5f} ({getattr(found, score) - getattr(scores['fp32'], score):+.5f})"
            for score in Scores._fields[1:]
        )
        lines.append(f"  {name:<6} {lost}")
    return smaller, scores, lines


def _with_scores(model: Any, exam: Exam, scores: dict[str, Scores], precision: Precision) -> bytes:
    """The file's content, with what was measured in its metadata."""
    entry = model.metadata_props.add()
    measured = {name: found._asdict() for name, found in scores.items()}
    entry.key, entry.value = "precision", json.dumps({"precision": precision, "measured_on": exam.name, **measured})
    return bytes(model.SerializeToString())


def _export_tensors(network: LungNetwork, info: ModelInfo, order: Order) -> Iterator[str]:
    """Write tensors, read them again, and compare the networks."""
    part = order.output.with_name(f"{order.output.stem}.part{order.output.suffix}")
    try:
        write_model_file(part, network, info, half=order.precision == "fp16")
        again = DeployedNetwork(read_model_file(part)[0], info).eval()

        def run(images: NDArray[np.uint16]) -> Arrays:
            with torch.inference_mode():
                found = again(torch.from_numpy(images))
            return {name: tensor.numpy() for name, tensor in found.items()}

        check = check_file(run, network, info)
        if order.precision == "fp32":
            yield _passed(check, "the network")
        else:
            yield f"check    largest difference from the network {check.largest:.1e} ({check.worst}): float16 weights"
        part.replace(order.output)
    finally:
        part.unlink(missing_ok=True)
    yield f"written  {order.output}  ({order.output.stat().st_size / 1e6:.1f} MB)"


def _write(output: Path, content: bytes) -> str:
    write_whole(output, content)
    return f"written  {output}  ({len(content) / 1e6:.1f} MB)"
