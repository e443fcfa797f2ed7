"""From a network to a graph: recorded by torch.export, kept as it is (.pt2) or translated to ONNX."""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from lungseg import __version__
from lungseg.errors import UserError
from lungseg.exporting.graph import INPUT, DeployedNetwork, GraphOutputs
from lungseg.runs.model_info import ModelInfo, info_to_json

KEY = "lungseg"
"""Under which a file holds what is known of its model, as `backend.info_to_json` writes it."""
EXTRA_FILE = f"{KEY}.json"
"""The same in a .pt2 file."""
OPSET = 21
DIMENSIONS = ("batch", "height", "width")
"""Of the input; any from 1 on."""
_LARGEST = 2**16
_NOISY = ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")


def record(module: DeployedNetwork) -> ExportedProgram:
    """Record the module with batch and image size left open."""
    shape = {axis: Dim(name, min=1, max=_LARGEST) for axis, name in enumerate(DIMENSIONS)}
    example = torch.arange(2 * 70 * 90, dtype=torch.int32).reshape(2, 70, 90).to(torch.uint16)
    with torch.no_grad(), _quiet():
        return torch.export.export(module.eval(), (example,), dynamic_shapes={INPUT: shape})


def to_pt2(program: ExportedProgram, info: ModelInfo) -> bytes:
    """The content of a .pt2 file: the recorded graph, and what is known of the model as `EXTRA_FILE`."""
    content = io.BytesIO()
    with _quiet():
        torch.export.save(program, content, extra_files={EXTRA_FILE: info_to_json(info)})
    return content.getvalue()


def require_onnx() -> None:
    """Raise a ValueError if the extra `onnx` is not installed."""
    for name in ("onnx", "onnxruntime", "onnxscript"):  # torch's exporter needs the last
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--format onnx needs {name!r}: pip install 'lungseg[onnx]'") from error


def to_onnx(program: ExportedProgram, info: ModelInfo) -> Any:
    """Translate to an `onnx.ModelProto`, with names for open dimensions and what is known of the model."""
    import onnx

    with _quiet():
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            optimize=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(GraphOutputs._fields),
        )
    assert translated is not None  # it is with `dynamo`
    model = translated.model_proto
    _name_dimensions(model)
    _forget_sources(model)
    model.producer_name, model.producer_version = "lungseg", __version__
    model.doc_string = "Lung mask, class and class map of a chest X-ray. Research software, not a medical device."
    onnx.helper.set_model_props(model, properties(info))
    return model


def properties(info: ModelInfo) -> dict[str, str]:
    """The metadata of an ONNX file: everything under `KEY`, and each part under its own name for other programs."""
    text = info_to_json(info)
    parts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in json.loads(text).items()}
    return {**parts, KEY: text}


def _name_dimensions(model: Any) -> None:
    names = {d.dim_param: name for d, name in zip(_shape(model.graph.input[0]), DIMENSIONS, strict=True)}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in _shape(value):
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]


def _forget_sources(model: Any) -> None:
    """Remove what the exporter notes of every node: the lines and folders of the source it comes from."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _shape(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on how they work; their errors are exceptions."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
