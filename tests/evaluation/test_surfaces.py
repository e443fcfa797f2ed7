from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.data.phantom.generator import draw_phantom
from lungseg.evaluation.segmentation import measure_surfaces, outline

Mask = NDArray[np.bool_]


def _pairs() -> list[tuple[Mask, Mask]]:
    """Lungs against lungs moved, with specks, reaching the border, and noise."""
    lungs = [draw_phantom(seed, 0, 64).lung for seed in (0, 1)]
    noise = np.random.default_rng(0).random((2, 40, 50)) > 0.9
    specks = lungs[0] | (np.random.default_rng(1).random((64, 64)) > 0.99)
    return [
        (lungs[0], lungs[1]),
        (np.roll(lungs[0], 3, axis=1), lungs[0]),
        (specks, lungs[0]),
        (np.roll(lungs[0], 30, axis=0), lungs[1]),
        (noise[0], noise[1]),
        (np.ones((8, 9), bool), np.eye(8, 9, dtype=bool)),
    ]


def _brute_outline(mask: Mask) -> NDArray[np.float64]:
    padded = np.pad(mask, 1)
    inside = padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return np.argwhere(mask & ~inside).astype(float)


def _brute(predicted: Mask, true: Mask, spacing: tuple[float, float]) -> tuple[float, float]:
    points = [_brute_outline(mask) * spacing for mask in (predicted, true)]
    distances = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=2))
    ways = distances.min(axis=1), distances.min(axis=0)
    return max(np.quantile(way, 0.95) for way in ways), np.concatenate(ways).mean()


@pytest.mark.parametrize("pair", range(6))
@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.2, 0.7)])
def test_distances_equal_brute_force(pair: int, spacing: tuple[float, float]) -> None:
    predicted, true = _pairs()[pair]
    found = measure_surfaces(predicted, true, spacing)
    assert (found["hd95_px"], found["asd_px"]) == pytest.approx(_brute(predicted, true, (1, 1)))
    assert (found["hd95_mm"], found["asd_mm"]) == pytest.approx(_brute(predicted, true, spacing))


def test_distances_of_squares_by_hand() -> None:
    true, predicted = np.zeros((9, 12), bool), np.zeros((9, 12), bool)
    true[4, 2], predicted[4, 5] = True, True  # one pixel each, three columns apart
    found = measure_surfaces(predicted, true, (10.0, 0.5))
    assert found == {"hd95_px": 3, "asd_px": 3, "hd95_mm": 1.5, "asd_mm": 1.5}
    true[4, 3] = True  # ways: 5 -> 3 is 2; 2 -> 5 is 3, 3 -> 5 is 2
    found = measure_surfaces(predicted, true)
    assert found["hd95_px"] == pytest.approx(2.95) and found["asd_px"] == pytest.approx(7 / 3)


def test_the_outline_of_a_block_is_its_frame_and_the_border_ends_a_mask() -> None:
    whole = np.ones((4, 5), bool)
    assert len(outline(whole)) == 2 * 5 + 2 * 2
    assert len(outline(np.pad(whole, 2))) == 2 * 5 + 2 * 2
    assert outline(np.zeros((3, 3), bool)).shape == (0, 2)


def test_equal_masks_are_no_distance_apart() -> None:
    lung = draw_phantom(0, 0, 64).lung
    assert measure_surfaces(lung, lung, (0.1, 0.2)) == dict.fromkeys(("hd95_px", "asd_px", "hd95_mm", "asd_mm"), 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("empty", [(True, False), (False, True), (True, True)])
def test_an_empty_mask_leaves_distances_undefined(empty: tuple[bool, bool]) -> None:
    masks = [np.full((5, 5), not blank) for blank in empty]
    assert all(math.isnan(value) for value in measure_surfaces(masks[0], masks[1], (1.0, 1.0)).values())


def test_without_a_spacing_there_are_no_millimetres() -> None:
    found = measure_surfaces(*_pairs()[0])
    assert math.isnan(found["hd95_mm"]) and math.isnan(found["asd_mm"]) and found["hd95_px"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("pair", range(6))
def test_distances_equal_monai(pair: int) -> None:
    pytest.importorskip("monai", reason="MONAI is no dependency; install it to compare with it")
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    predicted, true = (torch.from_numpy(mask)[None, None] for mask in _pairs()[pair])
    for spacing, unit in (((1.0, 1.0), "px"), ((0.2, 0.7), "mm")):
        found = measure_surfaces(*_pairs()[pair], (0.2, 0.7))
        hd95 = compute_hausdorff_distance(predicted, true, True, percentile=95, spacing=spacing)
        asd = compute_average_surface_distance(predicted, true, True, symmetric=True, spacing=spacing)
        assert found[f"hd95_{unit}"] == pytest.approx(float(hd95), rel=1e-5)
        assert found[f"asd_{unit}"] == pytest.approx(float(asd), rel=1e-5)
