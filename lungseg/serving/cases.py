"""X-rays that were dropped on the page, and what the model finds in them: one pass an image, kept for every question.

A map of another class costs no pass, one of a gradient method costs one and is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.data.phantom.generator import draw_phantom
from lungseg.errors import DataError, UserError
from lungseg.inference.backend import Outputs, all_finite
from lungseg.inference.prediction import Prediction
from lungseg.inference.predictor import Predictor, SquarePrediction
from lungseg.inference.preprocess import Picture, enlarge_map

CLOSED_FORM = "cam"
METHODS = {
    CLOSED_FORM: "Closed form (exact)",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM (of no class)",
    "score_cam": "Score-CAM (slow)",
}
"""Methods of `cam.methods` as the page calls them."""


@dataclass(frozen=True, eq=False)
class Case:
    """One X-ray after its pass through the network."""

    name: str  # Of the file, without folders.
    picture: Picture
    square: NDArray[np.uint8]  # (S, S) uint8: what the network saw.
    outputs: Outputs  # Of this image alone: B is 1.
    maps: dict[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)
    """Maps (S, S) float32 that were asked for, by method and class."""

    @property
    def label(self) -> int:
        """Index of the class of the highest probability; 0 without classes."""
        probs = self.outputs.class_probs[0]
        return int(probs.argmax()) if len(probs) else 0


class Reader:
    """A model at work on cases; threads may share it, one at a time passes.

    `load_torch` loads the same model on PyTorch, for an exported one, which has no gradients; it is called at the first
    map that needs them.
    """

    def __init__(self, predictor: Predictor, load_torch: Callable[[], Predictor] | None = None):
        self.predictor, self.classes = predictor, predictor.info.classes
        self._network: Any = getattr(predictor.backend, "network", None)
        self._load_torch, self._lock = load_torch, Lock()
        alone = (self._network is None and load_torch is None) or "members" in predictor.info.description
        self.methods = (CLOSED_FORM,) if alone else tuple(METHODS)
        """Keys of `METHODS` that this model can do."""

    def read(self, path: Path, name: str) -> Case:
        """Read a file and run the network on it; a DataError names the file by `name`, never by its place."""
        try:
            return self._pass(name, path)
        except DataError as error:
            # The path is that of an upload, which says nothing to who dropped the file.
            reason = str(error).removeprefix(f"{path}: ").replace(str(path), name)
            raise DataError(f"{name}: {reason.removesuffix('; replace it or drop it from the data set')}") from None

    def example(self, number: int) -> Case:
        """The phantom of a number, 0 or more, after its pass; their classes take turns."""
        phantom = draw_phantom(number)
        return self._pass(f"phantom {number + 1} ({phantom.class_name}, drawn)", phantom.image)

    def predict(self, case: Case, method: str = CLOSED_FORM, label: int | None = None) -> Prediction:
        """What was found in a case, with the map of one of `methods` and of a class, None being the predicted one.

        Raises:
            UserError: A method that this model cannot do, or a map that is not finite.
        """
        if method not in self.methods:
            raise UserError(f"method: {method!r} is not one of this model's: {', '.join(self.methods)}")
        outputs, infection = case.outputs, case.outputs.infection_probs
        probs, called = None if infection is None else infection[0], self.predictor.called(outputs.class_probs[0])
        chosen = case.label if label is None else label
        for each in (chosen, *called):
            if (method, each) not in case.maps:
                case.maps[method, each] = self._map(case, method, each)
        several = np.stack([case.maps[method, each] for each in called]) if called else None
        apart = None if outputs.disagreement is None else outputs.disagreement[0]
        found = SquarePrediction(
            outputs.mask_probs[0], outputs.class_probs[0], case.maps[method, chosen], probs, several, apart
        )
        return self.predictor.finish(case.picture, found)

    def name_of(self, case: Case) -> str:
        """What is predicted of a case: its class, the findings called, or nothing without classes."""
        called = self.predictor.called(case.outputs.class_probs[0])
        if self.predictor.info.multi_label:
            return ", ".join(self.classes[label] for label in called) or "no finding"
        return self.classes[case.label] if self.classes else ""

    def _pass(self, name: str, image: Path | NDArray[np.uint8]) -> Case:
        picture, square = self.predictor.prepare(image)
        with self._lock:  # two passes at once would share the cores, and both take longer
            outputs = self.predictor.backend(square[None])
        if not all_finite(outputs._replace(disagreement=None)):  # NaN of what the members do not predict
            raise DataError(f"{name}: the network's output holds NaN or infinity; is the model whole?")
        return Case(name, picture, square, outputs)

    def _map(self, case: Case, method: str, label: int) -> NDArray[np.float32]:
        if not self.classes:
            return np.zeros_like(case.outputs.mask_probs[0])
        if method == CLOSED_FORM:
            cam = case.outputs.class_maps[0, label]
        else:
            import torch

            from lungseg.cam.methods import class_activation_map

            with self._lock:
                if self._network is None and self._load_torch is not None:
                    self._network = getattr(self._load_torch().backend, "network", None)
                # A copy, for torch warns of arrays that it may not write to.
                pixels = torch.from_numpy(case.square.copy()).to(next(self._network.parameters()).device)
                map_of_case = class_activation_map(self._network, pixels[None, None].float() / 255, label, method)
            cam = np.asarray(map_of_case[0].float().cpu().numpy())
        if not np.isfinite(cam).all():  # a gradient can overflow, and would be drawn as no evidence
            raise UserError(f"{METHODS[method]} gives no finite map of {case.name!r} with this model")
        return enlarge_map(cam, self.predictor.info)
