"""The page in a real headless Chromium: `pytest -m slow tests/reporting/report`; skipped where there is none."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headless import Page
from synthetic import make_evaluation

from lungseg.reporting.report.page import write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium")]
SHOWN = "[...document.querySelectorAll('#cards li')].map((item) => Number(item.dataset.i))"
OPACITY = "document.querySelector('#stage [data-layer={}]').style.opacity"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_evaluation(tmp_path_factory.mktemp("shown"))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture
def page(chromium: Page, folder: Path) -> Page:
    """The report, freshly loaded."""
    chromium.open(Path("/dev/null"))
    chromium.events.clear()
    chromium.open(folder / "report.html")
    return chromium


def _choose(page: Page, name: str, value: str) -> list[int]:
    """Choose from a list of the filters; the numbers then shown."""
    page.run(
        f"(() => {{ const list = document.getElementById('filters').elements['{name}'];"
        f"list.value = {json.dumps(value)};"
        "list.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    numbers: list[int] = page.run(SHOWN)
    return numbers


def _rows(page: Page) -> dict[int, dict[str, Any]]:
    """The columns of per_image.csv by number, as the page has them."""
    data = json.loads(page.run("document.getElementById('gallery-data').textContent"))
    return {
        int(n): dict(zip(data["columns"], image["row"], strict=True)) | {"signs": image["signs"]}
        for n, image in data["images"].items()
    }


def _faults(page: Page) -> list[Any]:
    told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
    return [event for event in page.events if event["method"] in told]


def _requests(page: Page) -> list[str]:
    sent = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def test_page_loads_without_a_word_on_the_console_and_asks_for_nothing_else(page: Page, folder: Path) -> None:
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert _faults(page) == []
    assert _requests(page) == [(folder / "report.html").as_uri()]


def test_a_picture_is_loaded_when_it_is_opened_and_not_before(page: Page, folder: Path) -> None:
    number = page.run(SHOWN)[0]
    page.run("document.querySelector('#cards button').click()")
    image = "document.querySelector('#stage [data-layer=image]')"
    page.run(f"{image}.decode()")
    images = (folder / "images").as_uri()
    assert _requests(page)[1:] == [f"{images}/{number:04d}.jpg", f"{images}/{number:04d}-map.webp"]
    assert page.run(f"Math.round({image}.getBoundingClientRect().width)") > 200
    assert page.run("document.getElementById('missing').hidden")
    assert f"Image {number} " in page.run("document.getElementById('viewer-title').textContent")
    assert _faults(page) == []


def test_sliders_set_the_opacity_of_their_layer(page: Page) -> None:
    page.run("document.querySelector('#cards li[data-i=\"0\"] button').click()")
    for name, start in (("image", "1"), ("map", "0.75"), ("lung", "1"), ("predicted_lung", "1"), ("infection", "1")):
        assert page.run(OPACITY.format(name)) == start
        page.run(
            f"(() => {{ const slider = document.getElementById('layers').elements['{name}']; slider.value = 30;"
            "slider.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        assert page.run(OPACITY.format(name)) == "0.3"
    assert page.run("document.getElementById('layers').elements.predicted_infection.parentElement.hidden")
    assert page.run("document.getElementById('cropped').getAttribute('clip-path')") == "none"
    page.run("document.getElementById('layers').elements.crop.click()")
    assert page.run("document.getElementById('cropped').getAttribute('clip-path')") == "url(#crop)"


def test_an_opacity_changes_what_is_seen(page: Page, tmp_path: Path) -> None:
    page.run("document.querySelector('#cards button').click()")
    page.run("document.querySelector('#stage [data-layer=image]').decode()")
    page.run("new Promise((done) => setTimeout(done, 300))")
    page.screenshot(tmp_path / "before.png")
    page.press("m")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.screenshot(tmp_path / "after.png")
    assert page.run(OPACITY.format("map")) == "0"
    assert (tmp_path / "before.png").read_bytes() != (tmp_path / "after.png").read_bytes()


def test_filters_show_the_images_that_fit_and_only_those(page: Page) -> None:
    rows = _rows(page)
    assert set(_choose(page, "true", "Normal")) == {n for n, row in rows.items() if row["label"] == "Normal"}
    both = {n for n, row in rows.items() if row["label"] == "Normal" and row["correct"] == 0}
    assert set(_choose(page, "correct", "0")) == both != set()
    assert page.run("document.getElementById('count').textContent") == f"{len(both)} of {len(rows)} images"
    page.run("document.getElementById('filters').reset()")
    page.wait(f"{SHOWN}.length === {len(rows)}")
    assert set(_choose(page, "predicted", "COVID-19")) == {
        n for n, row in rows.items() if row["predicted"] == "COVID-19"
    }
    page.run("document.getElementById('filters').reset()")
    page.wait(f"{SHOWN}.length === {len(rows)}")
    assert set(_choose(page, "sign", "outside")) == {n for n, row in rows.items() if "outside" in row["signs"]}


@pytest.mark.parametrize(
    ("order", "column", "sign"),
    [("worst", "dice", 1), ("best", "dice", -1), ("outside", "evidence_in_lungs", 1), ("unsure", "confidence", 1)],
)
def test_orders_sort_by_their_column(page: Page, order: str, column: str, sign: int) -> None:
    rows = _rows(page)
    values = [sign * rows[number][column] for number in _choose(page, "order", order)]
    assert values == sorted(values)


def test_most_surely_wrong_stand_first_and_by_number_is_by_number(page: Page) -> None:
    rows = _rows(page)
    found = _choose(page, "order", "confused")
    wrong = sorted((n for n, row in rows.items() if row["correct"] == 0), key=lambda n: -rows[n]["confidence"])
    assert found[: len(wrong)] == wrong
    assert _choose(page, "order", "number") == sorted(rows)


def test_a_cell_of_the_confusion_matrix_shows_its_images(page: Page) -> None:
    rows = _rows(page)
    page.run('document.querySelector(\'[data-true="Normal"][data-predicted="COVID-19"]\').click()')
    page.run("new Promise((done) => setTimeout(done, 100))")
    fitting = {n for n, row in rows.items() if (row["label"], row["predicted"]) == ("Normal", "COVID-19")}
    assert set(page.run(SHOWN)) == fitting != set()


def test_keys_move_through_the_gallery_and_the_viewer(page: Page) -> None:
    _choose(page, "order", "number")
    focused = "Number(document.activeElement.closest('li')?.dataset.i ?? -1)"
    title = "document.getElementById('viewer-title').textContent.split(' ')[1]"
    page.run("document.querySelector('#cards button').focus()")
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 11), ("Home", 0)):
        page.press(key)
        assert page.run(focused) == number
    page.press("ArrowDown")
    columns = page.run("getComputedStyle(document.getElementById('cards')).gridTemplateColumns.split(' ').length")
    assert page.run(focused) == min(columns, 11)
    page.press("Home")
    page.press("Enter")
    page.wait("document.getElementById('viewer').open")
    assert page.run(title) == "0"
    page.press("ArrowRight")
    assert page.run(title) == "1"
    page.press("c")
    assert page.run("document.getElementById('layers').elements.crop.checked")
    page.run("document.getElementById('layers').elements.map.focus()")
    page.press("ArrowRight")
    assert page.run(title) == "1"  # on a slider, arrows are the slider's
    assert page.run("document.getElementById('layers').elements.map.value") == "76"
    page.press("Escape")
    page.wait("!document.getElementById('viewer').open")
    assert page.run(focused) == 1


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    for width in (1280, 400):
        page.resize(width, 900)
        assert page.run("document.documentElement.scrollWidth") <= width
        page.run("document.querySelector('#cards button').click()")
        assert page.run("document.getElementById('viewer').getBoundingClientRect().right") <= width
        page.run("document.getElementById('viewer').close()")
    page.resize(1280, 900)


def test_print_shows_24_images_and_no_controls(chromium: Page, tmp_path: Path) -> None:
    write_report(make_evaluation(tmp_path, images=30))
    chromium.open(tmp_path / "report.html")
    chromium.send("Emulation.setEmulatedMedia", media="print")
    seen = (
        "[...document.querySelectorAll('#cards li')].filter((item) => getComputedStyle(item).display !== 'none').length"
    )
    assert chromium.run(seen) == 24
    assert chromium.run("getComputedStyle(document.getElementById('filters')).display") == "none"
    chromium.send("Emulation.setEmulatedMedia", media="")
    assert chromium.run(seen) == 30


def test_a_folder_of_pictures_left_behind_is_told(chromium: Page, tmp_path: Path) -> None:
    write_report(make_evaluation(tmp_path / "whole", images=3))
    shutil.copy(tmp_path / "whole" / "report.html", tmp_path)
    chromium.open(tmp_path / "report.html")
    chromium.run("document.querySelector('#cards button').click()")
    chromium.wait("!document.getElementById('missing').hidden")


def test_1200_images_stay_responsive(chromium: Page, tmp_path: Path) -> None:
    page = write_report(make_evaluation(tmp_path, images=1200))
    assert page.stat().st_size < 16e6
    start = time.monotonic()
    chromium.open(page)
    loaded = time.monotonic() - start
    assert chromium.run(f"{SHOWN}.length") == 1200
    timed = (
        "new Promise((done) => { const start = performance.now(); %s;"
        "requestAnimationFrame(() => done(performance.now() - start)); })"
    )
    change = (
        "const list = document.getElementById('filters').elements.order; list.value = 'worst';"
        "list.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    taken = {
        "order": chromium.run(timed % change),
        "scroll": chromium.run(timed % "document.querySelector('#cards li:nth-child(600)').scrollIntoView()"),
        "open": chromium.run(timed % "document.querySelector('#cards li:nth-child(600) button').click()"),
        "next": chromium.run(timed % "document.getElementById('next').click()"),
    }
    print(f"load {loaded:.2f} s, then in ms {taken}, {page.stat().st_size / 1e6:.1f} MB")
    assert loaded < 10
    assert max(taken.values()) < 1500
