"""A small web server that bears whoever comes: what metrics and the admin API have alike.

Rule: a connection is one request of a small head and a small body, and its answer, within a time
in all; nothing that somebody sends, or does not read, stays longer or takes more. There is no
timer while nobody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from fastway.address import address_name
from fastway.logs import make_logger
from fastway.prometheus import CONTENT_TYPE

log = make_logger("fastway.gateway")

SECONDS = 5.0
"""For a request and its answer, if nobody says another time."""

MAX_HEAD = 8 * 1024
"""Bytes of a request's head."""

MAX_HEADERS = 64

MAX_OPEN = 32
"""Connections at a time; past that the oldest has to go."""

TEXT = "text/plain; charset=utf-8"


class Channel(HTTPChannel):
    """One connection: one request and its answer, in time."""

    site: BoundedSite
    MAX_LENGTH = totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_HEADERS

    _deadline: IDelayedCall | None = None
    _cut = False

    def connectionMade(self) -> None:
        self.timeOut = None  # Twisted's begins anew with each piece that comes
        super().connectionMade()
        self._deadline = self.site.reactor.callLater(self.site.seconds, self.abort)
        self.site.begins(self)

    def abort(self) -> None:
        """End it now."""
        cast(Any, self.transport).abortConnection()

    def stays(self) -> None:
        """Its answer has no end: somebody else looks after it from now on."""
        self._forget()

    def allHeadersReceived(self) -> None:
        length = self.length
        status = 0
        if length is None:
            status = 411
        elif length > self.site.max_body:
            status = 413
        if status:
            # Before any of it comes; what does is not looked at.
            self._cut = True
            if self.site.max_body:
                cast(Any, self.transport).write(self.site.refusal(status))
                cast(Any, self.transport).loseConnection()
            else:
                self.abort()
        else:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._cut:
            super().rawDataReceived(data)

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._forget()
        super().connectionLost(reason)

    def _forget(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.site.open.pop(self, None)


class Question(Request):
    """A request, which is the resource's to answer whatever it is for."""

    def process(self) -> None:
        if self.uri == b"*":  # Twisted answers that itself, to everybody
            self.uri = self.path = b"/*"
        super().process()


class BoundedSite(Site):
    """The web server.

    Args:
        resource: What it answers.
        reactor: Where its deadlines are.
        seconds: For a request and its answer.
        max_body: Bytes of a request's body; 0: who sends one is cut off without an answer.

    Attributes:
        open: Its connections but those that stay, the oldest first.
        headers: What an answer has that is not the resource's.
    """

    noisy = False
    displayTracebacks = False
    protocol = cast(Any, Channel)
    headers: Mapping[str, str] = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }

    def __init__(
        self, resource: Resource, reactor: Any, seconds: float = SECONDS, max_body: int = 0
    ) -> None:
        super().__init__(
            resource, requestFactory=Question, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.seconds = seconds
        self.max_body = max_body
        self.open: dict[Channel, None] = {}

    def answer(self, request: Any, status: int, kind: str, content: bytes) -> bytes:
        """Set the status and the headers of an answer; returns what `render` has to."""
        request.setResponseCode(status, reason(status))
        request.responseHeaders.removeHeader("Server")
        told = {"Content-Type": kind, "Content-Length": str(len(content)), **self.headers}
        for header, value in told.items():
            request.setHeader(header, value)
        # Twisted logs a line of each answer to HEAD that has a body.
        return b"" if request.method == b"HEAD" else content

    def refusal(self, status: int) -> bytes:
        """The whole answer to a request whose body nobody wants."""
        text = reason(status).decode()
        kind, content = self.problem(text.lower())
        told = {
            "Connection": "close",
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **self.headers,
        }
        rows = [f"HTTP/1.1 {status} {text}", *(f"{name}: {told[name]}" for name in told)]
        return "\r\n".join([*rows, "", ""]).encode("ascii") + content

    def problem(self, text: str) -> tuple[str, bytes]:
        """An answer that says what is wrong: its content type, and it."""
        return TEXT, f"{text}\n".encode()

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


class MonitorPages(Resource):
    """`/metrics`, `/live` and `/ready`: what a monitor asks for.

    Args:
        figures: Makes the page of metrics.
        problem: Says why nobody should be sent here; empty: they may come.
    """

    isLeaf = True

    def __init__(self, figures: Callable[[], bytes], problem: Callable[[], str]) -> None:
        super().__init__()
        self._figures = figures
        self._problem = problem
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
        return request.site.answer(request, status, kind, content)  # type: ignore[no-any-return]

    def _metrics(self) -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE, self._figures()

    def _live(self) -> tuple[int, str, bytes]:
        return 200, TEXT, b"live\n"

    def _ready(self) -> tuple[int, str, bytes]:
        why_not = self._problem()
        return 503 if why_not else 200, TEXT, f"{why_not or 'ready'}\n".encode()


def reason(status: int) -> bytes:
    """What HTTP calls a status."""
    return RESPONSES.get(status, b"Misdirected Request")


class WebPort:
    """Where one listens.

    Args:
        name: What operators call it.
        given: The address as it was written.
        listen: Listens with a factory on a reactor; its Deferred may be cancelled.
        site: Makes the web server, on a reactor.

    Attributes:
        listening: Twisted's port, while it is open.
    """

    def __init__(
        self,
        name: str,
        given: str,
        listen: Callable[[Any, Site], Deferred[IListeningPort]],
        site: Callable[[Any], Site],
    ) -> None:
        self.name = name
        self.given = given
        self.listening: IListeningPort | None = None
        self._listen = listen
        self._site = site
        self._opening: Deferred[Any] | None = None

    def open(self, reactor: Any) -> Deferred[None]:
        """Listen. Fails with StartError or ConfigError; `close` cancels it."""
        opening = self._listen(reactor, self._site(reactor))
        self._opening = opening
        return opening.addCallback(self._opened)

    def _opened(self, listening: IListeningPort) -> None:
        self._opening = None
        self.listening = listening
        log.info(
            f"{self.name} port listens on {{at}}",
            at=address_name(listening.getHost()),
            given=self.given,
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
