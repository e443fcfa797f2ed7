from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor

from lungseg.cam.localize import (
    THRESHOLDS,
    are_finite,
    best_threshold,
    measure_localisation,
    otsu_level,
)

SCORES = {"hit", "iou_otsu", "iou_tuned", "energy", "average_precision"}
FLAGS = {"undefined", "no_evidence"}
CAM = torch.tensor([[[4.0, 3.0, 0.0], [1.0, -2.0, 0.0]]])
TARGET = torch.tensor([[[False, True, False], [True, False, False]]])


def _smooth(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """Maps (count, size, size) of any sign, as upsampled from an 8 x 8 map of a network."""
    coarse = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (size, size), mode="bilinear")[:, 0]


def _discs(count: int, size: int = 64) -> Tensor:
    """Masks (count, size, size) of growing discs."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = torch.linspace(4, 20, count).view(-1, 1, 1)
    return (y - 20) ** 2 + (x - 25) ** 2 <= radius**2


def _measure(cam: Tensor, target: Tensor, lung: Tensor | None = None, threshold: float = 0.5) -> dict[str, Tensor]:
    """All scores, those at one threshold as `iou_tuned`."""
    scores = measure_localisation(cam, target, lung, (threshold,))
    return scores | {"iou_tuned": scores.pop("ious")[:, 0].float()}


def _values(scores: dict[str, Tensor], index: int = 0) -> dict[str, float]:
    return {name: float(value[index]) for name, value in scores.items()}


def test_scores_by_hand() -> None:
    scores = _values(_measure(CAM, TARGET, threshold=0.25))
    assert scores == pytest.approx(
        {
            "hit": 0,
            "iou_otsu": 1 / 3,  # levels 255 191 0 / 63 0 0: Otsu parts at 63, above it 4 and 3
            "iou_tuned": 2 / 3,  # 4, 3 and 1, which stands at the threshold
            "energy": 4 / 8,
            "average_precision": (1 / 2 + 2 / 3) / 2,
            "undefined": 0,
            "no_evidence": 0,
        }
    )


def test_crop_to_the_lung_hides_the_maximum_outside() -> None:
    lung = torch.tensor([[[False, True, True], [True, True, True]]])
    scores = _measure(CAM, TARGET, lung, threshold=1 / 3)
    expected = dict.fromkeys(SCORES, 1) | dict.fromkeys(FLAGS, 0) | {"iou_otsu": 0.5}  # levels 255 0 / 85 0 and zeros
    assert _values(scores) == pytest.approx(expected)
    by_caller = _measure(CAM * lung, TARGET, threshold=1 / 3)
    torch.testing.assert_close(scores, by_caller)


def test_map_equal_to_the_mask_scores_one_everywhere() -> None:
    masks = _discs(4)
    masks[3] = True
    for scale in (1e-6, 1.0, 3e4):
        scores = _measure(masks * scale, masks, threshold=0.7)
        assert scores.keys() == SCORES | FLAGS
        for name in SCORES:
            torch.testing.assert_close(scores[name], torch.ones(4), msg=name)


def test_uniform_map_scores_the_masks_share_of_the_frame() -> None:
    masks = _discs(4)
    scores = _measure(torch.full((4, 64, 64), 0.3), masks, threshold=0.5)
    for name in SCORES:
        torch.testing.assert_close(scores[name], masks.float().mean(dim=(1, 2)), msg=name)


def test_negative_evidence_does_not_count() -> None:
    cam, masks = _smooth(6), _discs(6)
    torch.testing.assert_close(_measure(cam, masks, threshold=0.4), _measure(cam.relu(), masks, threshold=0.4))


def test_hit_is_the_share_of_tied_maxima_in_the_mask() -> None:
    cam = torch.tensor([[[5.0, 5.0, 1.0, 5.0]]])
    target = torch.tensor([[[True, False, True, True]]])
    assert float(measure_localisation(cam, target)["hit"]) == pytest.approx(2 / 3)


def test_no_mask_is_undefined_and_no_evidence_scores_zero() -> None:
    masks = _discs(3)
    masks[0] = False
    cam = torch.full((3, 64, 64), -1.0)
    cam[2] = 1
    scores = _measure(cam, masks, threshold=0.5)
    assert scores["undefined"].tolist() == [True, False, False]
    assert scores["no_evidence"].tolist() == [False, True, False]
    assert all(scores[name][0].isnan() for name in SCORES)
    prevalence = float(masks[1].float().mean())
    expected = dict.fromkeys(SCORES, 0.0) | {"average_precision": prevalence, "undefined": 0, "no_evidence": 1}
    assert _values(scores, 1) == pytest.approx(expected)


def test_evidence_only_outside_the_lungs_is_none_after_the_crop() -> None:
    mask = _discs(1)
    cam = (~mask).float()
    assert not measure_localisation(cam, mask)["no_evidence"]
    assert measure_localisation(cam, mask, lung=mask)["no_evidence"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite_is_refused_not_scored(value: float) -> None:
    cam = _smooth(3)
    cam[1, 5, 5] = value
    with pytest.raises(ValueError, match="map 1 of the batch holds NaN or infinity"):
        measure_localisation(cam, _discs(3))


def test_batch_gives_what_each_image_gives_alone() -> None:
    cam, masks, lung = _smooth(6), _discs(6), _discs(6).flip(0)
    masks[2], cam[4] = False, -1
    together = _measure(cam, masks, lung, threshold=0.3)
    for i in range(6):
        alone = _measure(cam[i : i + 1], masks[i : i + 1], lung[i : i + 1], threshold=0.3)
        torch.testing.assert_close({k: v[i : i + 1] for k, v in together.items()}, alone, equal_nan=True)
    assert all(together[name].dtype == torch.float32 for name in SCORES)
    assert all(together[name].dtype == torch.bool for name in FLAGS)


@pytest.mark.parametrize("levels", [0, 3, 10])
def test_average_precision_is_that_of_scikit_learn_ties_included(levels: int) -> None:
    cam, masks = _smooth(8).relu(), _discs(8)
    cam[4:] = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(1)) * 1e4
    if levels:
        cam = (cam / cam.amax(dim=(1, 2), keepdim=True) * levels).round()
    ours = measure_localisation(cam, masks)["average_precision"]
    for i in range(8):
        oracle = average_precision_score(masks[i].flatten().numpy(), cam[i].flatten().numpy())
        assert float(ours[i]) == pytest.approx(oracle, rel=1e-6)


def test_average_precision_parts_neighbouring_floats_and_not_the_signs_of_zero() -> None:
    low = torch.tensor(1.9)
    next_up = torch.nextafter(low, torch.tensor(2.0))
    assert low / 3.7 == next_up / 3.7, "dividing by the maximum would make them one"
    cam = torch.stack([torch.tensor(3.7), next_up, low, torch.tensor(-0.0), torch.tensor(0.0)])
    target = torch.tensor([[[False, True, False, False, True]]])
    # the mask's pixels hold rank 2 and, tied, ranks 4 and 5
    score = measure_localisation(cam.view(1, 1, 5), target)["average_precision"]
    assert float(score) == pytest.approx((1 / 2 + 2 / 5) / 2)


def test_a_map_cut_out_of_a_larger_one_scores_the_same() -> None:
    larger, masks = _smooth(3, size=96), _discs(3)
    cut = larger[:, :64, :64]
    assert not cut.is_contiguous()
    torch.testing.assert_close(measure_localisation(cut, masks), measure_localisation(cut.clone().contiguous(), masks))


def _levels(cam: Tensor) -> Tensor:
    return (cam / cam.amax(dim=(1, 2), keepdim=True) * 255).to(torch.uint8)


def test_otsu_iou_is_that_of_opencv() -> None:
    cam, masks = _smooth(12).relu(), _discs(12)
    cam[8:] += 0.5
    ours = measure_localisation(cam, masks)["iou_otsu"]
    for i, level in enumerate(_levels(cam).numpy()):
        chosen = torch.from_numpy(cv2.threshold(level, 0, 1, cv2.THRESH_OTSU)[1]).bool()
        oracle = (chosen & masks[i]).sum() / (chosen | masks[i]).sum()
        assert float(ours[i]) == pytest.approx(float(oracle)), i


def test_otsu_level_is_that_of_opencv() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64), dtype=np.uint8)  # every level occurs
    images[3:] = images[3:] // 3 * 2 + np.random.default_rng(1).integers(0, 2, (3, 64, 64), dtype=np.uint8) * 80
    histogram = torch.stack(
        [torch.bincount(torch.from_numpy(image).flatten().long(), minlength=256) for image in images]
    )
    assert otsu_level(histogram).tolist() == [cv2.threshold(image, 0, 255, cv2.THRESH_OTSU)[0] for image in images]


def test_otsu_level_of_equals_is_the_lowest_and_of_one_level_is_zero() -> None:
    histogram = torch.zeros(2, 256, dtype=torch.int64)
    histogram[0, 40] = histogram[0, 200] = 7
    histogram[1, 255] = 9
    assert otsu_level(histogram).tolist() == [40, 0]


def test_the_best_threshold_is_that_of_the_best_mean_iou() -> None:
    thresholds = (0.2, 0.5, 0.75, 1.0)
    ious = measure_localisation(CAM, TARGET, thresholds=thresholds)["ious"]
    torch.testing.assert_close(ious, torch.tensor([[2, 1, 1, 0]], dtype=torch.float64) / 3)
    assert best_threshold(ious, thresholds) == 0.2
    sharp = torch.tensor([[[4.0, 4.0, 1.0], [4.0, 1.0, 1.0]]])  # 1 at 0.25 x maximum: beyond 0.2, not 0.5
    both = torch.cat([ious, measure_localisation(sharp, sharp == 4, thresholds=thresholds)["ious"]])
    torch.testing.assert_close(both.mean(0), torch.tensor([7, 8, 8, 6], dtype=torch.float64) / 12)
    assert best_threshold(both, thresholds) == 0.5, "the lowest of equals"


def test_ious_of_several_thresholds_are_those_of_each_alone() -> None:
    cam, masks, lung = _smooth(8), _discs(8), _discs(8).flip(0)
    masks[5] = False
    ious = measure_localisation(cam, masks, lung, THRESHOLDS)["ious"]
    assert ious.shape == (8, 19) and ious[5].isnan().all() and not ious[:5].isnan().any()
    for index in (0, 9, 18):
        alone = _measure(cam, masks, lung, THRESHOLDS[index])["iou_tuned"]
        torch.testing.assert_close(alone, ious[:, index].float(), equal_nan=True)


def test_a_map_without_evidence_counts_as_iou_zero_and_an_empty_mask_not_at_all() -> None:
    cam = torch.stack([TARGET[0].float(), -TARGET[0].float(), TARGET[0].float()])
    masks = TARGET.expand(3, -1, -1).clone()
    masks[2] = False
    ious = measure_localisation(cam, masks, thresholds=THRESHOLDS)["ious"]
    assert ious[:2].mean(0).tolist() == [0.5] * len(THRESHOLDS) and best_threshold(ious) == THRESHOLDS[0]
    assert best_threshold(ious[2:]) is None


def test_finite_maps_are_told_from_others() -> None:
    cam = torch.full((5, 4, 4), 3e38)  # whose sum is infinite
    cam[1, 0, 0], cam[2, 3, 3], cam[3, 1, 2] = torch.nan, torch.inf, -torch.inf
    assert are_finite(cam).tolist() == [True, False, False, False, True]
