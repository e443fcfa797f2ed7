"""A headless Chromium of the system, driven by Playwright, and what a page asked for and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

SHOWN = "[...document.querySelectorAll('#cards li')].map((item) => Number(item.dataset.i))"


class Report:
    """A report in a window of its own.

    Args:
        browser: Chromium.
        page: The file.
        width_px: Of the window.
    """

    def __init__(self, browser: Browser, page: Path, width_px: int = 1280):
        self.page: Page = browser.new_page(viewport={"width": width_px, "height": 900})
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        """On the console, errors of scripts among it."""
        self.requests: list[str] = []
        """What was asked for, what the page itself holds left out."""
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(page.as_uri())

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        return self.page.evaluate(script)

    def press(self, *keys: str) -> None:
        """Press keys, as a person does."""
        for key in keys:
            self.page.keyboard.press(key)

    def choose(self, name: str, value: str) -> list[int]:
        """Choose from a list of the filters; the numbers then shown."""
        self.page.select_option(f"#filters [name={name}]", value)
        return self.shown()

    def shown(self) -> list[int]:
        """Numbers of the images shown, in order."""
        numbers: list[int] = self.run(SHOWN)
        return numbers

    def open(self, number: int) -> None:
        """Open an image and wait for its picture."""
        self.page.click(f'#cards li[data-i="{number}"] button')
        self.run("document.querySelector('#stage [data-layer=image]').decode()")

    def opacity(self, layer: str) -> str:
        """Of a layer of the viewer, as its style has it."""
        found: str = self.run(f"document.querySelector('#stage [data-layer={layer}]').style.opacity")
        return found

    def rows(self) -> dict[int, dict[str, Any]]:
        """The columns of per_image.csv by number, as the page has them."""
        data = json.loads(self.run("document.getElementById('gallery-data').textContent"))
        return {
            int(n): dict(zip(data["columns"], image["row"], strict=True)) | {"signs": image["signs"]}
            for n, image in data["images"].items()
        }

    def _note(self, url: str) -> None:
        if not url.startswith("data:"):
            self.requests.append(url)
