"""`Predictor`: an image, a path, or many of them in; predictions out. The network may be of any backend."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from lungseg.data.lungs_apart import part_lungs
from lungseg.data.severity import severity_of
from lungseg.errors import UserError, check
from lungseg.inference.backend import Backend, all_finite
from lungseg.inference.input_checks.checks import check_image, check_input
from lungseg.inference.prediction import Disagreement, Flag, LungAreas, Prediction
from lungseg.inference.preprocess import Picture, enlarge_map, evidence_in_lungs, letterbox_of, read_picture, to_picture
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import BOXED_ONNX, Run

One = str | Path | NDArray[Any]  # A PIL image will do as an array.
BACKENDS = ("auto", "onnx", "torch")
INFECTION_THRESHOLD = 0.5  # Probability of infection above which a pixel is infected, as evaluation measures it.


class SquarePrediction(NamedTuple):
    """What the network says of one image, in its own square of side S."""

    mask_probs: NDArray[np.float32]  # (S, S) float32 in [0, 1].
    class_probs: NDArray[np.float32]  # (C,) float32.
    class_map: NDArray[np.float32]  # (S, S) float32, of the class with the highest probability; 0 without classes.
    infection_probs: NDArray[np.float32] | None = None  # (S, S) float32 in [0, 1]; None if the network predicts none.
    finding_maps: NDArray[np.float32] | None = None
    """(K, S, S) float32 class maps of the findings that are called, where an image may have several, else None."""
    disagreement: NDArray[np.float32] | None = None  # (2,) float32 of an ensemble, as of `Outputs`.


class Predictor:
    """A network ready for images of any size; threads may share it.

    Args:
        backend: The network.
        tta: Average over the image and its mirror image: twice the time.
        threshold: Probability of lung, in (0, 1), above which a pixel is lung.
        batch_size: Images a pass.
    """

    def __init__(self, backend: Backend, *, tta: bool = False, threshold: float = 0.5, batch_size: int = 16):
        check(0 < threshold < 1, "threshold", "in (0, 1)", threshold)
        check(batch_size >= 1, "batch_size", ">= 1", batch_size)
        self.backend, self.tta, self.threshold, self.batch_size = backend, tta, threshold, batch_size

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "auto", backend: str = "auto", **options: Any) -> Self:
        """Load a model as `load_backend` does, with its errors; `options` are those of the class."""
        return cls(load_backend(path, device, backend), **options)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", revision: str | None = None, **options: Any
    ) -> Self:
        """Load a folder of `save_pretrained`, or `OWNER/NAME` from the Hugging Face Hub; see `find_hub_folder`."""
        with _without_wandb():
            from lungseg.models.model_file import find_hub_folder

        return cls.load(find_hub_folder(name, revision), device, **options)

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Write the network in the layout of the Hugging Face Hub; see `write_hub_folder`; no exported one."""
        network = getattr(self.backend, "network", None)
        if network is None:
            raise UserError(
                "an exported model cannot be saved again; load the run or .safetensors it was made of, "
                'or the model that comes along with backend="torch"'
            )
        from lungseg.models.model_file import write_hub_folder

        write_hub_folder(Path(folder), network, self.info, half)

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""
        return self.backend.info

    @overload
    def __call__(self, images: str | Path) -> Prediction: ...
    @overload
    def __call__(self, images: NDArray[Any]) -> Prediction | list[Prediction]: ...
    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    def __call__(self, images: One | list[Any] | tuple[Any, ...]) -> Prediction | list[Prediction]:
        """Predict.

        Args:
            images: One image: a path, an array (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB, or a PIL image. Many: a
                list or tuple of these, or an array (B, H, W); gives a list.

        Raises:
            DataError: A file that cannot be read, in one line.
            UserError: An array that is no image.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] not in (3, 4):
            images = list(images)  # a last axis of 3 or 4 would hold colours: no X-ray is so narrow
        if not isinstance(images, (list, tuple)):
            return self._predict([images])[0]
        predictions: list[Prediction] = []
        for start in range(0, len(images), self.batch_size):
            predictions += self._predict(list(images[start : start + self.batch_size]))
        return predictions

    def prepare(self, image: One) -> tuple[Picture, NDArray[np.uint8]]:
        """Read one image and bring it to the network's square (S, S) uint8."""
        picture = read_picture(Path(image)) if isinstance(image, (str, Path)) else to_picture(np.asarray(image))
        return picture, letterbox_of(picture, self.info).apply(picture.pixels)

    def run(self, squares: NDArray[np.uint8]) -> list[SquarePrediction]:
        """Run the network on images (B, S, S) uint8."""
        passes = [self.backend(squares)]
        if self.tta:
            # A copy: torch takes no array with negative strides.
            passes.append(self.backend(np.ascontiguousarray(squares[:, :, ::-1])))
        # The class is that of the mean, so that both maps are of one class.
        class_probs = np.stack([each.class_probs for each in passes]).mean(axis=0, dtype=np.float32)
        predicted = []
        for i, probs in enumerate(class_probs):
            masks = [each.mask_probs[i] for each in passes]

            def map_of(label: int, i: int = i) -> NDArray[np.float32]:
                return _mean_of_mirrors([enlarge_map(each.class_maps[i, label], self.info) for each in passes])

            class_map = map_of(int(probs.argmax())) if len(probs) else np.zeros_like(masks[0])
            called = [map_of(label) for label in self.called(probs)]
            found = np.stack(called) if called else np.zeros((0, *masks[0].shape), np.float32)
            infections = [each.infection_probs[i] for each in passes if each.infection_probs is not None]
            infection = _mean_of_mirrors(infections) if infections else None
            findings = found if self.info.multi_label else None
            between = [each.disagreement[i] for each in passes if each.disagreement is not None]
            apart = np.stack(between).mean(axis=0, dtype=np.float32) if between else None
            predicted.append(SquarePrediction(_mean_of_mirrors(masks), probs, class_map, infection, findings, apart))
        return predicted

    def called(self, probs: NDArray[np.float32]) -> tuple[int, ...]:
        """Findings whose probability (C,) reaches their threshold, the surest first; none of exclusive classes."""
        if not self.info.multi_label:
            return ()
        above = [label for label, least in enumerate(self.info.thresholds) if probs[label] >= least]
        return tuple(sorted(above, key=lambda label: -probs[label]))

    def class_set(self, probs: NDArray[np.float32]) -> tuple[int, ...] | None:
        """Classes that the probabilities (C,) do not exclude, the likeliest first; None of a model without sets."""
        least = self.info.least_probability
        if least is None:
            return None
        order = np.argsort(-probs, kind="stable").tolist()
        return tuple(label for label in order if label == order[0] or probs[label] >= least[label])

    def finish(self, picture: Picture, predicted: SquarePrediction) -> Prediction:
        """Bring what is predicted in the square back to the image, measure it, and check the input."""
        if not all_finite(predicted._replace(disagreement=None)):
            return self._nothing_in(picture)
        box = letterbox_of(picture, self.info)
        mask = box.invert_map(predicted.mask_probs) > self.threshold
        sides, probs = part_lungs(mask), predicted.infection_probs
        infection = None if probs is None else box.invert_map(probs) > INFECTION_THRESHOLD
        without_masks = self.info.description.get("training", {}).get("infection_unknown", ())
        called = self.called(predicted.class_probs) if self.info.multi_label else None
        top = () if not self.info.classes else (int(predicted.class_probs.argmax()),) if called is None else called
        has_lung, maps = self.info.has_lung, predicted.finding_maps
        left, right = (float(np.count_nonzero(side)) for side in sides)
        area = LungAreas(left=right, right=left)  # the image's right is the patient's left
        pixel_cm2 = None if picture.spacing_mm is None else picture.spacing_mm[0] * picture.spacing_mm[1] / 100
        return Prediction(
            self.info.classes,
            predicted.class_probs,
            picture.pixels,
            mask,
            box.invert_map(predicted.class_map),
            # In the network's square, as in a training and an evaluation, not in the map as it is enlarged here.
            evidence_in_lungs(predicted.class_map, predicted.mask_probs > self.threshold) if has_lung else None,
            area,
            None if pixel_cm2 is None else LungAreas(area.left * pixel_cm2, area.right * pixel_cm2),
            check_input(picture.pixels, mask) if has_lung else check_image(picture.pixels),
            infection,
            None if infection is None else severity_of(sides, infection),
            infection is not None and any(self.info.classes[label] in without_masks for label in top),
            has_lung,
            called,
            () if maps is None else tuple(map(box.invert_map, maps)),
            self.class_set(predicted.class_probs),
            None if predicted.disagreement is None else Disagreement(*map(float, predicted.disagreement)),
        )

    def _nothing_in(self, picture: Picture) -> Prediction:
        """What is left of an image for which the network gives no finite number."""
        reason = "the network's output holds NaN or infinity: no class, mask or map; is the model whole?"
        zeros, probs = np.zeros(picture.pixels.shape, np.float32), np.full(len(self.info.classes), np.nan, np.float32)
        flags = (Flag("not_finite", reason, 1.0),)
        mask, area = zeros.astype(bool), LungAreas(0.0, 0.0)
        has_lung, called = self.info.has_lung, () if self.info.multi_label else None
        nothing = (zeros, None, area, None, flags, None, None, False, has_lung, called)
        return Prediction(self.info.classes, probs, picture.pixels, mask, *nothing)

    def _predict(self, images: Sequence[One]) -> list[Prediction]:
        prepared = [self.prepare(image) for image in images]  # of any sizes: the squares are of one
        predicted = self.run(np.stack([square for _, square in prepared]))
        return [self.finish(picture, each) for (picture, _), each in zip(prepared, predicted, strict=True)]


