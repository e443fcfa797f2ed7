from __future__ import annotations

import math

import pytest
import torch

from lungseg.cam.lung import evidence_in_lungs, mask_to_lung, resize_map


def test_uniform_map_has_the_share_of_the_lungs_area() -> None:
    lung = torch.zeros(1, 10, 10, dtype=torch.bool)
    lung[0, :4, :5] = True
    assert float(evidence_in_lungs(torch.full((1, 10, 10), 3.0), lung)) == pytest.approx(0.2)


def test_map_inside_the_lungs_has_share_one_and_negative_evidence_does_not_count() -> None:
    lung = torch.zeros(1, 4, 4, dtype=torch.bool)
    lung[0, 1:3, 1:3] = True
    cam = torch.where(lung, 2.0, -5.0)
    assert float(evidence_in_lungs(cam, lung)) == 1


def test_share_is_nan_without_positive_evidence() -> None:
    assert math.isnan(float(evidence_in_lungs(-torch.ones(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))))


def test_masked_map_is_scaled_by_its_lung_maximum_not_the_images() -> None:
    lung = torch.tensor([[[True, True, False]]])
    masked = mask_to_lung(torch.tensor([[[1.0, 4.0, 100.0]]]), lung)
    torch.testing.assert_close(masked, torch.tensor([[[0.25, 1.0, 0.0]]]))


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_masked_map_is_zero_for_an_empty_lung_or_no_positive_evidence(value: float) -> None:
    lung = torch.full((1, 4, 4), value < 0)
    assert (mask_to_lung(torch.full((1, 4, 4), value), lung) == 0).all()


def test_resized_map_keeps_values_at_the_centres_of_its_pixels() -> None:
    cam = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    full = resize_map(cam, stride=3, size=(6, 6))
    assert (float(full[0, 1, 1]), float(full[0, 1, 4]), float(full[0, 4, 1])) == (1, 2, 3)


def test_resized_map_of_a_padded_image_is_cropped_not_squeezed() -> None:
    cam = torch.arange(4.0).view(1, 1, 4)
    torch.testing.assert_close(resize_map(cam, 4, (4, 13)), resize_map(cam, 4, (4, 16))[..., :13])
