"""A headless Chromium, spoken to over a pipe by the DevTools protocol: no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any


class Page:
    """One page, 1280 pixels wide at the start. `events` holds what Chromium told, in order.

    Args:
        chromium: The program.
        profile: An empty folder.
    """

    def __init__(self, chromium: str, profile: Path):
        inward, self._write = _high_pipe()
        self._read, outward = _high_pipe()

        def take_places() -> None:
            os.dup2(inward, 3)
            os.dup2(outward, 4)

        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        self._process = subprocess.Popen(
            [chromium, *words, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=take_places,
        )
        os.close(inward)
        os.close(outward)
        self._rest, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(1280, 900)

    def resize(self, width_px: int, height_px: int) -> None:
        """Set the size of the window."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def open(self, path: Path) -> None:
        """Load a file and wait for it."""
        self.send("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.href.startsWith('file:')")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str, timeout_s: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + timeout_s
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key, as a person does."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        code = codes.get(key) or {"End": 35, "Home": 36}.get(key) or ord(key.upper())
        more = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            given = more if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **given)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of what is seen, or of the whole page."""
        content = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(content))

    def close(self) -> None:
        """End Chromium."""
        self.send("Browser.close", session=False)
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, session: bool = True, **params: Any) -> Any:
        """A command and its result; events on the way are kept."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session and self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self, timeout_s: float = 120) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], timeout_s)[0]:
                raise TimeoutError("Chromium is silent")
            got = os.read(self._read, 2**20)
            if not got:
                raise ConnectionError("Chromium has ended")
            self._rest += got
        one, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(one)
        return answer


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends stay clear of 3 and 4."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
