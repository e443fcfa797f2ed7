"""The server of the page: on this machine only unless asked otherwise, without telemetry, and nothing kept on disk."""

import importlib.util
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lungseg.errors import UserError, check
from lungseg.inference.predictor import Predictor
from lungseg.serving.app_page import MOST_MB, about_model, build_page
from lungseg.serving.cases import Reader
from lungseg.serving.rendering import STYLE

LOCAL = ("127.0.0.1", "localhost")
FIRST_PORT, PORTS = 7860, 100
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""The browser refuses whatever lies elsewhere."""

_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Any, Send], Awaitable[None]]


def serve(
    checkpoint: Path | None,
    host: str = LOCAL[0],
    port: int | None = None,
    device: str = "auto",
    backend: str = "auto",
) -> None:
    """Load a model as `Predictor.load` does and serve its page until the process is interrupted or ended.

    Without a port it is the first free one from `FIRST_PORT`.

    Raises:
        UserError: A port or host that cannot be had, or Gradio is not installed; beside the errors of loading.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio: pip install 'lungseg[app]'")
    port = _find_port(host, port)  # before the model is loaded: what is wrong is told at once
    # Methods that need gradients take the same model on PyTorch, where that is installed.
    has_other = checkpoint is None and importlib.util.find_spec("torch") is not None
    load_torch = partial(Predictor.load, backend="torch") if has_other else None
    reader = Reader(Predictor.load(checkpoint, device, backend), load_torch)
    name = "of the package" if checkpoint is None else checkpoint.resolve().name
    with running(reader, name, host, port) as (url, _):
        print(f"page   {url}   (Ctrl-C ends it)", flush=True)
        if host not in LOCAL:
            risk = "whoever reaches this port can use the page, without password or encryption"
            print(f"warning: listening on {host}: {risk}", file=sys.stderr, flush=True)
        _wait()


@contextmanager
def running(reader: Reader, name: str, host: str, port: int, most_mb: int = MOST_MB) -> Iterator[tuple[str, Path]]:
    """Serve the page of a model by name while the context lasts: its address, and the folder of its uploads.

    Each upload is there for as long as it takes to read it, and none afterwards. The port must be free. A file of more
    than `most_mb` MB of 2**20 bytes is left out; one of eight times as much is not even taken, nor what came with it.
    """
    # Gradio keeps uploads where this variable says; with the folder goes whatever an ended visit left.
    with tempfile.TemporaryDirectory(prefix="lungseg-app-") as folder, _environment(**_QUIET, GRADIO_TEMP_DIR=folder):
        gr = importlib.import_module("gradio")  # optional, slow, and looks at the environment
        page = build_page(gr, reader, about_model(reader.predictor.info, name), Path(folder), most_mb)
        # Reading a file may go on beside a pass; passes themselves take turns (`Reader`).
        page.queue(default_concurrency_limit=4, max_size=64)
        options = _launch_options(gr, host) | {"max_file_size": 8 * most_mb * 2**20}
        _, url, _ = page.launch(server_name=host, server_port=port, **options)
        try:
            yield url, Path(folder)
        finally:
            page.close(verbose=False)


def with_policy(app: App) -> App:
    """ASGI middleware: every answer carries `POLICY`, and no address of it is told to others."""

    async def answer(scope: dict[str, Any], receive: Any, send: Send) -> None:
        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer


def own_pages_only(app: App) -> App:
    """ASGI middleware: what a page of another address asks for in the browser of whoever has both open is refused."""

    async def answer(scope: dict[str, Any], receive: Any, send: Send) -> None:
        headers = dict(scope.get("headers") or ())
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is None or urlsplit(origin).netloc == host:
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not from a page of another address"})

    return answer


def _launch_options(gr: Any, host: str) -> dict[str, Any]:
    """What of Gradio is on: nothing that speaks to others, and nothing that remembers."""
    make = importlib.import_module("starlette.middleware").Middleware
    trusted = importlib.import_module("starlette.middleware.trustedhost").TrustedHostMiddleware
    # Listening here only, it answers to no other name: a page elsewhere cannot lend its own to this one. With another
    # host the name that people use for this machine is not known.
    named = [make(trusted, allowed_hosts=["127.0.0.1", "localhost"])] if host in LOCAL else []
    off = ("share", "run_history", "enable_monitoring", "ssr_mode", "mcp_server", "pwa", "inbrowser")
    return {
        **dict.fromkeys(off, False),
        "prevent_thread_lock": True,
        "quiet": True,
        "footer_links": [],
        "state_session_capacity": 64,
        "app_kwargs": {"middleware": [make(with_policy), make(own_pages_only), *named]},
        # Fonts of the system: the default ones would be fetched.
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css": STYLE,
    }


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _find_port(host: str, port: int | None) -> int:
    check(port is None or 1 <= port <= 65535, "--port", "1 to 65535", port)
    check(":" not in host, "--host", "a name or an address of IPv4: the page's server knows no other", host)
    for each in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            family, *_, address = socket.getaddrinfo(host, each, type=socket.SOCK_STREAM)[0]
        except socket.gaierror:
            raise UserError(f"--host: no such address {host!r}; give 127.0.0.1, or one of this machine's") from None
        try:
            # As the server itself does it: a port that was just left free counts as free.
            socket.create_server(address, family=family).close()
            return each
        except OSError as error:
            reason = str(error.strerror).partition(" (while")[0]
    asked = f"port {port}" if port is not None else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise UserError(f"--port: {asked} on {host!r} cannot be had ({reason}); give another one")


def _wait() -> None:
    """Until Ctrl-C or SIGTERM, both of which are the usual way to end a server."""
    done = threading.Event()
    before = {number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        done.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
