"""Smaller ONNX files (weights stored as float16, or the network in 8-bit integers), and what that loses.

The loss is dice and accuracy on images that the file was not made with, beside those of the full one.
"""

import importlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.data.batch import Batch
from lungseg.data.decode import read_sample
from lungseg.data.phantom.generator import Phantom, draw_phantom
from lungseg.exporting.graph import INPUT
from lungseg.exporting.self_check import ExportedModel
from lungseg.models.metrics import MaskScores
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.progress import only_errors
from lungseg.runs.run import Run

CALIBRATION_IMAGES = 64  # Training images that set the ranges of int8.
_PHANTOMS = 60
_LEAST_VALUES = 256  # Smaller tensors stay float32: they weigh nothing.
_QUANTISED = ["Conv", "Add", "Concat", "Resize", "Relu", "Clip"]
"""All that lies between the network's convolutions, so that values stay integers from one to the next."""


def to_fp16(model: Any) -> Any:
    """Store the weights as float16, half the file; a Cast, done once at loading, brings them back to float32.

    Computation stays float32, which is what CPUs are fast at. The `onnx.ModelProto` is changed, and given back.
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


def to_int8(model: Any, images: Iterable[NDArray[np.uint8]]) -> Any:
    """Compute the network in 8-bit integers: static quantisation, weights by channel, activations by their range.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    CVPR 2018. What comes before the first and after the last convolution of the `onnx.ModelProto` stays as it is. The
    images (S, S), as the network sees them, set the ranges: not those that the loss is measured on.
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


class DropImages(NamedTuple):
    """Images to measure the drop on, to be read once."""

    name: str
    batches: Iterable[Batch]
    calibration: Iterable[NDArray[np.uint8]]  # Other images (S, S), for int8.
    caveat: str = ""  # Why they are not the run's own, if they are not.


class DropScores(NamedTuple):
    """Means over the images; NaN where none has the target."""

    images: int
    dice: float  # Of each image by itself; 1 where both masks are empty.
    pixel_accuracy: float
    infection_dice: float  # Of each image with infection.
    accuracy: float


def find_images(run: Run, info: ModelInfo) -> DropImages:
    """Val of a run, with images of its Train for the calibration, or phantoms where the run's data are not there."""
    from lungseg.evaluation.target import load_target

    if run.kind != "checkpoint":
        return _phantoms(info, "the model is no run folder with data of its own")
    # A run may outlive its data, or have come from another machine: phantoms are better than no number.
    try:
        target = load_target(run.model, [], "val")
    except (ValueError, OSError) as error:
        return _phantoms(info, " ".join(str(error).split()))
    samples = target.data.samples["train"]
    chosen = samples[:: max(1, len(samples) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
    calibration = (read_sample(sample, info.image_size, info.keep_aspect)[0] for sample in chosen)
    return DropImages(f"Val of {target.data_name}", target.batches(), calibration)


def compare(models: Mapping[str, ExportedModel], batches: Iterable[Batch]) -> dict[str, DropScores]:
    """Measure models on the same images, in one pass."""
    masks = {(name, kind): MaskScores() for name in models for kind in ("lung", "infection")}
    right: dict[str, list[bool]] = {name: [] for name in models}
    count = 0
    for batch in batches:
        batch = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        images = np.rint(batch["image"][:, 0].numpy() * 255).astype(np.uint16)
        true = {kind: batch[kind][:, 0] > 0.5 for kind in ("lung", "infection")}
        infected = batch["has_infection"] & true["infection"].flatten(1).any(1)
        count += len(images)
        for name, model in models.items():
            outputs = {output: torch.from_numpy(values) for output, values in model(images).items()}
            of_kind = [("lung", "mask_probs", batch["has_lung"]), ("infection", "infection_probs", infected)]
            for kind, output, known in of_kind:
                # torchmetrics warns of a metric that never had an update.
                if output in outputs and known.any():
                    masks[name, kind].update((outputs[output] > 0.5)[known], true[kind][known])
            if "label" in outputs:
                right[name] += (outputs["label"] == batch["label"])[batch["has_label"]].tolist()
    scores = {}
    for name in models:
        lung, infection = (_computed(masks[name, kind]) for kind in ("lung", "infection"))
        dice, pixel_accuracy = (lung.get(score, np.nan) for score in ("dice", "pixel_accuracy"))
        accuracy = float(np.mean(right[name])) if right[name] else np.nan
        scores[name] = DropScores(count, dice, pixel_accuracy, infection.get("dice", np.nan), accuracy)
    return scores


def _computed(scores: MaskScores) -> dict[str, float]:
    """Scores by name; none without an image."""
    return {name: float(value) for name, value in scores.compute().items()} if scores.update_called else {}


def _phantoms(info: ModelInfo, reason: str) -> DropImages:
    """Phantoms of the classes in turn."""

    def draw(seeds: Iterable[int]) -> Iterator[Phantom]:
        return (draw_phantom(seed, size_px=info.image_size) for seed in seeds)

    batches = (
        {
            "image": torch.from_numpy(phantom.image)[None, None].float() / 255,
            "lung": torch.from_numpy(phantom.lung)[None, None].float(),
            "infection": torch.from_numpy(phantom.infection)[None, None].float(),
            "label": torch.tensor([_label_of(phantom, info)]),
            "has_lung": torch.tensor([True]),
            "has_infection": torch.tensor([True]),
            "has_label": torch.tensor([_label_of(phantom, info) >= 0]),
        }
        for phantom in draw(range(_PHANTOMS))
    )
    calibration = (phantom.image for phantom in draw(range(_PHANTOMS, _PHANTOMS + CALIBRATION_IMAGES)))
    return DropImages(f"{_PHANTOMS} phantoms", batches, calibration, reason)


def _label_of(phantom: Phantom, info: ModelInfo) -> int:
    """What the model calls the class of a phantom; -1 where it does not know it."""
    return info.classes.index(phantom.class_name) if phantom.class_name in info.classes else -1
