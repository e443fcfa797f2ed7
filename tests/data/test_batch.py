from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lungseg.data.batch import to_item, unpack
from lungseg.data.sample import Sample

FULL = Sample("a", Path("a"), Path("l"), Path("i"), 2, "train")
BARE = Sample("b", Path("b"), None, None, None, "train")


def _batch(*samples: Sample) -> dict[str, object]:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    masks = (image % 4).astype(np.uint8)
    return unpack(default_collate([to_item(s, image, masks if s.lung else masks * 0) for s in samples]))


def test_batch_follows_the_contract() -> None:
    batch = _batch(FULL, BARE)
    grey = torch.arange(256).view(1, 1, 16, 16)
    image, lung, infection = (batch[name] for name in ("image", "lung", "infection"))
    assert isinstance(image, torch.Tensor) and isinstance(lung, torch.Tensor) and isinstance(infection, torch.Tensor)
    assert image.dtype == lung.dtype == infection.dtype == torch.float32
    assert torch.equal(image, (grey / 255).expand(2, 1, 16, 16)) and image.max() == 1
    assert torch.equal(lung[:1], (grey % 2).float()) and torch.equal(infection[:1], (grey % 4 > 1).float())
    assert not lung[1].any() and not infection[1].any()
    assert torch.equal(torch.as_tensor(batch["label"]), torch.tensor([2, -1]))
    for name in ("has_lung", "has_infection", "has_label"):
        assert torch.equal(torch.as_tensor(batch[name]), torch.tensor([True, False]))
    assert batch["id"] == ["a", "b"] and "masks" not in batch


def test_a_batch_without_any_infection_mask_has_zeros() -> None:
    infection = _batch(BARE, BARE)["infection"]
    assert isinstance(infection, torch.Tensor)
    assert infection.shape == (2, 1, 16, 16) and infection.dtype == torch.float32 and not infection.any()


@pytest.mark.gpu
def test_a_batch_is_unpacked_where_it_is() -> None:
    item = to_item(FULL, np.full((16, 16), 255, np.uint8), np.full((16, 16), 3, np.uint8))
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in default_collate([item]).items()}
    batch = unpack(there)
    assert all(batch[name].is_cuda and (batch[name] == 1).all() for name in ("image", "lung", "infection"))
