"""The demo's page, a chat in the browser, and the small web server that it comes from.

Rule: all that the page needs is here: it may load nothing from elsewhere (its Content-Security-
Policy says so), talk to one gateway, and be shown in no frame. Nothing but its files is served.
"""

from __future__ import annotations

import html
import os
import re
from typing import Any, cast

from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from fastway.address import BACKLOG, Address

TIMEOUT = 30
"""Seconds that a connection may say nothing."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[0-9a-z.-]{1,253})(?::\d{1,5})?")


def load() -> dict[str, bytes]:
    """The page's files, by their paths in a URL."""
    top = os.path.dirname(os.path.abspath(__file__))
    found = {}
    for place, _, names in os.walk(top):
        for name in names:
            if os.path.splitext(name)[1] in TYPES:
                path = os.path.join(place, name)
                with open(path, "rb") as file:
                    found["/" + os.path.relpath(path, top).replace(os.sep, "/")] = file.read()
    found["/"] = found.pop("/index.html")
    return found


class Files(Resource):
    """Every path of the page.

    Args:
        port: The number of the gateway's port for web pages.
        path: What pages ask for there.
    """

    isLeaf = True

    def __init__(self, port: int, path: str) -> None:
        super().__init__()
        self._port = port
        self._path = path
        self._files = load()

    def render_GET(self, request: Any) -> bytes:
        name = request.uri.partition(b"?")[0].decode("latin-1")
        host = _HOST.fullmatch((request.getHeader("host") or "").lower())
        if host is None:
            return self._say(request, 400, "no host")
        content = self._files.get(name)
        if content is None:
            return self._say(request, 404, "there is no such page")
        # The page reaches the gateway as it was reached itself.
        gateway = f"ws://{host[1]}:{self._port}"
        if name == "/":
            content = content.replace(b"{gateway}", html.escape(gateway + self._path).encode())
        kind = TYPES[os.path.splitext(name)[1] or ".html"]
        return self._answer(request, 200, kind, content, gateway)

    def _say(self, request: Any, status: int, text: str) -> bytes:
        return self._answer(request, status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _answer(
        self, request: Any, status: int, kind: str, content: bytes, gateway: str = "'none'"
    ) -> bytes:
        request.setResponseCode(status)
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src {gateway}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        for header, value in (
            ("Content-Type", kind),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cache-Control", "no-cache"),
        ):
            request.setHeader(header, value)
        return content


class Bodiless(Request):
    """A request that has no body: one that has is cut off, so that nothing of it is kept."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)
        if length != 0:
            cast(Any, self.channel).transport.abortConnection()


class Pages(Site):
    """The web server of the page."""

    noisy = False
    displayTracebacks = False

    def __init__(self, files: Files, reactor: Any) -> None:
        super().__init__(files, requestFactory=Bodiless, timeout=TIMEOUT, reactor=reactor)

    def log(self, request: HttpRequest) -> None:
        """No line for each request."""


class DemoPage:
    """The page, and where it is.

    Args:
        address: Where it is to be, of host:port.

    Raises:
        StartError: it cannot be had.

    Attributes:
        origins: What browsers call the page's origin.
        url: What to type into a browser.
    """

    def __init__(self, address: Address) -> None:
        # Only bound: who may connect to the gateway must be known before there is one.
        self._socket = address.bind(reuse_port=False)
        self._socket.listen(BACKLOG)
        port = self._socket.getsockname()[1]
        host = address.host or "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        names = {host}
        if address.loopback or not address.host:
            names |= {"127.0.0.1", "localhost", "[::1]"}
        self.origins = tuple(sorted(f"http://{name}:{port}" for name in names))
        self.url = f"http://{host}:{port}/"

    def serve(self, reactor: Any, gateway_port: int, path: str) -> None:
        """Serve it.

        Args:
            gateway_port: The gateway's port for web pages.
            path: What they ask for there.
        """
        site = Pages(Files(gateway_port, path), reactor)
        reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, site)
        self.close()

    def close(self) -> None:
        """Give the address up, if it is not served."""
        self._socket.close()
