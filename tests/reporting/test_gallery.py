"""Pictures of the gallery: what is written, what is not, and which images are chosen."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from synthetic import make_shown

from lungseg.reporting import gallery
from lungseg.reporting.chart_files import Chart
from lungseg.reporting.drawing import outline_path
from lungseg.reporting.evaluation_files import Content, PictureWriter, read_pictures
from lungseg.reporting.gallery import choose, gallery_values, warning_signs
from lungseg.reporting.report_run import evaluation_page


def test_outline_filled_again_is_the_mask() -> None:
    mask = make_shown(0).lung
    mask[30:34, 18:22] = False  # a hole
    filled = np.zeros(mask.shape, np.uint8)
    rings = []
    for ring in outline_path(mask).split("M")[1:]:
        start, steps = ring.rstrip("z").split("l")
        points = [np.array(start.split(), int)]
        deltas = np.array(steps.split(), int).reshape(-1, 2)
        rings.append(np.concatenate([points, points[0] + np.cumsum(deltas, axis=0)]).astype(np.int32))
    cv2.fillPoly(filled, rings, 1)
    assert len(rings) == 3
    assert (filled.astype(bool) ^ mask).sum() < 0.03 * mask.sum()


def test_an_empty_mask_has_no_outline_and_a_single_pixel_has_one() -> None:
    mask = np.zeros((8, 8), bool)
    assert outline_path(mask) == ""
    mask[2, 3] = True
    assert outline_path(mask) == "M3 2h1v1h-1z"


def test_files_are_named_by_number_and_what_is_not_known_has_no_layer(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    writer.add(make_shown(0)._replace(lung=None))
    writer.close()
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {"0000.jpg", "0000-map.webp", "0000-thumb.webp", "index.json"}
    about = read_pictures(tmp_path)[0]
    assert set(about.outlines) == {"predicted_lung", "infection"}
    assert (about.width, about.height) == (64, 64)


def test_map_layer_is_transparent_where_there_is_no_evidence(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    shown = make_shown(0)
    cam = np.full_like(shown.cam, -1.0)
    cam[24:40, 16:24] = 2.0
    writer.add(shown._replace(cam=cam))
    alpha = np.asarray(Image.open(tmp_path / "images" / "0000-map.webp"))[..., 3]
    assert alpha[:16].max() == 0
    assert alpha[28:36, 18:22].min() == 255


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_breaks_nothing(tmp_path: Path, broken: float) -> None:
    writer = PictureWriter(tmp_path)
    shown = make_shown(0)
    writer.add(shown._replace(cam=np.full_like(shown.cam, broken)))
    writer.close()
    assert 0 in read_pictures(tmp_path)


def test_large_and_oblong_images_are_shrunk_with_their_shape(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    image, mask = np.zeros((600, 1200), np.float32), np.zeros((600, 1200), bool)
    shown = make_shown(7)._replace(
        image=image, lung=mask, predicted_lung=mask, infection=None, cam=image, predicted_infection=None
    )
    writer.add(shown)
    writer.close()
    assert Image.open(tmp_path / "images" / "0007.jpg").size == (512, 256)
    assert Image.open(tmp_path / "images" / "0007-thumb.webp").size == (96, 48)
    assert read_pictures(tmp_path)[7].width == 512


def test_pictures_of_an_earlier_evaluation_are_removed_and_other_files_kept(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    writer.add(make_shown(5))
    writer.close()
    (tmp_path / "images" / "mine.jpg").write_bytes(b"x")
    PictureWriter(tmp_path)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"mine.jpg"}
    assert not read_pictures(tmp_path)


def test_warning_signs_are_those_of_the_row() -> None:
    good = {"predicted": "Normal", "correct": "1", "confidence": "0.9", "dice": "0.97"}
    good |= {"evidence_in_lungs": "0.8", "evidence_outside": "0", "peak_in_lungs": "1"}
    assert warning_signs(good) == []
    assert warning_signs(good | {"correct": "0", "dice": "0.89", "confidence": "0.59"}) == ["wrong", "unsure", "mask"]
    assert warning_signs(good | {"evidence_outside": "1", "peak_in_lungs": "0"}) == ["outside", "peak"]
    assert warning_signs(good | {"evidence_in_lungs": "", "evidence_outside": "1", "peak_in_lungs": "0"}) == ["none"]
    assert warning_signs({"id": "x", "dice": "", "correct": ""}) == []


def test_of_too_many_images_the_ends_of_every_order_are_kept(content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = choose(content)
    assert sorted(everything) == list(range(12))
    monkeypatch.setattr(gallery, "MOST", 4)
    kept = choose(content)
    dice = {int(n): float(row["dice"]) for n, row in enumerate(content.rows)}
    assert len(kept) == 4
    assert {everything[0], min(dice, key=dice.__getitem__), max(dice, key=dice.__getitem__)} <= set(kept)


def test_pictures_without_a_row_are_left_out(content: Content) -> None:
    short = dataclasses.replace(content, rows=content.rows[:5])
    assert sorted(choose(short)) == [0, 1, 2, 3, 4]


def test_data_of_the_page_is_json_and_holds_every_image(page: str) -> None:
    data = json.loads(page.split('id="gallery-data">')[1].split("</script>")[0])
    assert len(data["images"]) == 12
    row = dict(zip(data["columns"], data["images"]["3"]["row"], strict=True))
    assert row["label"] == "COVID-19" and row["correct"] == 0 and row["infection_dice"] is None
    assert "id" not in row and "group" not in row


def filters_of(page: str) -> dict[str, list[str]]:
    """Values to choose from, by the name of the list."""
    form = page.split('<form id="filters"')[1].split("</form>")[0]
    lists = re.findall(r'<select name="(\w+)">(.*?)</select>', form, re.S)
    return {name: re.findall(r'<option value="([^"]*)"', options) for name, options in lists}


def test_filters_offer_what_there_is_to_choose(page: str, content: Content, evaluation: Path) -> None:
    filters = filters_of(page)
    assert list(filters) == ["order", "true", "predicted", "correct", "sign"]
    assert filters["true"] == ["*", "COVID-19", "Non-COVID", "Normal"] and filters["correct"] == ["*", "1", "0"]
    assert filters["order"][0] == "trust" and filters["sign"] == ["*", *gallery.SIGNS]
    unlabelled = dataclasses.replace(content, rows=[row | {"label": "", "correct": ""} for row in content.rows])
    charts: dict[str, list[Chart]] = {part: [] for part in ("masks", "classes", "maps", "shortcuts", "robustness")}
    assert list(filters_of(evaluation_page(unlabelled, charts, evaluation))) == ["order", "predicted", "sign"]
    assert {card.verdict for card in gallery_values(unlabelled, evaluation)["cards"]} == {""}


def test_a_card_says_what_is_wrong_with_its_image(content: Content, evaluation: Path) -> None:
    card = next(card for card in gallery_values(content, evaluation)["cards"] if card.number == 3)
    assert (card.true, card.predicted, card.verdict) == ("COVID-19", "Non-COVID", "wrong")
    assert card.words.startswith("image 3: true COVID-19, predicted Non-COVID, wrong, dice 0.")
    assert "wrong class" in card.words and card.thumbnail.startswith("data:image/webp;base64,UklGR")
