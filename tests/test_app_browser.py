"""The page of `python -m lungseg.app` in a real headless Chromium: `pytest -m slow tests/test_app_browser.py`."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import cv2
import pytest

from lungseg.data.phantom.generator import draw_phantom
from lungseg.serving.cases import METHODS, Reader
from lungseg.serving.server import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `pip install playwright`")

pytestmark = [
    pytest.mark.slow,
    # Not imported to find out: that takes seconds, and only what starts the page needs it.
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: `pip install 'lungseg[app]'`"),
]


class Visit(NamedTuple):
    """A page freshly loaded, with its example shown."""

    page: Page
    errors: list[str]
    """On the console, or of scripts."""
    hosts: set[str]
    """That anything was asked of."""


@pytest.fixture(scope="module")
def server(untrained: Path) -> Iterator[tuple[str, Path]]:
    """Address, and the folder of uploads."""
    from lungseg.inference.predictor import Predictor

    reader = Reader(Predictor.load(untrained, "cpu"))
    with running(reader, "untrained", "127.0.0.1", _free_port(), most_mb=1) as (url, uploads):
        yield url, uploads
    assert not uploads.exists()


@pytest.fixture
def visit(browser: Browser, server: tuple[str, Path]) -> Iterator[Visit]:
    found = _visit(browser, server[0])
    yield found
    found.page.close()


def _visit(browser: Browser, url: str, width_px: int = 1280) -> Visit:
    page = browser.new_page(viewport={"width": width_px, "height": 900})
    page.set_default_timeout(60_000)
    found = Visit(page, [], set())
    page.on("console", lambda said: found.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.hosts.add(urlsplit(request.url).hostname or "none"))
    page.goto(url)
    page.wait_for_selector("#viewer")
    return found


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    path = tmp_path / "my phantom.png"
    cv2.imwrite(str(path), draw_phantom(7, 0, 64).image)
    return path


def _drop(page: Page, *files: Path) -> None:
    page.set_input_files("#files input[type=file]", list(files))


def test_page_shows_an_example_and_asks_no_other_host_for_anything(visit: Visit) -> None:
    assert "Research software, not a medical device" in visit.page.inner_text("[role=note]")
    assert "phantom 1" in visit.page.inner_text("#picture figcaption")
    assert visit.page.inner_text("#classes").count("%") == 3
    visit.page.wait_for_timeout(1000)
    assert visit.errors == []
    assert visit.hosts - {"none"} == {"127.0.0.1"}  # none: data: and blob:
    visit.page.click("#example")
    visit.page.wait_for_selector("#picture figcaption:has-text('phantom 2')")


def test_a_phantom_that_is_dropped_is_shown_and_not_kept(visit: Visit, phantom: Path, server: tuple[str, Path]) -> None:
    _drop(visit.page, phantom)
    visit.page.wait_for_selector("#picture figcaption:has-text('phantom.png')")
    box = visit.page.locator("#viewer").bounding_box()
    assert box is not None and box["width"] > 300
    assert visit.page.inner_text("#areas").startswith("right ")
    assert [path for path in server[1].rglob("*") if path.is_file() and path.stat().st_size] == []
    assert visit.errors == []


def test_outlines_of_lungs_and_infection_have_colours_of_their_own(visit: Visit) -> None:
    # put in by hand, as the network here predicts no infection
    visit.page.evaluate("""document.querySelector('#viewer').insertAdjacentHTML(
        'beforeend', '<path id="infection" d="M1 1L9 9"/>')""")
    stroke = "getComputedStyle(document.querySelector('#{}')).stroke"
    colours = [visit.page.evaluate(stroke.format(name)) for name in ("outline", "infection")]
    assert colours == ["rgb(240, 228, 66)", "rgb(255, 154, 213)"]


def test_slider_and_crop_change_the_picture_without_asking_the_server(visit: Visit) -> None:
    visit.page.wait_for_timeout(500)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    pictures = [visit.page.locator("#viewer").screenshot()]
    slider = visit.page.locator("#opacity input[type=number]")
    for value, opacity in (("0", "0"), ("100", "1")):
        slider.fill(value)
        slider.press("Enter")
        visit.page.wait_for_function(f"getComputedStyle(document.querySelector('#map')).opacity === '{opacity}'")
        pictures.append(visit.page.locator("#viewer").screenshot())
    for name, test in (("crop", "#map')).clipPath === 'none'"), ("outlined", "#outline')).display === 'none'")):
        visit.page.uncheck(f"#{name} input")
        visit.page.wait_for_function(f"getComputedStyle(document.querySelector('{test}")
        pictures.append(visit.page.locator("#viewer").screenshot())
    assert len(set(pictures)) == len(pictures)
    assert asked == []


def test_bad_files_are_told_and_good_ones_beside_them_shown(visit: Visit, phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    second = Path(shutil.copy(phantom, tmp_path / "second.png"))
    _drop(visit.page, tmp_path / "notes.txt", phantom, second)
    visit.page.wait_for_selector("#notices")
    assert visit.page.inner_text("#notices").strip() == (
        "notes.txt: cannot be read as an image (not a PNG, JPEG, TIFF, BMP or DICOM file)"
    )
    visit.page.click("#images label:has-text('second.png')")
    visit.page.wait_for_selector("#picture figcaption:has-text('second.png')")
    assert visit.errors == []


def test_a_file_over_the_limit_is_left_out_and_the_others_are_taken(
    visit: Visit, phantom: Path, tmp_path: Path
) -> None:
    (tmp_path / "big.png").write_bytes(bytes(1_200_000))
    _drop(visit.page, tmp_path / "big.png", phantom)
    visit.page.wait_for_selector("#picture figcaption:has-text('phantom.png')")
    assert visit.page.inner_text("#notices").strip() == "big.png: larger than 1 MB"
    (tmp_path / "big.png").write_bytes(bytes(9_000_000))  # of which a thousand would fill the disk
    _drop(visit.page, tmp_path / "big.png")
    visit.page.wait_for_selector("text=/exceed the maximum allowed size of 8/i")


def test_method_and_class_change_the_map_and_the_download_holds_them(visit: Visit) -> None:
    page = visit.page
    before = page.get_attribute("#map", "href")
    for name, choice in (("method", METHODS["layer_cam"]), ("of-class", "Normal")):
        page.click(f"#{name} input")
        page.click(f"[role=option]:has-text('{choice}')")
    page.wait_for_selector("#facts h2:has-text('Evidence for Normal')")
    assert page.get_attribute("#map", "href") != before
    with page.expect_download() as waited:
        page.click("#download")
    assert waited.value.suggested_filename == "lungseg.zip"
    archive = zipfile.ZipFile(io.BytesIO(Path(waited.value.path()).read_bytes()))
    (row,) = json.loads(archive.read("results.json"))["images"]
    assert (row["map_method"], row["map_class"]) == ("layer_cam", "Normal")
    assert sorted(archive.namelist()) == sorted([row["mask"], row["overlay"], "results.csv", "results.json"])
    assert visit.errors == []


@pytest.mark.parametrize("width_px", [1280, 400])
def test_nothing_is_wider_than_the_window(browser: Browser, server: tuple[str, Path], width_px: int) -> None:
    page = _visit(browser, server[0], width_px).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    for element in ("#viewer", "#opacity", "#files", "#download"):
        box = page.locator(element).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width_px
    page.close()


def test_the_page_itself_may_ask_nothing_of_others(visit: Visit) -> None:
    asked = "fetch('https://example.invalid/').then(() => 'answered', () => 'refused')"
    assert visit.page.evaluate(asked) == "refused"
    assert any("Content Security Policy" in line for line in visit.errors)


def test_the_command_serves_and_ends_leaving_nothing(untrained: Path, tmp_path: Path) -> None:
    port = _free_port()
    command = [sys.executable, "-m", "lungseg.app", "--checkpoint", str(untrained), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        env={**os.environ, "TMPDIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"page   http://127.0.0.1:{port}/   (Ctrl-C ends it)\n"
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert b"googleapis" not in answer.read()
        assert len(list(tmp_path.iterdir())) == 1
        listening = socket.create_connection(("127.0.0.1", port))
        listening.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert listening.recv(100).startswith(b"HTTP/1.1 400")
        listening.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert process.stderr is not None and process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
