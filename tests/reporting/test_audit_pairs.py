"""The picture of pairs that an audit writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg.data.duplicates import Leak
from lungseg.data.sample import Sample, Split
from lungseg.reporting import audit_report
from lungseg.reporting.audit_report import SIDE_PX, draw_pairs
from lungseg.reporting.drawing import WARNING_COLOUR, Array


def write(folder: Path, name: str, value: int, shape: tuple[int, int], split: Split = "train") -> Sample:
    path = folder / name
    path.write_bytes(cv2.imencode(".png", np.full(shape, value, np.uint8))[1].tobytes())
    return Sample(name, path, None, None, 0, split)


def test_pair_lies_side_by_side_with_its_aspect_kept(tmp_path: Path) -> None:
    wide, high = write(tmp_path, "wide.png", 100, (20, 40)), write(tmp_path, "high.png", 200, (400, 200))
    sheet = draw_pairs([Leak("near", 0.99, wide, high)])
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 2 * SIDE_PX
    panels = sheet[40 : 40 + SIDE_PX, :, 0]
    assert np.count_nonzero(panels == 100) == SIDE_PX * SIDE_PX // 2
    assert np.count_nonzero(panels == 200) == SIDE_PX * SIDE_PX // 2
    assert panels[SIDE_PX // 2, 0] == 100 and panels[0, 0] == 0
    assert panels[0, SIDE_PX + SIDE_PX // 2] == 200 and panels[SIDE_PX // 2, SIDE_PX] == 0


def has_warning(sheet: Array) -> bool:
    return bool((sheet == WARNING_COLOUR).all(axis=2).any())


def test_pair_across_splits_is_written_in_the_warning_colour(tmp_path: Path) -> None:
    a, b = write(tmp_path, "a.png", 100, (20, 20)), write(tmp_path, "b.png", 100, (20, 20))
    c = write(tmp_path, "c.png", 100, (20, 20), "val")
    assert not has_warning(draw_pairs([Leak("exact", 1.0, a, b)]))
    assert has_warning(draw_pairs([Leak("exact", 1.0, a, c)]))


def test_sheet_holds_the_first_pairs_in_rows_of_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [
        Leak("exact", 1.0, write(tmp_path, f"a{n}.png", 10 * n + 50, (9, 9)), write(tmp_path, f"b{n}.png", 5, (9, 9)))
        for n in range(7)
    ]
    one = draw_pairs(pairs[:4])
    monkeypatch.setattr(audit_report, "MOST_PAIRS", 6)
    two = draw_pairs(pairs)
    assert one.shape[1] == two.shape[1] == 4 * (2 * SIDE_PX + 8) - 8
    assert two.shape[0] - 40 == 2 * (one.shape[0] - 40)
    assert (two == 90).all(axis=2).sum() >= SIDE_PX**2 and not (two == 110).all(axis=2).sum() >= SIDE_PX**2


def test_image_that_is_gone_leaves_a_grey_square(tmp_path: Path) -> None:
    here, gone = write(tmp_path, "a.png", 100, (9, 9)), write(tmp_path, "b.png", 100, (9, 9))
    gone.image.unlink()
    assert (draw_pairs([Leak("exact", 1.0, here, gone)])[40 : 40 + SIDE_PX, SIDE_PX:] == 60).all()


def test_long_name_does_not_run_into_its_neighbour(tmp_path: Path) -> None:
    short = write(tmp_path, "b.png", 100, (9, 9))
    sheets = [
        draw_pairs([Leak("exact", 1.0, write(tmp_path, f"{start}{'x' * 40}.png", 100, (9, 9)), short)])
        for start in ("first", "other")
    ]
    assert (sheets[0] == sheets[1]).all()
