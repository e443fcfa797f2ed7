"""Whether maps say what the network does: deletion and insertion curves, and what is left when it is unlearned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from lungseg.cam.faithfulness import faithfulness, randomisation_check
from lungseg.cam.layers import layer_stride
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import class_activation_map
from lungseg.data.batch import unpack
from lungseg.data.sample import spread_over_classes
from lungseg.evaluation.intervals import Numbers, bootstrap, numbers_of
from lungseg.evaluation.outputs import CamMethod
from lungseg.evaluation.results import FaithfulnessResults
from lungseg.evaluation.statistics import means
from lungseg.evaluation.target import EvaluationTarget

RANDOMISED = 16
"""Images on which the weight randomisation is checked."""
REPLICATES = 2_000


def measure_faithfulness(
    target: EvaluationTarget, method: CamMethod, images: int, batch_size: int = 32
) -> FaithfulnessResults:
    """Faithfulness of the maps of the predicted classes on images spread over the classes.

    Args:
        target: Network and data.
        method: Method and layer.
        images: How many; all there are if that is fewer.
        batch_size: Most images in one pass.
    """
    batch = _chosen(target, images)
    curves = []
    for start in range(0, len(batch), batch_size):
        part = batch[start : start + batch_size]
        with torch.no_grad():
            classes = target.network(part).class_logits.argmax(1)
        cam = class_activation_map(target.network, part, classes, *method)
        cam = resize_map(cam, layer_stride(target.network, method.layer), (part.shape[-2], part.shape[-1]))
        curves.append(faithfulness(target.network, part, cam, classes, batch_size=batch_size))
    values = {name: torch.cat([getattr(curve, name) for curve in curves]) for name in curves[0]._fields}
    return FaithfulnessResults(
        images=len(batch),
        intervals=_intervals(values),
        randomisation=_randomisation(target, method, batch[:RANDOMISED]),
        deletion_area=float(values["deletion_area"].mean()),
        insertion_area=float(values["insertion_area"].mean()),
        random_deletion_area=float(values["random_deletion_area"].mean()),
        random_insertion_area=float(values["random_insertion_area"].mean()),
        deletion_curve=values["deletion"].mean(0).tolist(),
        insertion_curve=values["insertion"].mean(0).tolist(),
        random_deletion_curve=values["random_deletion"].mean(0).tolist(),
        random_insertion_curve=values["random_insertion"].mean(0).tolist(),
    )


def _intervals(values: dict[str, Tensor]) -> Numbers:
    """Means of the areas with their intervals, and by how much the map beats the same one misplaced."""
    areas = {name: value.double().cpu().numpy() for name, value in values.items() if value.ndim == 1}
    areas["deletion_gain"] = areas["random_deletion_area"] - areas["deletion_area"]
    areas["insertion_gain"] = areas["insertion_area"] - areas["random_insertion_area"]
    return numbers_of(bootstrap([means(areas)], len(areas["deletion_gain"]), replicates=REPLICATES))


def _randomisation(target: EvaluationTarget, method: CamMethod, images: Tensor) -> dict[str, float | None]:
    """Mean rank correlation by stage; the classifier goes first, then the encoder from its deepest stage."""

    def maps(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return class_activation_map(network, images, classes, *method)

    check = randomisation_check(target.network, images, maps)
    return {stage: float(row.nanmean()) for stage, row in zip(check.stages, check.correlation, strict=True)}


def _chosen(target: EvaluationTarget, images: int) -> Tensor:
    """(N, 1, H, W) float32 images spread over the classes, on the device."""
    dataset = target.data.dataset(target.split)
    items = default_collate([dataset[0, index] for index in spread_over_classes(target.samples, images)])
    chosen: Tensor = unpack(items)["image"]
    return chosen.to(target.device)
