from __future__ import annotations

import numpy as np
import pytest
import torch

from lungseg.evaluation.robustness import (
    PERTURBATIONS,
    add_noise,
    blur,
    compress,
    lower_contrast,
    paste_marker,
    rotate,
)

NONE = torch.zeros(1, 32, 32, dtype=torch.bool)


def _some(count: int = 1) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 64, 64, generator=generator)
    lung = torch.zeros(count, 64, 64, dtype=torch.bool)
    lung[:, 16:48, 12:28] = True
    return images, lung, [f"Val/{index}.png" for index in range(count)]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_more_strength_changes_more(name: str) -> None:
    images, lung, ids = _some(4)
    change, strengths = PERTURBATIONS[name].change, PERTURBATIONS[name].strengths
    changes = [float((change(images, lung, strength, ids)[0] - images).abs().mean()) for strength in strengths]
    assert changes[0] > 0 and changes[0] < changes[-1]
    assert list(strengths) == sorted(strengths)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_neither_the_batch_nor_the_order_matters(name: str) -> None:
    images, lung, ids = _some(4)
    before = images.clone()
    change, strengths = PERTURBATIONS[name].change, PERTURBATIONS[name].strengths
    together, masks = change(images, lung, strengths[-1], ids)
    for i in (3, 1, 0, 2):
        alone, mask = change(images[i : i + 1], lung[i : i + 1], strengths[-1], ids[i : i + 1])
        assert torch.equal(alone[0], together[i]) and torch.equal(mask[0], masks[i])
    assert torch.equal(images, before)
    assert together.dtype == torch.float32 and together.shape == images.shape
    assert float(together.min()) >= 0 and float(together.max()) <= 1


def test_noise_is_one_draw_an_image_scaled_by_the_strength() -> None:
    grey = torch.full((2, 1, 64, 64), 0.5)
    weak, strong = (add_noise(grey, NONE, strength, ["a", "b"])[0] - 0.5 for strength in (0.02, 0.04))
    assert torch.allclose(strong, 2 * weak, atol=1e-6)
    assert float(weak.std()) == pytest.approx(0.02, rel=0.03)
    assert not torch.equal(weak[0], weak[1])


def test_contrast_goes_towards_the_mean_of_the_image() -> None:
    image = torch.tensor([[[[0.2, 0.6]]]])
    assert lower_contrast(image, NONE, 0.5, ["a"])[0].flatten().tolist() == pytest.approx([0.3, 0.5])


def test_blur_spreads_a_point_by_its_standard_deviation_and_leaves_a_flat_image() -> None:
    point = torch.zeros(1, 1, 65, 65)
    point[0, 0, 32, 32] = 1
    spread = blur(point, NONE, 2 / 65, ["a"])[0][0, 0].double()
    offsets = torch.arange(65) - 32.0
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    assert float((spread.sum(0) * offsets**2).sum()) == pytest.approx(4, rel=0.02)
    assert torch.allclose(blur(torch.full((1, 1, 32, 32), 0.3), NONE, 0.04, ["a"])[0], torch.tensor(0.3))


def test_a_quarter_turn_moves_every_pixel_of_image_and_mask_exactly() -> None:
    images, lung, ids = _some(8)
    turned, masks = rotate(images, lung, 90.0, ids)
    sides = set()
    for i in range(8):
        side = next(k for k in (1, -1) if torch.allclose(turned[i, 0], images[i, 0].rot90(k), atol=1e-4))
        assert torch.equal(masks[i], lung[i].rot90(side))
        sides.add(side)
    assert sides == {1, -1}


def test_what_a_rotation_brings_in_is_black_and_no_lung() -> None:
    turned, masks = rotate(torch.ones(1, 1, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool), 45.0, ["a"])
    assert float(turned[0, 0, 0, 0]) == 0 and float(turned[0, 0, 16, 16]) == 1
    assert not masks[0, 0, 0] and bool(masks[0, 16, 16])


def test_jpeg_of_quality_one_leaves_little_but_the_means_of_its_blocks() -> None:
    generator = torch.Generator().manual_seed(3)
    image = 0.5 + 0.1 * (torch.rand(1, 1, 32, 32, generator=generator) - 0.5)
    stored = compress(image, NONE, 99.0, ["a"])[0][0, 0].numpy()
    blocks = stored.reshape(4, 8, 4, 8).transpose(0, 2, 1, 3).reshape(16, 64)
    assert float(np.ptp(blocks, axis=1).max()) == 0
    assert np.abs(stored * 255 - np.rint(stored * 255)).max() < 1e-3
    fine = compress(image, NONE, 1.0, ["a"])[0]
    assert float((fine - image).abs().max()) < 3 / 255


def test_the_marker_is_white_and_stands_in_the_corner_free_of_lungs() -> None:
    lung = torch.ones(1, 64, 64, dtype=torch.bool)
    lung[0, 40:, 40:] = False  # only the lower right corner is free
    image = torch.zeros(1, 1, 64, 64)
    marked, mask = paste_marker(image, lung, 10 / 64, ["a"])
    rows, columns = torch.nonzero(marked[0, 0], as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (64 - 2 - 10, 64 - 2 - 1)  # ten tall, two pixels from the edge
    assert (int(columns.min()), int(columns.max())) == (64 - 2 - 8, 64 - 2 - 1)
    assert set(marked.unique().tolist()) == {0.0, 1.0}
    assert int(marked.sum()) == 10 * 8 * 10 // 20  # 10 of the F's 20 cells
    assert torch.equal(mask, lung)


def test_the_marker_never_covers_lungs_even_where_no_corner_is_free() -> None:
    lung = torch.ones(1, 64, 64, dtype=torch.bool)
    lung[0, 61, 3] = False
    marked, _ = paste_marker(torch.zeros(1, 1, 64, 64), lung, 0.1, ["a"])
    assert float((marked[:, 0] * lung).sum()) == 0


def test_the_marker_takes_every_corner_and_the_image_has_no_say_in_which() -> None:
    ids = [f"{index}.png" for index in range(40)]
    lung = torch.zeros(40, 32, 32, dtype=torch.bool)
    dark, _ = paste_marker(torch.zeros(40, 1, 32, 32), lung, 0.16, ids)
    grey, _ = paste_marker(torch.full((40, 1, 32, 32), 0.5), lung, 0.16, ids)
    assert torch.equal(dark == 1, grey == 1)
    quarters = dark.view(40, 2, 16, 2, 16).sum(dim=(2, 4)).flatten(1).argmax(1)
    assert set(quarters.tolist()) == {0, 1, 2, 3}
