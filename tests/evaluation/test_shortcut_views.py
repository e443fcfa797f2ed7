from __future__ import annotations

import math

import pytest
import torch

from lungseg.evaluation.shortcut_views import (
    BORDER_SHARE,
    NOTHING_KEPT,
    VIEWS,
    border_only,
    box_blanked,
    keep,
    lungs_blanked,
    lungs_only,
    measure_distance,
)


def _lung(*pixels: tuple[int, int], size: int = 32) -> torch.Tensor:
    lung = torch.zeros(1, size, size, dtype=torch.bool)
    for row, column in pixels:
        lung[0, row, column] = True
    return lung


def test_distance_is_exact_and_a_share_of_the_shorter_side() -> None:
    lung = torch.zeros(1, 10, 20, dtype=torch.bool)
    lung[0, 2, 3] = True
    distance = measure_distance(lung)
    assert distance[0, 2, 3] == 0
    assert float(distance[0, 2 + 3, 3 + 4]) == pytest.approx(5 / 10)
    assert float(distance[0, 0, 3]) == pytest.approx(2 / 10)


def test_dilation_is_a_disc() -> None:
    place = measure_distance(_lung((16, 16)))
    kept = lungs_only(place, margin=2 / 32)[0]
    assert int(kept.sum()) == 13  # the pixels within a radius of 2
    assert bool(kept[16, 18]) and not kept[17, 18]


def test_what_is_hidden_takes_the_mean_of_what_is_kept() -> None:
    image = torch.tensor([[[[0.2, 0.4], [0.9, 1.0]]]])
    kept = torch.tensor([[[True, True], [False, False]]])
    assert keep(image, kept)[0, 0].tolist() == [pytest.approx([0.2, 0.4]), pytest.approx([0.3, 0.3])]


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "full"])
def test_no_hidden_pixel_has_a_say_in_a_view(view: str) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 1, 32, 32, generator=generator)
    lung = _lung(*[(row, column) for row in range(8, 20) for column in range(10, 22)])
    kept = VIEWS[view](measure_distance(lung))
    assert 0 < int(kept.sum()) < kept.numel()
    mixed = torch.where(kept[:, None], first, second)
    assert torch.equal(keep(first, kept), keep(mixed, kept))


def test_lungs_and_all_but_the_lungs_show_each_pixel_once() -> None:
    place = measure_distance(_lung((5, 5), (20, 9), (21, 9)))
    for margin in (0.0, 0.02, 0.1):
        assert torch.equal(lungs_only(place, margin), ~lungs_blanked(place, margin))
    assert torch.equal(VIEWS["lungs"](place), ~VIEWS["blanked"](place))
    assert bool(VIEWS["full"](place).all())


def test_the_box_reaches_over_what_lies_between_the_lungs() -> None:
    kept = box_blanked(measure_distance(_lung((4, 6), (9, 20))), margin=0.0)[0]
    hidden = torch.zeros(32, 32, dtype=torch.bool)
    hidden[4:10, 6:21] = True
    assert torch.equal(kept, ~hidden)


def test_the_border_is_a_frame_without_the_lungs() -> None:
    kept = border_only(measure_distance(_lung((0, 0), (16, 16))), margin=0.0)[0]
    assert round(BORDER_SHARE * 32) == 3
    assert int(kept.sum()) == 32 * 32 - 26 * 26 - 1
    assert bool(kept[0, 1]) and not kept[0, 0] and not kept[3, 3]


def test_without_lungs_nothing_of_them_is_shown_and_nothing_is_blanked() -> None:
    place = measure_distance(torch.cat([_lung(), _lung((3, 3))]))
    assert math.isinf(float(place[0].min()))
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(keep(image, lungs_only(place, 0.2))[0], torch.full((1, 32, 32), NOTHING_KEPT))
    assert torch.equal(keep(image, lungs_blanked(place, 0.2))[0], image[0])
    assert torch.equal(keep(image, box_blanked(place, 0.2))[0], image[0])


def test_a_view_does_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(4, 1, 32, 32, generator=generator)
    lung = torch.rand(4, 32, 32, generator=generator) > 0.98
    for view in VIEWS.values():
        together = keep(images, view(measure_distance(lung)))
        alone = [keep(images[i : i + 1], view(measure_distance(lung[i : i + 1]))) for i in range(4)]
        assert torch.equal(together, torch.cat(alone))