def load_backend(
    path: str | Path | None = None, device: str = "auto", backend: str = "auto", threads: int = 0
) -> Backend:
    """Load a model of any kind; torch is imported only where the model needs it.

    Args:
        path: A run folder, a .ckpt in one, .safetensors, a folder of `save_pretrained`, .onnx; None: the model that
            comes with the package, which is there as .onnx and as .safetensors.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; ONNX models run on the CPU, by
            onnxruntime, or with `openvino` by OpenVINO.
        backend: `torch`, `onnx`, or `auto`, by the kind of the file. Without a path `auto` is `torch` on the devices
            `cuda` and `mps`, which only PyTorch is sure to know, and `onnx` on any other, `auto` included.
        threads: That a pass of an ONNX model on the CPU takes; 0: one a core. With 1 the passes of several threads run
            side by side, which takes less time than each on all cores (`Backend.concurrent`).

    Raises:
        FileNotFoundError: No such model.
        UserError: Not a model of lungseg, or not one of that backend, damaged, or a device that is not there.
    """
    run = _open(path, device, backend)
    if run.kind == "onnx":
        from lungseg.inference.onnx_backend import load_onnx

        return load_onnx(run.model, device, threads)
    with _without_wandb():
        from lungseg.inference.torch_backend import load_torch

    return load_torch(run, device)


