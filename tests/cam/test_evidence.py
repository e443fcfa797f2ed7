from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lungseg.cam.lung import MOSTLY_OUTSIDE, Evidence, describe_evidence


def _lungs() -> Tensor:
    """Two lungs of 2 x 2 pixels in a frame of 4 x 8: columns 1-2 and 5-6, so the centroid lies at column 3.5."""
    lung = torch.zeros(1, 4, 8, dtype=torch.bool)
    lung[0, 1:3, 1:3] = lung[0, 1:3, 5:7] = True
    return lung


def _numbers(evidence: Evidence) -> list[float]:
    return [float(field) for field in evidence]


def test_account_of_a_map_by_hand() -> None:
    cam = torch.zeros(1, 4, 8)
    cam[0, 1, 1], cam[0, 2, 6], cam[0, 0, 7], cam[0, 3, 3] = 3, 1, 6, -9
    evidence = describe_evidence(cam, _lungs())
    # share, outside, area, peak row, peak column, peak in lungs, image left, image right
    assert _numbers(evidence) == pytest.approx([0.4, 1, 0.25, 0, 7, 0, 0.75, 0.25])


def test_peak_inside_the_lungs_is_found_there() -> None:
    cam = torch.zeros(1, 4, 8)
    cam[0, 2, 5] = 0.1
    assert _numbers(describe_evidence(cam, _lungs())) == pytest.approx([1, 0, 0.25, 2, 5, 1, 0, 1])


def test_uniform_map_has_the_lungs_area_as_share_and_its_first_pixel_as_peak() -> None:
    evidence = describe_evidence(torch.full((1, 4, 8), 7.0), _lungs())
    assert float(evidence.evidence_in_lungs) == float(evidence.lung_area) == 0.25
    assert (float(evidence.peak_row_px), float(evidence.peak_column_px)) == (0, 0)


def test_a_column_on_the_centroid_counts_half_to_each_side() -> None:
    lung = torch.tensor([[[False, True, True, True, False]]])
    cam = torch.tensor([[[9.0, 2.0, 4.0, 4.0, 9.0]]])
    assert float(describe_evidence(cam, lung).evidence_image_left) == pytest.approx(0.4)


def test_mirroring_the_image_swaps_its_sides() -> None:
    torch.manual_seed(0)
    cam, lung = torch.rand(3, 6, 9), torch.rand(3, 6, 9) > 0.5
    evidence, mirrored = describe_evidence(cam, lung), describe_evidence(cam.flip(2), lung.flip(2))
    torch.testing.assert_close(evidence.evidence_image_left, mirrored.evidence_image_right)
    assert not torch.allclose(evidence.evidence_image_left, evidence.evidence_image_right)


@pytest.mark.parametrize("value", [0.0, -1.0, torch.nan, torch.inf])
def test_a_map_without_evidence_or_not_finite_has_no_share_no_peak_and_no_flag(value: float) -> None:
    lung = _lungs()
    lung[0, 0, 0] = True  # where a search for the maximum would end
    evidence = describe_evidence(torch.full((1, 4, 8), value), lung)
    numbers = (evidence.evidence_in_lungs, evidence.peak_row_px, evidence.peak_column_px, evidence.evidence_image_left)
    assert all(number.isnan() for number in (*numbers, evidence.evidence_image_right))
    assert not evidence.evidence_outside
    assert not evidence.peak_in_lungs
    assert float(evidence.lung_area) == 9 / 32


def test_an_empty_lung_mask_holds_nothing() -> None:
    evidence = describe_evidence(torch.ones(1, 4, 8), torch.zeros(1, 4, 8, dtype=torch.bool))
    assert (float(evidence.evidence_in_lungs), float(evidence.lung_area)) == (0, 0)
    assert evidence.evidence_outside
    assert not evidence.peak_in_lungs
    assert evidence.evidence_image_left.isnan()
    assert evidence.evidence_image_right.isnan()


def test_evidence_only_outside_the_lungs_has_no_side() -> None:
    evidence = describe_evidence((~_lungs()).float(), _lungs())
    assert float(evidence.evidence_in_lungs) == 0
    assert evidence.evidence_image_left.isnan()


def test_outside_is_below_the_threshold_not_at_it() -> None:
    cam = torch.zeros(1, 4, 8)
    cam[0, 1, 1] = cam[0, 0, 0] = 1
    assert float(describe_evidence(cam, _lungs()).evidence_in_lungs) == MOSTLY_OUTSIDE
    assert not describe_evidence(cam, _lungs()).evidence_outside
    cam[0, 0, 0] = 1.01
    assert describe_evidence(cam, _lungs()).evidence_outside


def test_batch_gives_what_each_image_gives_alone() -> None:
    torch.manual_seed(0)
    cam, lung = torch.randn(5, 16, 12), torch.rand(5, 16, 12) > 0.5
    cam[3] = -1
    alone = [describe_evidence(cam[i : i + 1], lung[i : i + 1]) for i in range(5)]
    for field, parts in zip(describe_evidence(cam, lung), zip(*alone, strict=True), strict=True):
        assert field.shape == (5,)
        assert field.dtype in (torch.float32, torch.bool)
        torch.testing.assert_close(field, torch.cat(parts), equal_nan=True)
