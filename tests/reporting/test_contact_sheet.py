from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lungseg.reporting.contact_sheet import Tile, draw_sheet, draw_tile, layer_on_sheet
from lungseg.reporting.drawing import PREDICTED_COLOUR, TRUE_COLOUR, fit_size


def _tile(height: int = 64, width: int = 64) -> Tile:
    lung = np.zeros((height, width), bool)
    lung[16:48, 10:26] = True
    cam = np.zeros((height, width), np.float32)
    cam[20:30, 12:20] = 2.0
    return Tile(np.full((height, width), 0.5, np.float32), lung, np.roll(lung, 20, 1), cam, "caption")


def test_both_map_panels_share_one_scale() -> None:
    lung = np.zeros((64, 64), bool)
    lung[:, :32] = True
    cam = np.where(lung, 1.0, 3.0).astype(np.float32)
    drawn = draw_tile(Tile(np.full((64, 64), 0.5, np.float32), None, lung, cam, "c"), side_px=64)
    whole, inside = drawn[:64, 136:200], drawn[:64, 204:268]
    assert (whole[2:62, 2:30] == inside[2:62, 2:30]).all()  # but for the outline
    assert (whole[10, 40] == inside[10, 10]).all() and (inside[:, 33:] == 128).all()


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


def test_a_layer_lies_on_the_x_rays_of_its_sheet_and_nowhere_else() -> None:
    tiles = [_tile(), _tile(64, 32)]
    sheet = draw_sheet(tiles, "t", side_px=64)
    labels = [np.full(tile.image.shape, number, np.uint8) for number, tile in enumerate(tiles, start=1)]
    layer = layer_on_sheet(labels, sheet, side_px=64)
    assert layer.shape == sheet.shape[:2] and layer.dtype == np.uint8
    assert [(layer == number).sum() for number in (1, 2)] == [64 * 64, 64 * 32]
    assert (sheet[layer > 0] == 128).all(), "the X-rays are grey 0.5, and every labelled pixel is one of theirs"
