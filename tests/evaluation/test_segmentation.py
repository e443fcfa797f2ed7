from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungseg.data.phantom.generator import draw_phantom
from lungseg.evaluation.segmentation import (
    OVERLAP_SCORES,
    PIXEL_COUNTS,
    SURFACE_SCORES,
    global_scores,
    mask_counts,
    measure_masks,
)
from lungseg.evaluation.statistics import score_set
from lungseg.models.metrics import MaskScores

Masks = NDArray[np.bool_]


@pytest.fixture(scope="module")
def masks() -> tuple[Masks, Masks]:
    """Predicted and true (8, 64, 64): lungs moved about; then only the prediction empty, only the truth, both."""
    true = np.stack([draw_phantom(seed, 0, 64).lung for seed in range(8)])
    predicted = np.stack([np.roll(mask, (i % 3, i), axis=(0, 1)) for i, mask in enumerate(true)])
    predicted[5] = predicted[7] = true[6] = true[7] = False
    return predicted, true


@pytest.fixture(scope="module")
def found(masks: tuple[Masks, Masks]) -> dict[str, NDArray[Any]]:
    return measure_masks(*masks, lungs=True)


def test_scores_equal_those_logged_in_training(masks: tuple[Masks, Masks], found: dict[str, NDArray[Any]]) -> None:
    logged = MaskScores()
    logged.update(torch.from_numpy(masks[0]), torch.from_numpy(masks[1]))
    expected = {name: float(value) for name, value in logged.compute().items()}
    for name in ("dice", "iou", "pixel_accuracy"):
        assert found[name].mean() == pytest.approx(expected[name])
    assert score_set(global_scores(found), 8)["dice_global"] == pytest.approx(expected["dice_global"])
    counts = mask_counts(found)
    assert (counts["empty_truth"], counts["empty_prediction"]) == (
        expected["empty_truth"],
        expected["empty_prediction"],
    )


def test_scores_equal_scikit_learns(masks: tuple[Masks, Masks], found: dict[str, NDArray[Any]]) -> None:
    from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

    oracles = {"dice": f1_score, "iou": jaccard_score, "sensitivity": recall_score, "precision": precision_score}
    for image in range(5):
        predicted, true = (part[image].ravel() for part in masks)
        for name, oracle in oracles.items():
            assert found[name][image] == pytest.approx(oracle(true, predicted)), (name, image)
    whole = score_set(global_scores(found), 8)
    for name, oracle in oracles.items():
        assert whole[f"{name}_global"] == pytest.approx(oracle(masks[1].ravel(), masks[0].ravel())), name


def test_one_empty_mask_scores_zero_and_two_score_one(found: dict[str, NDArray[Any]]) -> None:
    for name in OVERLAP_SCORES:
        assert found[name][5:].tolist() == [0, 0, 1], name
        assert found[f"{name}_image_left"][5:].tolist() == [0, 0, 1], name
    assert found["pixel_accuracy"][7] == 1 and 0 < found["pixel_accuracy"][5] < 1
    for name in ("hd95_px", "asd_px", "hd95_px_image_right"):
        assert np.isnan(found[name]).tolist() == [False] * 5 + [True] * 3, name


def test_counts_tell_what_the_rules_touched(found: dict[str, NDArray[Any]]) -> None:
    assert mask_counts(found) == {
        "images": 8,
        "empty_truth": 2,
        "empty_prediction": 2,
        "both_empty": 1,
        "surface_undefined": 3,
        "spacing_unknown": 5,
    }


def test_a_missed_lung_is_charged_to_its_side(masks: tuple[Masks, Masks]) -> None:
    true = masks[1][:1]
    right = true & (np.arange(64) >= 32)
    scores = measure_masks(right, true, lungs=True)
    assert scores["dice_image_left"] == 0 and scores["dice_image_right"] == 1
    assert np.isnan(scores["hd95_px_image_left"]) and scores["hd95_px_image_right"] == 0
    assert (scores["components"], scores["components_true"]) == (1, 2)


def test_sides_share_the_pixels_of_the_whole(found: dict[str, NDArray[Any]]) -> None:
    low = np.minimum(found["dice_image_left"], found["dice_image_right"])[:5]
    high = np.maximum(found["dice_image_left"], found["dice_image_right"])[:5]
    assert ((low <= found["dice"][:5]) & (found["dice"][:5] <= high)).all()


def test_millimetres_need_a_spacing_of_that_image(masks: tuple[Masks, Masks]) -> None:
    spacing = np.array([[0.5, 0.5], [np.nan, 0.5]])
    found = measure_masks(masks[0][1:3], masks[1][1:3], spacing, lungs=True)
    assert found["hd95_mm"][0] == found["hd95_px"][0] / 2 and found["asd_mm_image_left"][0] > 0
    assert np.isnan(found["hd95_mm"][1]) and np.isnan(found["asd_mm_image_left"][1])
    assert mask_counts(found)["spacing_unknown"] == 1


def test_holes_and_components_are_counted_of_both_masks(masks: tuple[Masks, Masks]) -> None:
    true = masks[1][:1].copy()
    rows, columns = np.nonzero(true[0])
    predicted = true.copy()
    inside = np.flatnonzero(np.abs(rows - rows.mean()) + np.abs(columns - 20) < 3)[0]
    predicted[0, rows[inside], columns[inside]] = False
    predicted[0, 0, 0] = True
    found = measure_masks(predicted, true)
    assert (found["components"][0], found["holes"][0]) == (3, 1)
    assert (found["components_true"][0], found["holes_true"][0]) == (2, 0)


def test_names_and_types_of_the_columns(found: dict[str, NDArray[Any]], masks: tuple[Masks, Masks]) -> None:
    scores = {name: values for name, values in found.items() if name not in PIXEL_COUNTS}
    sided = {f"{name}_{side}" for name in (*OVERLAP_SCORES, *SURFACE_SCORES) for side in ("image_left", "image_right")}
    shapes = {"components", "holes", "components_true", "holes_true"}
    assert scores.keys() == {*OVERLAP_SCORES, *SURFACE_SCORES, "pixel_accuracy"} | sided | shapes
    assert all(values.shape == (8,) for values in found.values())
    assert all(scores[name].dtype == (np.int64 if name in shapes else np.float64) for name in scores)
    assert not sided & measure_masks(*masks).keys()


def test_batches_joined_equal_one_batch(masks: tuple[Masks, Masks], found: dict[str, NDArray[Any]]) -> None:
    parts = [measure_masks(masks[0][part], masks[1][part], lungs=True) for part in (slice(3), slice(3, 8))]
    for name, values in found.items():
        assert np.array_equal(values, np.concatenate([part[name] for part in parts]), equal_nan=True), name
