"""The page in a real headless Chromium: `pytest -m slow tests/reporting`; skipped where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from synthetic import make_evaluation

from lungseg.reporting.report_run import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `pip install playwright`")
from chromium import Report  # noqa: E402  # needs playwright

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_evaluation(tmp_path_factory.mktemp("shown"))
    write_report(made)
    return made


@pytest.fixture
def report(browser: Browser, folder: Path) -> Iterator[Report]:
    """The page of 12 images, freshly loaded."""
    opened = Report(browser, folder / "report.html")
    yield opened
    opened.page.close()


def test_page_loads_without_a_word_on_the_console_and_asks_for_nothing_else(report: Report, folder: Path) -> None:
    report.page.wait_for_timeout(300)
    assert report.said == []
    assert report.requests == [(folder / "report.html").as_uri()]


def test_a_picture_is_loaded_when_it_is_opened_and_not_before(report: Report, folder: Path) -> None:
    number = report.shown()[0]
    report.open(number)
    images = (folder / "images").as_uri()
    assert report.requests[1:] == [f"{images}/{number:04d}.jpg", f"{images}/{number:04d}-map.webp"]
    box = report.page.locator("#stage [data-layer=image]").bounding_box()
    assert box is not None and box["width"] > 200
    assert report.page.locator("#missing").is_hidden()
    assert f"Image {number} " in report.page.inner_text("#viewer-title")
    assert report.said == []


def test_the_policy_of_the_page_refuses_what_lies_elsewhere(report: Report) -> None:
    asked = "fetch('https://example.invalid/').then(() => 'answered', () => 'refused')"
    assert report.run(asked) == "refused"
    assert any("Content Security Policy" in line for line in report.said)


def test_sliders_set_the_opacity_of_their_layer(report: Report) -> None:
    report.open(0)
    for name, start in (("image", "1"), ("map", "0.75"), ("lung", "1"), ("predicted_lung", "1"), ("infection", "1")):
        assert report.opacity(name) == start
        report.page.fill(f"#layers [name={name}]", "30")
        assert report.opacity(name) == "0.3"
    assert report.page.locator("#layers [name=predicted_infection]").is_hidden()  # the network predicts none
    assert report.page.get_attribute("#cropped", "clip-path") == "none"
    report.page.check("#layers [name=crop]")
    assert report.page.get_attribute("#cropped", "clip-path") == "url(#crop)"


def test_an_opacity_changes_what_is_seen(report: Report) -> None:
    report.open(report.shown()[0])
    report.page.wait_for_timeout(200)
    before = report.page.screenshot()
    assert report.page.screenshot() == before
    report.press("m")
    assert report.opacity("map") == "0"
    assert report.page.screenshot() != before


def test_filters_show_the_images_that_fit_and_only_those(report: Report) -> None:
    rows = report.rows()
    assert set(report.choose("true", "Normal")) == {n for n, row in rows.items() if row["label"] == "Normal"}
    both = {n for n, row in rows.items() if row["label"] == "Normal" and row["correct"] == 0}
    assert set(report.choose("correct", "0")) == both != set()
    assert report.page.inner_text("#count") == f"{len(both)} of {len(rows)} images"
    for name, value, column in (("predicted", "COVID-19", "predicted"), ("sign", "outside", "signs")):
        report.page.click("#filters [type=reset]")
        playwright.expect(report.page.locator("#cards li")).to_have_count(len(rows))  # the page forbids eval
        fitting = {n for n, row in rows.items() if value in row[column]}
        assert set(report.choose(name, value)) == fitting != set()


@pytest.mark.parametrize(
    ("order", "column", "sign"),
    [("worst", "dice", 1), ("best", "dice", -1), ("outside", "evidence_in_lungs", 1), ("unsure", "confidence", 1)],
)
def test_orders_sort_by_their_column(report: Report, order: str, column: str, sign: int) -> None:
    rows = report.rows()
    values = [sign * rows[number][column] for number in report.choose("order", order)]
    assert values == sorted(values)


def test_most_surely_wrong_stand_first_and_by_number_is_by_number(report: Report) -> None:
    rows = report.rows()
    wrong = sorted((n for n, row in rows.items() if row["correct"] == 0), key=lambda n: -rows[n]["confidence"])
    assert report.choose("order", "confused")[: len(wrong)] == wrong
    assert report.choose("order", "number") == sorted(rows)


def test_a_cell_of_the_confusion_matrix_shows_its_images(report: Report) -> None:
    fitting = {n for n, r in report.rows().items() if (r["label"], r["predicted"]) == ("Normal", "COVID-19")}
    report.page.click('.confusion [data-true="Normal"][data-predicted="COVID-19"]')
    report.page.wait_for_timeout(100)
    assert set(report.shown()) == fitting != set()


def test_keys_move_through_the_gallery_and_the_viewer(report: Report) -> None:
    report.choose("order", "number")
    focused = "Number(document.activeElement.closest('li')?.dataset.i ?? -1)"
    title = "document.getElementById('viewer-title').textContent.split(' ')[1]"
    report.page.focus("#cards button")
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 11), ("Home", 0)):
        report.press(key)
        assert report.run(focused) == number
    report.press("ArrowDown")
    columns = report.run("getComputedStyle(document.getElementById('cards')).gridTemplateColumns.split(' ').length")
    assert report.run(focused) == min(columns, 11)
    report.press("Home", "Enter")
    report.page.wait_for_selector("#viewer[open]")
    assert report.run(title) == "0"
    report.press("ArrowRight")
    assert report.run(title) == "1"
    report.press("c")
    assert report.page.is_checked("#layers [name=crop]")
    report.page.focus("#layers [name=map]")
    report.press("ArrowRight")
    assert report.run(title) == "1"  # on a slider, arrows are the slider's
    assert report.page.input_value("#layers [name=map]") == "76"
    report.press("Escape")
    report.page.wait_for_selector("#viewer:not([open])", state="attached")
    assert report.run(focused) == 1


@pytest.mark.parametrize("width_px", [1280, 400])
def test_nothing_is_wider_than_the_window(browser: Browser, folder: Path, width_px: int) -> None:
    report = Report(browser, folder / "report.html", width_px)
    assert report.run("document.documentElement.scrollWidth") <= width_px
    report.open(0)
    for element in ("#viewer", "#stage", "#layers [name=map]", "#close", "#next"):
        box = report.page.locator(element).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width_px
    report.page.close()


def test_print_shows_24_images_and_no_controls(browser: Browser, tmp_path: Path) -> None:
    report = Report(browser, write_report(make_evaluation(tmp_path, images=30)))
    seen = "[...document.querySelectorAll('#cards li')].filter((item) => item.offsetParent !== null).length"
    assert report.run(seen) == 30
    report.page.emulate_media(media="print")
    assert report.run(seen) == 24
    assert report.page.locator("#filters").is_hidden()
    report.page.close()


def test_a_folder_of_pictures_left_behind_is_told(browser: Browser, tmp_path: Path) -> None:
    page = write_report(make_evaluation(tmp_path / "whole", images=3))
    shutil.copy(page, tmp_path)
    report = Report(browser, tmp_path / "report.html")
    report.page.click("#cards button")
    report.page.wait_for_selector("#missing:not([hidden])")
    assert "keep the folder images/" in report.page.inner_text("#missing")
    report.page.close()


def test_1200_images_stay_responsive(browser: Browser, tmp_path: Path) -> None:
    page = write_report(make_evaluation(tmp_path, images=1200))
    assert page.stat().st_size < 16e6
    start = time.monotonic()
    report = Report(browser, page)
    loaded = time.monotonic() - start
    assert len(report.shown()) == 1200
    timed = (
        "() => new Promise((done) => { const start = performance.now(); %s;"
        "requestAnimationFrame(() => done(performance.now() - start)); })"
    )
    change = (
        "const list = document.getElementById('filters').elements.order; list.value = 'worst';"
        "list.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    taken = {
        "order": report.run(timed % change),
        "scroll": report.run(timed % "document.querySelector('#cards li:nth-child(600)').scrollIntoView()"),
        "open": report.run(timed % "document.querySelector('#cards li:nth-child(600) button').click()"),
        "next": report.run(timed % "document.getElementById('next').click()"),
    }
    told = ", ".join(f"{name} {ms:.0f} ms" for name, ms in taken.items())
    print(f"load {loaded:.2f} s, {told}, {page.stat().st_size / 1e6:.1f} MB")
    report.page.close()
    assert loaded < 10
    assert max(taken.values()) < 1500
