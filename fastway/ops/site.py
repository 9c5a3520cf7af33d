"""The web server of `/metrics`, `/live` and `/ready`.

Rule: it only reads. A connection is one request of a small head and no body, and its answer,
within SECONDS in all: nothing that somebody sends, or does not read, stays longer or takes more.
There is no timer while nobody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from fastway.address import Address, address_name
from fastway.logs import make_logger
from fastway.ops.health import problem
from fastway.ops.metrics import METRICS
from fastway.ops.prometheus import CONTENT_TYPE, page
from fastway.ops.snapshot import Snapshot

log = make_logger("fastway.gateway")

SECONDS = 5.0
"""For a request and its answer."""

MAX_HEAD = 8 * 1024
"""Bytes of a request."""

MAX_HEADERS = 64

MAX_OPEN = 32
"""Connections at a time; past that the oldest has to go."""

TEXT = "text/plain; charset=utf-8"


class Pages(Resource):
    """All there is.

    Args:
        snapshot: Takes the gateway's figures.
    """

    isLeaf = True

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._pages = {
            b"/metrics": self._metrics,
            b"/live": self._live,
            b"/ready": self._ready,
        }

    def render(self, request: Any) -> bytes:
        made = self._pages.get(request.uri.partition(b"?")[0])
        kind = TEXT
        if made is None:
            status, content = 404, b"here are /metrics, /live and /ready\n"
        elif request.method not in (b"GET", b"HEAD"):
            status, content = 405, b"only GET and HEAD\n"
            request.setHeader("Allow", "GET, HEAD")
        else:
            status, kind, content = made()
        request.setResponseCode(status)
        request.responseHeaders.removeHeader("Server")
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            request.setHeader(header, value)
        # Twisted logs a line of each answer to HEAD that has a body.
        return b"" if request.method == b"HEAD" else content

    def _metrics(self) -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE, page(self._snapshot(), METRICS)

    def _live(self) -> tuple[int, str, bytes]:
        return 200, TEXT, b"live\n"

    def _ready(self) -> tuple[int, str, bytes]:
        why_not = problem(self._snapshot())
        return 503 if why_not else 200, TEXT, f"{why_not or 'ready'}\n".encode()


class Question(Request):
    """A request without a body: one that has some is cut off."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)
        if length != 0:
            cast(Any, self.channel).transport.abortConnection()


class Channel(HTTPChannel):
    """One connection: one request and its answer, in time."""

    site: MetricsSite
    MAX_LENGTH = totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_HEADERS

    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.timeOut = None  # Twisted's begins anew with each piece that comes
        super().connectionMade()
        self._deadline = self.site.reactor.callLater(SECONDS, self.abort)
        self.site.begins(self)

    def abort(self) -> None:
        """End it now."""
        cast(Any, self.transport).abortConnection()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.site.open.pop(self, None)
        super().connectionLost(reason)


class MetricsSite(Site):
    """The web server.

    Args:
        pages: What it answers.
        reactor: Where its deadlines are.

    Attributes:
        open: Its connections, the oldest first.
    """

    noisy = False
    displayTracebacks = False
    protocol = cast(Any, Channel)

    def __init__(self, pages: Pages, reactor: Any) -> None:
        super().__init__(
            pages, requestFactory=Question, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.open: dict[Channel, None] = {}

    def begins(self, channel: Channel) -> None:
        """One more is there."""
        self.open[channel] = None
        if len(self.open) > MAX_OPEN:
            oldest = next(iter(self.open))
            del self.open[oldest]
            oldest.abort()

    def startFactory(self) -> None:
        """No log of requests, and no timer that knows the time for it."""

    def stopFactory(self) -> None:
        """Who is still there waits for nothing."""
        for channel in list(self.open):
            channel.abort()

    def log(self, request: HttpRequest) -> None:
        """No line for each request."""


class MetricsPort:
    """Where it listens.

    Args:
        address: That.
        snapshot: Takes the gateway's figures.

    Attributes:
        listening: Twisted's port, while it is open.
    """

    name = "metrics"

    def __init__(self, address: Address, snapshot: Callable[[], Snapshot]) -> None:
        self.address = address
        self.listening: IListeningPort | None = None
        self._pages = Pages(snapshot)
        self._opening: Deferred[Any] | None = None

    def open(self, reactor: Any) -> Deferred[None]:
        """Listen. Fails with StartError or ConfigError; `close` cancels it."""
        site = MetricsSite(self._pages, reactor)
        opening = self.address.listen(reactor, site, reuse_port=False)
        self._opening = opening
        return opening.addCallback(self._opened)

    def _opened(self, listening: IListeningPort) -> None:
        self._opening = None
        self.listening = listening
        log.info(
            "metrics port listens on {at}",
            at=address_name(listening.getHost()),
            given=self.address.text,
        )

    def close(self) -> Deferred[Any]:
        """Listen no more. Fires when the socket is closed."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        listening, self.listening = self.listening, None
        if listening is None:
            return maybeDeferred(lambda: None)
        return maybeDeferred(listening.stopListening)
