"""Smaller ONNX files: weights stored as float16, or the network in 8-bit integers."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.exporting.graph import INPUT
from lungseg.runs.progress import only_errors

_LEAST_VALUES = 256
"""Smaller tensors stay float32: they weigh nothing."""
_QUANTISED = ["Conv", "Add", "Concat", "Resize", "Relu", "Clip"]
"""All that lies between the network's convolutions, so that values stay integers from one to the next."""


def to_fp16(model: Any) -> Any:
    """Store the weights as float16, half the file; a Cast, done once at loading, brings them back to float32.

    Computation stays float32, which is what CPUs are fast at.

    The `onnx.ModelProto` is changed, and given back.
    """
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LEAST_VALUES or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    # In front of all nodes: a graph of ONNX is in order of computation.
    for position, cast in enumerate(casts):
        model.graph.node.insert(position, cast)
    return model


def to_int8(model: Any, images: Sequence[NDArray[np.uint8]]) -> Any:
    """Compute the network in 8-bit integers: static quantisation, weights by channel, activations by their range.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    CVPR 2018. What comes before the first and after the last convolution stays as it is.

    Args:
        model: `onnx.ModelProto`.
        images: (S, S) each, as the network sees them, not those that the loss is measured on: they set the ranges.
    """
    import onnx

    quantization: Any = importlib.import_module("onnxruntime.quantization")  # untyped
    shapes: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
    feeds = ({INPUT: image[None].astype(np.uint16)} for image in images)
    with only_errors(""), tempfile.TemporaryDirectory() as folder:  # the root logger advises what is done here already
        plain, prepared, made = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "prepared", "made"))
        onnx.save(model, plain)
        shapes.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
        # Pre-processing, and what is made of the outputs.
        outside = [node.name for node in (*nodes[: convolutions[0]], *nodes[convolutions[-1] + 1 :])]
        quantization.quantize_static(
            prepared,
            made,
            SimpleNamespace(get_next=lambda: next(feeds, None)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_exclude=outside,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        quantised = onnx.load(made)
    for name in ("producer_name", "producer_version", "doc_string"):
        setattr(quantised, name, getattr(model, name))
    # Quantising writes a new model, without what is known of this one.
    onnx.helper.set_model_props(quantised, {entry.key: entry.value for entry in model.metadata_props})
    return quantised
