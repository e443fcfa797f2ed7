"""A sample as loaders hand it over, in bytes, and a batch as the network takes it, in floats.

Bytes travel from workers and to the device: a sixth of the memory; `unpack` makes floats of them on the device.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.data.decode import INFECTION, LUNG, Plane
from lungseg.data.sample import Sample

Batch = dict[str, Any]


def to_item(sample: Sample, image: Plane, masks: Plane, is_empty_known: bool = True) -> dict[str, Any]:
    """Put a sample's tensors beside what is known of it; an empty infection mask may say nothing.

    Returns:
        `image` and `masks` (1, S, S) uint8, the masks as bits (`decode.LUNG`, `decode.INFECTION`), `label` int, -1
        where there is none, `has_lung`, `has_infection`, `has_label` bool, `id` str; where an image may have several
        classes also `findings` (C,) int8, 1 there, 0 not there, -1 unknown.
    """
    several = {} if sample.findings is None else {"findings": torch.tensor(sample.findings, dtype=torch.int8)}
    return several | {
        "image": torch.from_numpy(image)[None],
        "masks": torch.from_numpy(masks)[None],
        "label": -1 if sample.label is None else sample.label,
        "has_lung": sample.lung is not None,
        "has_infection": sample.infection is not None and (is_empty_known or bool((masks & INFECTION).any())),
        "has_label": sample.label is not None,
        "id": sample.id,
    }


def unpack(batch: Batch) -> Batch:
    """Turn items collated into a batch into the batch of the network, on the device where they are.

    Returns:
        `image` in [0, 1], `lung` and `infection` {0, 1}, each (B, 1, S, S) float32 (a missing mask is all 0), and the
        rest as it was.
    """
    # Data sets without infection masks are common, and their zeros need no memory of their own.
    masks, no_infection = batch["masks"], False
    if masks.device.type == "cpu":  # elsewhere, asking would make the program wait for the device
        no_infection = not batch["has_infection"].any()
    floats = _room((2 if no_infection else 3, *masks.shape), masks.device)
    rest = {name: value for name, value in batch.items() if name != "masks"}
    return {
        **rest,
        "image": floats[0].copy_(batch["image"]).div_(255),
        "lung": floats[1].copy_(masks & LUNG),
        "infection": torch.zeros(()).expand(masks.shape) if no_infection else floats[2].copy_(masks >> 1),  # upper bit
    }


def _room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Give memory for floats; NumPy asks for it in huge pages, where small ones may cost as much as augmentation."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)
