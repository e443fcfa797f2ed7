"""The backend of ONNX files of `python -m lungseg.export`: onnxruntime, or OpenVINO; no torch in the process."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import UserError
from lungseg.inference.backend import Outputs
from lungseg.runs.model_info import KEY, ModelInfo, info_from_json

Session = Callable[[NDArray[np.uint16]], dict[str, NDArray[Any]]]  # Images (B, H, W) to the outputs that are there.
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}


class OnnxBackend:
    """A `Backend` around a session that gives the fields of `Outputs`; threads may share it."""

    def __init__(self, run: Session, info: ModelInfo, concurrent: bool = False):
        self._run, self.info, self.concurrent = run, info, concurrent

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network on images (B, S, S) uint8."""
        # The graph takes 16 bit, so that one file serves deeper images in other programs too.
        count = len(images)
        lacking = {
            "mask_probs": np.zeros(images.shape, np.float32),
            "class_probs": np.zeros((count, 0), np.float32),
            "class_maps": np.zeros((count, 0, 1, 1), np.float32),
        }
        return Outputs(**lacking | self._run(images.astype(np.uint16)))


def load_onnx(path: Path, device: str = "auto", threads: int = 0) -> OnnxBackend:
    """Load an ONNX file.

    Args:
        path: Written by `python -m lungseg.export`.
        device: `auto` and `cpu`: onnxruntime on the CPU; `cuda`, `cuda:1`, `mps`: onnxruntime's provider of that kind,
            if this installation has it; `openvino`: OpenVINO on the CPU.
        threads: That a pass takes; 0 takes those there are.

    Raises:
        UserError: Not an ONNX file of lungseg, damaged, a device that is not there, or a package that is missing.
    """
    if device == "openvino":
        return _load_openvino(path, threads)
    session = open_session(path, device, threads)
    info = _info(path, dict(session.get_modelmeta().custom_metadata_map))
    names = _names_of({output.name for output in session.get_outputs()})

    def run(images: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {"image": images}), strict=True))

    return OnnxBackend(run, info, concurrent=threads == 1 and device in ("auto", "cpu"))


def open_session(model: Path | bytes, device: str = "auto", threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` of a file or of its content; arguments and errors are those of `load_onnx`.

    0 threads are those of `OMP_NUM_THREADS`, if it is set.
    """
    ort = import_package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    options.log_severity_level = 3  # errors alone: it warns of what it optimises
    content = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(content, options, providers=_providers(ort, device))
    except Exception as error:  # its own kinds, which share no base but this
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        file = "the model" if isinstance(model, bytes) else str(model)
        raise UserError(f"{file}: not a readable ONNX file ({type(error).__name__}); is it whole?") from error


def import_package(name: str) -> Any:
    """Import a package that ONNX models need; a UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name if name in ("onnxruntime", "openvino") else "'lungseg[onnx]'"
        raise UserError(f"ONNX models need {name}, which is not installed: pip install {package}") from None


def _providers(ort: Any, device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    if device == "auto":
        return [_PROVIDERS["cpu"]]
    there = [name for name, provider in _PROVIDERS.items() if provider in ort.get_available_providers()]
    if kind not in there or (number and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"device: {device!r} is not one that onnxruntime has here; choose auto, {', '.join(there)}")
    chosen = (_PROVIDERS[kind], {"device_id": number or "0"}) if kind == "cuda" else _PROVIDERS[kind]
    # What a provider cannot compute runs on the CPU.
    return [chosen] if kind == "cpu" else [chosen, _PROVIDERS["cpu"]]


def _load_openvino(path: Path, threads: int) -> OnnxBackend:
    ov = import_package("openvino")
    core = ov.Core()
    try:
        model = core.read_model(path)
        metadata = {name: str(value) for name, value in model.get_rt_info(["framework"]).value.items()}
    except RuntimeError as error:
        raise UserError(f"{path}: not an ONNX file that OpenVINO reads ({type(error).__name__})") from error
    info = _info(path, metadata)
    # Without the outputs that no prediction needs, and without the nodes that only they need.
    names = _names_of({name for output in model.outputs for name in output.names})
    wanted = ov.Model([model.output(name) for name in names], model.get_parameters())
    # Without the hint it computes in bf16 on CPUs that have it, and the masks are others.
    hints = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    compiled = core.compile_model(wanted, "CPU", hints)

    def run(images: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
        results = compiled.create_infer_request().infer([images])  # a request each: they are not shared by threads
        return {name: np.array(results[index]) for index, name in enumerate(names)}

    return OnnxBackend(run, info)


def _names_of(outputs: set[str]) -> list[str]:
    """The fields of `Outputs` that a file has, in their order."""
    return [name for name in Outputs._fields if name in outputs]


def _info(path: Path, metadata: dict[str, str]) -> ModelInfo:
    if KEY not in metadata:
        raise UserError(f"{path}: ONNX, but not of lungseg; give a file of python -m lungseg.export")
    try:
        return info_from_json(metadata[KEY])
    except UserError as error:
        raise UserError(f"{path}: not a model of this version of lungseg: {error}") from error
