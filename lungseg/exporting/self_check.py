"""Whether a file gives what the network gives: every output, on images of several sizes and depths."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.cam.lung import evidence_in_lungs, mask_to_lung, resize_map
from lungseg.data.geometry import Letterbox
from lungseg.data.phantom.generator import draw_phantom
from lungseg.inference.preprocess import to_picture
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo

LIMIT = 1e-4  # Largest difference of an output; of class maps in units of their largest value, where that is above 1.

Arrays = dict[str, NDArray[Any]]
ExportedModel = Callable[[NDArray[np.uint16]], Arrays]
"""A loaded file, to be called: images (B, H, W) uint16 to the fields of `GraphOutputs`."""


class SelfCheck(NamedTuple):
    """How far an exported file is from its network."""

    differences: dict[str, float]
    """Largest of each output against the network on the very square that the file made of the image."""
    levels: int  # Largest difference of that square from the project's own letterbox, grey levels of 255.
    share: float  # Share in [0, 1] of the square's pixels that differ at all, mean of the images.

    @property
    def worst(self) -> str:
        """Output with the largest difference."""
        return max(self.differences, key=lambda name: self.differences[name])

    @property
    def largest(self) -> float:
        """That difference; NaN if any output is not a number where the network's is."""
        return float(np.max(list(self.differences.values())))


def check_file(model: ExportedModel, network: LungNetwork, info: ModelInfo) -> SelfCheck:
    """Run a file and the network on phantoms: at the network's size, larger, smaller, not square, 8 and 16 bit."""
    differences: dict[str, float] = {}
    levels, shares = 0, []
    for images in _examples(info.image_size):
        outputs = model(images)
        box = Letterbox.of((images.shape[1], images.shape[2]), info.image_size, info.keep_aspect)
        expected = _expected(network, info, outputs, box)
        for name, value in expected.items():
            differences[name] = float(np.maximum(differences.get(name, 0.0), _difference(outputs[name], value)))
        # What the commands make of these images; of 8 bits as the bytes that a file of them holds.
        read = [to_picture(image if image.max() > 255 else image.astype(np.uint8)).pixels for image in images]
        off = np.abs(outputs["square"].astype(int) - np.stack([box.apply(pixels) for pixels in read]))
        levels = max(levels, int(off.max()))
        shares.append(float((off > 0).mean()))
    return SelfCheck(differences, levels, float(np.mean(shares)))


def _examples(size_px: int) -> Iterator[NDArray[np.uint16]]:
    """Batches (B, H, W): images as they are mostly stored, and odd ones."""
    drawn = [draw_phantom(seed, size_px=max(256, size_px)).image for seed in range(3)]
    high, wide = drawn[0].shape[0] * 4 // 3 + 1, drawn[0].shape[1] * 8 // 7
    same, smaller = (size_px, size_px, 1), (size_px * 3 // 4, size_px // 2, 1)
    for height, width, factor in (same, (2 * size_px, 2 * size_px, 16), (high, wide, 257), smaller):  # 8, 12, 16, 8 bit
        box = [Letterbox.of((image.shape[0], image.shape[1]), max(height, width), False) for image in drawn]
        fitted = [one.apply(image)[:height, :width] for one, image in zip(box, drawn, strict=True)]
        yield np.stack(fitted).astype(np.uint16) * np.uint16(factor)


@torch.inference_mode()
def _expected(network: LungNetwork, info: ModelInfo, outputs: Arrays, box: Letterbox) -> Arrays:
    """Outputs of the network for the squares that a file made of images.

    What rests on lungs and class takes the file's own, which are checked by themselves: a probability of 0.5 to the
    last bit may fall on either side, and would change everything after it.
    """
    output, expected = network(torch.from_numpy(outputs["square"])[:, None].float() / 255), dict[str, NDArray[Any]]()
    if network.has_lung:
        mask_probs = output.mask_logits[:, 0].sigmoid().numpy()
        full = np.stack([box.invert_map(probs) for probs in mask_probs])
        expected |= {"mask_probs": mask_probs, "mask_probs_full": full}
    if info.classes:
        class_probs = network.probabilities(output.class_logits / info.temperature).numpy()
        label = output.class_logits.argmax(dim=1).numpy()
        expected |= {"class_probs": class_probs, "class_maps": output.class_maps.numpy(), "label": label}
    if network.has_lung and info.classes:
        lung, chosen = torch.from_numpy(outputs["mask_probs"]) > 0.5, torch.from_numpy(outputs["label"])
        cam = output.class_maps[torch.arange(len(chosen)), chosen]
        cam = resize_map(cam, info.map_stride, (info.image_size, info.image_size))
        lung_map = mask_to_lung(cam, lung).numpy()
        expected |= {"lung_map": lung_map, "evidence_in_lungs": evidence_in_lungs(cam, lung).numpy()}
        expected |= {"lung_map_full": np.stack([box.invert_map(one) for one in lung_map])}
    if output.mask_logits.shape[1] > 1:
        infection_probs = output.mask_logits[:, 1].sigmoid().numpy()
        full = np.stack([box.invert_map(probs) for probs in infection_probs])
        expected |= {"infection_probs": infection_probs, "infection_probs_full": full}
    if output.disagreement is not None:
        expected["disagreement"] = output.disagreement.numpy()
    return expected


def _difference(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    # NaN is an answer: no evidence at all. It must be given for the same images.
    if not np.array_equal(np.isnan(actual), np.isnan(expected)):
        return float("nan")
    # Class maps have no bounds, and of large values float32 does not hold four decimals.
    scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0)))
    return float(np.nanmax(np.abs(actual - expected), initial=0)) / scale
