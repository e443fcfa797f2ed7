"""The network with all that surrounds it as one graph: grey images of any size in, masks, classes and maps out.

Recorded by torch.export, it is kept as it is (.pt2) or translated to ONNX. The letterbox of `data.geometry` becomes
matrices in it, so that a graph of tensors alone can resize images of any size.
"""

import io
import json
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lungseg import __version__
from lungseg.cam.lung import evidence_in_lungs, mask_to_lung, resize_map
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import KEY, ModelInfo, info_to_json
from lungseg.runs.progress import only_errors

INPUT = "image"
EXTRA_FILE = f"{KEY}.json"  # What `KEY` is in a .pt2 file.
OPSET = 21
DIMENSIONS = ("batch", "height", "width")  # Of the input; any from 1 on.
_LARGEST = 2**16
_NOISY = ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")


class GraphOutputs(NamedTuple):
    """What an exported file gives for B images of H x W pixels; S is the network's size, C the number of classes.

    A file has no output that its network does not predict: those of masks, of classes, or of both (`lung_map`, ...).
    """

    mask_probs: Tensor | None = None  # (B, S, S) float32 in [0, 1]: probability of lung.
    class_probs: Tensor | None = None
    """(B, C) float32, calibrated by the temperature; rows sum to 1, unless an image may have several classes."""
    class_maps: Tensor | None = None  # (B, C, h, w) float32 raw maps, any sign.
    label: Tensor | None = None  # (B,) int64: index of the class of the highest probability.
    lung_map: Tensor | None = None
    """(B, S, S) float32 in [0, 1]: map of that class inside the lungs, by its maximum there."""
    evidence_in_lungs: Tensor | None = None
    """(B,) float32 in [0, 1]: share of the map's positive evidence in the lungs, before the crop; NaN without any."""
    mask_probs_full: Tensor | None = None  # (B, H, W) float32: `mask_probs` at the image's own size.
    lung_map_full: Tensor | None = None  # (B, H, W) float32: `lung_map` at the image's own size.
    square: Tensor | None = None  # (B, S, S) uint8: what the network saw.
    infection_probs: Tensor | None = None
    """(B, S, S) float32 in [0, 1]: probability of infection; a file of a network that does not predict it has none."""
    infection_probs_full: Tensor | None = None  # (B, H, W) float32: `infection_probs` at the image's own size.
    disagreement: Tensor | None = None  # (B, 2) float32 of an ensemble, of classes and of lungs; see `LungOutput`.


