"""Exporting a model: the content of the file is made, checked against the network, and only then written."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.config.loading import without_places
from lungseg.errors import ExportError, UserError
from lungseg.exporting import graph
from lungseg.exporting.precision import DropImages, DropScores, compare, find_images, to_fp16, to_int8
from lungseg.exporting.self_check import LIMIT, Arrays, ExportedModel, SelfCheck, check_file
from lungseg.inference.onnx_backend import import_package, open_session
from lungseg.inference.torch_backend import load_torch
from lungseg.models.model_file import read_model_file, write_model_file
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run
from lungseg.runs.whole_files import whole_file, write_whole

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    ".onnx": ("fp32", "fp16", "int8"),
    ".pt2": ("fp32",),
    ".safetensors": ("fp32", "fp16"),
}
"""What each kind of file, by its suffix, can hold."""


def export(
    checkpoint: Path | None, output: Path, precision: Precision = "fp32", licence: str | None = None
) -> Iterator[str]:
    """Write the file and say what was found, line by line.

    Args:
        checkpoint: As of `Run.open`.
        output: Ends in the suffix of its format.
        precision: One that the format has.
        licence: Written into the file; None leaves what the model says.

    Raises:
        ExportError: The check failed; nothing is written.
        UserError: Arguments that do not fit, not a model, or a package that is missing.
    """
    # Everything that the user may have to correct comes before the minute that recording takes.
    _check_request(output, precision)
    if output.suffix == ".onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):  # torch's exporter needs the last
            import_package(name)
    source = Run.open(checkpoint)
    if source.kind == "onnx":
        raise UserError(f"{source.model}: exported already; give the run folder or the .safetensors file it came from")
    backend = load_torch(source, "cpu")
    network, info = backend.network, _described(backend.info, source, licence)
    yield f"model    {source.model}  ({', '.join(info.classes) or 'no classes'}; {info.image_size} px)"
    if output.suffix == ".safetensors":
        yield from _export_tensors(network, info, output, precision)
        return
    program = graph.record(graph.DeployedNetwork(network, info))
    if output.suffix == ".pt2":
        content = graph.to_pt2(program, info)
        module = torch.export.load(io.BytesIO(content)).module()
        yield _passed(check_file(_as_function(module), network, info))
    else:
        model = graph.to_onnx(program, info)
        content = model.SerializeToString()
        full = run_onnx(content)
        yield _passed(check_file(full, network, info))
        if precision != "fp32":
            images = find_images(source, info)
            # It may differ by more than the limit: what that loses is measured, and written into the file.
            smaller = to_fp16(model) if precision == "fp16" else to_int8(model, images.calibration)
            scores = compare({"fp32": full, precision: run_onnx(smaller.SerializeToString())}, images.batches)
            yield from _drop_lines(images, scores)
            measured = {name: found._asdict() for name, found in scores.items()}
            about = {"precision": precision, "measured_on": images.name, **measured}
            smaller.metadata_props.add(key="precision", value=json.dumps(about))
            content = smaller.SerializeToString()
    write_whole(output, content)
    yield _written(output)


def run_onnx(content: bytes) -> ExportedModel:
    """Load the content of an ONNX file, to be called."""
    session = open_session(content)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {graph.INPUT: images}), strict=True))


def _check_request(output: Path, precision: Precision) -> None:
    """Raise a UserError where the file's name and the precision do not fit."""
    if output.suffix not in PRECISIONS:
        raise UserError(f"--output: must end in {', '.join(PRECISIONS)}, got {str(output)!r}")
    there = PRECISIONS[output.suffix]
    if precision not in there:
        raise UserError(f"--precision: {output.suffix} files have {', '.join(there)}, got {precision!r}")


def _as_function(module: Any) -> ExportedModel:
    """A module of tensors as a function of arrays."""

    def call(images: NDArray[np.uint16]) -> Arrays:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return call


def _described(info: ModelInfo, source: Run, licence: str | None) -> ModelInfo:
    """With the run's own config, its folders left out, and the licence if one is given."""
    more: dict[str, Any] = {}
    if source.kind == "checkpoint":
        config = source.config()
        # The file goes to others: they need to know how it was trained, not where.
        plain = without_places(config)
        del plain["run"], plain["wandb"]
        more = {"config": plain, "training_data": "phantoms" if config.data.root is None else "not stated"}
    if licence is not None:
        more["licence"] = licence
    return dataclasses.replace(info, description={**info.description, **more})


def _passed(check: SelfCheck) -> str:
    """The line of a check that holds; an error of one that does not."""
    if not check.largest < LIMIT:  # NaN does not hold
        difference = check.differences[check.worst]
        raise ExportError(
            f"the file differs from the network by {difference:.1e} in {check.worst} (limit {LIMIT:.0e}); not written"
        )
    return (
        f"check    largest difference from the network {check.largest:.1e} ({check.worst}; limit {LIMIT:.0e}); "
        f"letterbox off by {check.levels} of 255 grey levels in {100 * check.share:.2f} % of pixels"
    )


def _drop_lines(images: DropImages, scores: dict[str, DropScores]) -> Iterator[str]:
    """A line for each model, with the differences from the first; what no image tells (NaN) is left out."""
    if images.caveat:
        yield f"note     measured on phantoms: {images.caveat}"
    full = scores["fp32"]
    yield f"measured on {images.name}, {full.images} images"
    for name, found in scores.items():
        columns = zip(DropScores._fields[1:], found[1:], full[1:], strict=True)  # without the number of images
        words = [f"  {score} {value:.5f} ({value - base:+.5f})" for score, value, base in columns if value == value]
        yield f"  {name:<6} {''.join(words)}"


def _export_tensors(network: LungNetwork, info: ModelInfo, output: Path, precision: Precision) -> Iterator[str]:
    """Write tensors, read them again, and compare the networks."""
    # Checked as it will be read: from the file, under a name that nobody takes for a finished one.
    with whole_file(output) as part:
        write_model_file(part, network, info, half=precision == "fp16")
        again = graph.DeployedNetwork(read_model_file(part)[0], info).eval()
        check = check_file(_as_function(again), network, info)
        if precision == "fp32":
            yield _passed(check)
        else:
            yield f"check    largest difference from the network {check.largest:.1e} ({check.worst}): float16 weights"
    yield _written(output)


def _written(output: Path) -> str:
    return f"written  {output}  ({output.stat().st_size / 1e6:.1f} MB)"
