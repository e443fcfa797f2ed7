from __future__ import annotations

import cv2
import numpy as np
import pytest

from lungseg.reporting.drawing import (
    TRUE_COLOUR,
    Text,
    draw_map,
    draw_outline,
    grey_to_rgb,
    in_lung_units,
    png,
    write_texts,
)


def test_no_evidence_leaves_the_picture_as_it_is() -> None:
    picture = grey_to_rgb(np.random.default_rng(0).random((8, 8)))
    assert (draw_map(picture, np.zeros((8, 8))) == picture).all()
    assert (draw_map(picture, np.full((8, 8), np.nan)) == picture).all()


def test_more_evidence_moves_a_pixel_further_from_the_picture() -> None:
    picture = np.full((1, 5, 3), 20, np.uint8)
    drawn = draw_map(picture, np.linspace(0, 1, 5)[None]).astype(int)
    distance = np.abs(drawn - picture).sum(2)[0]
    assert (np.diff(distance) > 0).all()


def test_the_unit_of_a_map_is_its_maximum_inside_the_lungs() -> None:
    cam = np.array([[4.0, 2.0, -1.0, 1.0]], np.float32)
    lung = np.array([[False, True, True, True]])
    assert in_lung_units(cam, lung).tolist() == [[2.0, 1.0, 0.0, 0.5]]


def test_a_map_without_evidence_in_the_lungs_is_not_blown_up_there() -> None:
    cam = np.array([[4.0, 2.0, -1.0, 0.0]], np.float32)
    lung = np.array([[False, False, True, True]])
    assert in_lung_units(cam, lung).tolist() == [[1.0, 0.5, 0.0, 0.0]]
    assert (in_lung_units(-cam[:, :2], lung[:, :2]) == 0).all()


def test_outline_has_its_colour_on_the_border_only() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = draw_outline(np.zeros((20, 20, 3), np.uint8), mask, TRUE_COLOUR)
    assert tuple(drawn[5, 10]) == TRUE_COLOUR and not drawn[10, 10].any() and not drawn[0, 0].any()


def test_letters_beyond_ascii_are_told_apart() -> None:
    pytest.importorskip("matplotlib")
    paper = np.zeros((30, 60, 3), np.uint8)
    assert not np.array_equal(*(write_texts(paper, [Text(2, 2, letter, 20)]) for letter in "üß"))


def test_png_holds_the_picture_in_rgb() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = (255, 120, 60)
    decoded = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded[0, 0].tolist() == [60, 120, 255]