class DeployedNetwork(nn.Module):
    """Pre-processing as `images.read_image` and `geometry.Letterbox` do it, the network, and what is made of its maps.

    The network must be in evaluation mode.
    """

    def __init__(self, network: LungNetwork, info: ModelInfo):
        super().__init__()
        self.network, self.info = network, info

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run images (B, H, W) uint16, 8-bit ones as they are, deeper ones by their full scale, each by itself.

        The result is `GraphOutputs` as a dictionary, which is what a .pt2 file can hold.
        """
        info = self.info
        size = (info.image_size, info.image_size)
        fit = letterbox_matrices((image.shape[1], image.shape[2]), info.image_size, info.keep_aspect)
        exact = fit.rows @ to_8bit(image) @ fit.columns.T
        # Rounded as OpenCV rounds, so that the network sees the very pixels that it sees in `predict`.
        square = torch.where(fit.halves, (exact + 0.5).floor(), exact.round()).clamp(0, 255)
        output = self.network(square[:, None] / 255)
        outputs = GraphOutputs(square=square.to(torch.uint8), disagreement=output.disagreement)
        if self.network.has_lung:
            mask_probs = output.mask_logits[:, 0].sigmoid()
            full = fit.rows_back @ mask_probs @ fit.columns_back.T
            outputs = outputs._replace(mask_probs=mask_probs, mask_probs_full=full)
        if info.classes:
            outputs = outputs._replace(
                class_probs=self.network.probabilities(output.class_logits / info.temperature),
                class_maps=output.class_maps,
                label=output.class_logits.argmax(dim=1),
            )
        if outputs.mask_probs is not None and outputs.label is not None:
            lung = outputs.mask_probs > 0.5
            chosen = outputs.label[:, None] == torch.arange(output.class_maps.shape[1])
            cam = resize_map((output.class_maps * chosen[:, :, None, None]).sum(dim=1), info.map_stride, size)
            lung_map = mask_to_lung(cam, lung)
            outputs = outputs._replace(
                lung_map=lung_map,
                evidence_in_lungs=evidence_in_lungs(cam, lung),
                lung_map_full=fit.rows_back @ lung_map @ fit.columns_back.T,
            )
        if output.mask_logits.shape[1] > 1:
            infection_probs = output.mask_logits[:, 1].sigmoid()
            full = fit.rows_back @ infection_probs @ fit.columns_back.T
            outputs = outputs._replace(infection_probs=infection_probs, infection_probs_full=full)
        return {name: value for name, value in outputs._asdict().items() if value is not None}


def to_8bit(image: Tensor) -> Tensor:
    """Scale images (B, H, W) to 0..255 whole numbers, float32, each by the full scale of `dicom.full_scale`.

    Exact: up to 16 bit, neither a product nor a quotient comes near a tie that float32 would miss.
    """
    # The depth is found in whole numbers: OpenVINO computes in bfloat16 where a CPU has it, and there 4095 is 4096.
    whole = image.int()
    top = whole.amax(dim=(1, 2), keepdim=True)
    scale = torch.full_like(top, 255)
    for bits in (8, 10, 12, 14):
        scale = torch.where(top >= 2**bits, 2 ** (bits + 2) - 1, scale)
    return (whole.float() * 255 / scale.float()).round()


class Resampling(NamedTuple):
    """Matrices that bring an image (H, W) to the square S, `rows @ image @ columns.T`, and a map of it back."""

    rows: Tensor  # (S, H) float32; zero where the bars are.
    columns: Tensor  # (S, W) float32.
    rows_back: Tensor  # (H, S) float32.
    columns_back: Tensor  # (W, S) float32.
    halves: Tensor
    """bool scalar: both sides shrink by exactly 2, which OpenCV rounds half up, and anything else half to even."""


def letterbox_matrices(shape: tuple[int, int], size_px: int, keep_aspect: bool) -> Resampling:
    """The weights that `geometry.Letterbox` gives each pixel.

    Args:
        shape: (H, W) of the image, pixels; may be symbolic, as while a graph is recorded.
        size_px: Side S of the square.
        keep_aspect: The longer side becomes S; false: both do.
    """
    sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in shape]
    longer = torch.maximum(*sides)
    square = torch.arange(size_px)
    there, back, halves = [], [], []
    for length, side in zip(shape, sides, strict=True):
        content = ((2 * side * size_px + longer) // (2 * longer)).clamp_min(1) if keep_aspect else side * 0 + size_px
        position, pixel = square - (size_px - content) // 2, torch.arange(length)
        inside = ((position >= 0) & (position < content)).float()
        there.append(_weights(position, content, pixel, side) * inside[:, None])
        back.append(_weights(pixel, side, position, content) * inside)
        halves.append(side == 2 * content)
    return Resampling(there[0], there[1], back[0], back[1], halves[0] & halves[1])


def record(module: DeployedNetwork) -> ExportedProgram:
    """Record the module with batch and image size left open."""
    shape = {axis: Dim(name, min=1, max=_LARGEST) for axis, name in enumerate(DIMENSIONS)}
    # Neither 1 nor equal: the recorder would take such sides as fixed, or as one.
    example = torch.arange(2 * 70 * 90, dtype=torch.int32).reshape(2, 70, 90).to(torch.uint16)
    with torch.no_grad(), only_errors(*_NOISY):
        return torch.export.export(module.eval(), (example,), dynamic_shapes={INPUT: shape})


def to_pt2(program: ExportedProgram, info: ModelInfo) -> bytes:
    """The content of a .pt2 file: the recorded graph, and what is known of the model as `EXTRA_FILE`."""
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)  # lines and folders of the source on this machine
    content = io.BytesIO()
    with only_errors(*_NOISY):
        torch.export.save(program, content, extra_files={EXTRA_FILE: info_to_json(info)})
    return content.getvalue()


def _output_names(info: ModelInfo) -> list[str]:
    """Fields of `GraphOutputs` that the file of a model has, in their order."""
    classes = {"class_probs", "class_maps", "label"} if info.classes else set()
    masks = {"mask_probs", "mask_probs_full"} if info.has_lung else set()
    both = {"lung_map", "evidence_in_lungs", "lung_map_full"} if classes and masks else set()
    infected = info.description.get("model", {}).get("infection")
    infection = {"infection_probs", "infection_probs_full"} if infected else set()
    ensemble = {"disagreement"} if "members" in info.description else set()
    there = {"square", *classes, *masks, *both, *infection, *ensemble}
    return [name for name in GraphOutputs._fields if name in there]


def to_onnx(program: ExportedProgram, info: ModelInfo) -> Any:
    """Translate to an `onnx.ModelProto`, with names for open dimensions and what is known of the model."""
    import onnx

    given = _output_names(info)
    assert len(given) == len(program.graph_signature.user_outputs)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(given)}
    with only_errors(*_NOISY):
        translated = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=OPSET, **names)
    assert translated is not None  # it is with `dynamo`
    model = translated.model_proto
    graph = model.graph
    opened = graph.input[0].type.tensor_type.shape.dim
    called = {dimension.dim_param: name for dimension, name in zip(opened, DIMENSIONS, strict=True)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_param = called.get(dimension.dim_param, dimension.dim_param)
    # The exporter notes of every node the lines and folders of the source that it comes from.
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.producer_name, model.producer_version = "lungseg", __version__
    model.doc_string = "Lung mask, class and class map of a chest X-ray. Research software, not a medical device."
    text = info_to_json(info)
    # Everything under `KEY`, and each part under its own name for other programs.
    parts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in json.loads(text).items()}
    onnx.helper.set_model_props(model, {**parts, KEY: text})
    return model


def _weights(to: Tensor, to_length: Tensor, source: Tensor, source_length: Tensor) -> Tensor:
    """(len(to), len(source)) float32: the share of pixels `source` in pixels `to` of an axis that changes its length.

    With `scale = source_length / to_length` and a pixel's centre `c_i = (i + 0.5) * scale - 0.5`, within the axis:

        w_ij = clamp((max(scale, 1) + 1) / 2 - |c_i - j|, 0, 1) / max(scale, 1)

    which is the overlap of areas (cv2.INTER_AREA) where the axis shrinks and linear interpolation (cv2.INTER_LINEAR)
    where it grows. Whole numbers up to the last division, exact in float32 up to `S * H = 8` million.
    """
    t, s = to_length.float(), source_length.float()
    wider = torch.maximum(s, t)
    centre = torch.minimum(((2 * to.float() + 1) * s - t).clamp_min(0), 2 * t * (s - 1))
    distance = (centre[:, None] - (2 * t * source.float())[None]).abs()
    return torch.minimum((wider + t - distance).clamp_min(0), 2 * t) / (2 * wider)