def _open(path: str | Path | None, device: str, backend: str) -> Run:
    """The model by a path, in the form that a backend takes."""
    check(backend in BACKENDS, "backend", f"one of {', '.join(BACKENDS)}", backend)
    run, by_torch = Run.open(path), device.partition(":")[0] in ("cuda", "mps")
    if path is None and backend != "torch" and (backend == "onnx" or not by_torch):
        return Run.open(BOXED_ONNX)
    if backend == "onnx" and run.kind != "onnx":
        raise UserError(f"{run.model}: backend 'onnx' takes an .onnx file; write one with python -m lungseg.export")
    if backend == "torch" and run.kind == "onnx":
        raise UserError(f"{run.model}: not for backend 'torch'; give the run or .safetensors that it was made of")
    return run


def _mean_of_mirrors(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mean of an array (S, S) and, where there is one, of that of the mirror image."""
    return arrays[0] if len(arrays) == 1 else (arrays[0] + arrays[1][:, ::-1]) / np.float32(2)


@contextmanager
def _without_wandb() -> Iterator[None]:
    """Let timm, which imports wandb where it is installed, do without: half a second, and nothing here logs."""
    sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # makes `import wandb` an ImportError
    try:
        yield
    finally:
        if sys.modules.get("wandb") is None:
            sys.modules.pop("wandb", None)
