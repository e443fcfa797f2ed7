from __future__ import annotations

import numpy as np
import pytest

from lungseg.data.phantom.generator import draw_phantom
from lungseg.inference.input_checks.orientation import (
    FEATURES,
    ORIENTATIONS,
    Orientation,
    compare,
    features,
    reorient,
    spread,
)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_spread_weights_rate_the_reoriented_image_as_the_weights_rate_the_upright_one(orientation: Orientation) -> None:
    image = draw_phantom(3, 0, 64).image  # of the side that the numbers are taken at: nothing is averaged
    weights = np.random.default_rng(0).normal(size=FEATURES).astype(np.float32)
    logits = features(reorient(image, orientation)) @ spread(weights)
    assert logits[ORIENTATIONS.index(orientation)] == pytest.approx(float(features(image) @ weights), abs=1e-3)


def test_numbers_do_not_know_brightness_contrast_and_gamma() -> None:
    image = draw_phantom(3, 0, 64).image // 2  # so that no two grey values become one
    brighter = (30 + 1.6 * image).astype(np.uint8)
    np.testing.assert_allclose(features(brighter), features(image), atol=1e-5)


def test_an_image_is_mirrored_then_turned_then_inverted() -> None:
    image = np.array([[1, 2], [3, 4]], np.uint8)
    assert reorient(image, Orientation(True, 1, True)).tolist() == [[254, 252], [253, 251]]


def test_a_blank_image_has_finite_numbers_and_a_likeness() -> None:
    image = np.zeros((10, 20), np.uint8)
    assert np.isfinite(features(image)).all()
    assert np.isfinite(compare(image)).all()
