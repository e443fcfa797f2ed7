"""What runs a network, whatever made it: the protocol that PyTorch's, onnxruntime's and OpenVINO's backend fulfil."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lungseg.runs.model_info import ModelInfo


class Outputs(NamedTuple):
    """What one pass gives for B images of side S and C classes."""

    mask_probs: NDArray[np.float32]  # (B, S, S) float32 in [0, 1]: probability of lung; 0 of a model of classes alone.
    class_probs: NDArray[np.float32]
    """(B, C) float32, calibrated by the temperature; rows sum to 1, unless an image may have several classes."""
    class_maps: NDArray[np.float32]
    """(B, C, h, w) float32 raw maps, any sign; each pixel covers `map_stride` x `map_stride` of the input, of which
    h * map_stride - S rows and as many columns are padding below and to the right."""
    infection_probs: NDArray[np.float32] | None = None
    """(B, S, S) float32 in [0, 1]: probability of infection; None of a network that does not predict it."""
    disagreement: NDArray[np.float32] | None = None
    """(B, 2) float32, of classes and of lungs, as `LungOutput.disagreement`; None of a single network."""


def all_finite(arrays: Iterable[NDArray[Any] | None]) -> bool:
    """Whether there is neither NaN nor infinity in the arrays that are there."""
    return all(np.isfinite(array).all() for array in arrays if array is not None)


class Backend(Protocol):
    """A loaded model. May be called from several threads at once."""

    info: ModelInfo  # What is known of the model.
    concurrent: bool
    """A pass takes one core, so that passes of several threads side by side are faster than one after the other."""

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network on images (B, S, S) uint8, S = `info.image_size`, B >= 1, as `preprocess` makes them."""
