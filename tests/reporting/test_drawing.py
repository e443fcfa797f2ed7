from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from lungseg.reporting.drawing import (
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    Text,
    Tile,
    draw_map,
    draw_outline,
    draw_sheet,
    draw_tile,
    fit_size,
    grey_to_rgb,
    in_lung_units,
    png,
    write_texts,
)


def _tile(height: int = 64, width: int = 64) -> Tile:
    lung = np.zeros((height, width), bool)
    lung[16:48, 10:26] = True
    cam = np.zeros((height, width), np.float32)
    cam[20:30, 12:20] = 2.0
    return Tile(np.full((height, width), 0.5, np.float32), lung, np.roll(lung, 20, 1), cam, "caption")


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


def test_both_map_panels_share_one_scale() -> None:
    lung = np.zeros((64, 64), bool)
    lung[:, :32] = True
    cam = np.where(lung, 1.0, 3.0).astype(np.float32)
    drawn = draw_tile(Tile(np.full((64, 64), 0.5, np.float32), None, lung, cam, "c"), side_px=64)
    whole, inside = drawn[:64, 136:200], drawn[:64, 204:268]
    assert (whole[2:62, 2:30] == inside[2:62, 2:30]).all()  # but for the outline
    assert (whole[10, 40] == inside[10, 10]).all() and (inside[:, 33:] == 128).all()


def test_outline_has_its_colour_on_the_border_only() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = draw_outline(np.zeros((20, 20, 3), np.uint8), mask, TRUE_COLOUR)
    assert tuple(drawn[5, 10]) == TRUE_COLOUR and not drawn[10, 10].any() and not drawn[0, 0].any()


def test_tile_shows_both_lungs_and_the_map_in_its_panels() -> None:
    drawn = draw_tile(_tile(), side_px=64)
    panels = [drawn[:64, i * 68 : i * 68 + 64] for i in range(4)]
    assert (panels[0] == 128).all()
    assert (panels[1] == TRUE_COLOUR).all(2).any() and (panels[1] == PREDICTED_COLOUR).all(2).any()
    assert (panels[2][25, 15] != 128).any() and (panels[3][50:, :] == 128).all()


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (200, 40)])
def test_a_tile_is_as_large_whatever_the_shape_of_its_image(size: tuple[int, int]) -> None:
    image = np.full(size, 0.5, np.float32)
    nothing = np.zeros(size, bool)
    drawn = draw_tile(Tile(image, nothing, nothing, np.zeros(size, np.float32), "caption"), side_px=64)
    assert drawn.shape == draw_tile(_tile(), side_px=64).shape
    shown = (drawn[:64, :64] > 100).all(2)  # the image, its aspect kept, in the middle of the first panel
    assert (shown.any(1).sum(), shown.any(0).sum()) == fit_size(size, 64)[::-1]
    assert all(abs(places.mean() - 31.5) <= 0.5 for places in np.nonzero(shown))


def test_sheet_has_one_row_a_sample() -> None:
    tile = _tile()
    one, three = draw_sheet([tile], "t"), draw_sheet([tile] * 3, "t")
    height = draw_tile(tile).shape[0]
    assert one.dtype == np.uint8 and three.shape[1] == one.shape[1]
    assert three.shape[0] - one.shape[0] == 2 * (height + 6)


def test_warning_and_empty_lung_are_drawn() -> None:
    tile = dataclasses.replace(_tile(), predicted_lung=np.zeros((64, 64), bool))
    plain, warned = draw_tile(tile), draw_tile(dataclasses.replace(tile, warning="LOOK HERE"))
    assert (plain != warned).any()


def test_letters_beyond_ascii_are_told_apart() -> None:
    pytest.importorskip("matplotlib")
    paper = np.zeros((30, 60, 3), np.uint8)
    assert not np.array_equal(*(write_texts(paper, [Text(2, 2, letter, 20)]) for letter in "üß"))


def test_png_holds_the_picture_in_rgb() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = (255, 120, 60)
    decoded = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded[0, 0].tolist() == [60, 120, 255]
