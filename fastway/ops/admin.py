"""Who may ask the admin API, and how: the rules against strangers, and pages of theirs.

Rule: a loopback address is no boundary against the operator's own browser, so every request is
looked at before anything is done for it. Its Host must be one of ours (a name that somebody else
has pointed here is not), it must not come from another page (Origin, Sec-Fetch-Site), by TCP it
must have the token, which no browser sends by itself, and a change is a POST of JSON, which no
form can send. There is no CORS header and no cookie. Each change is a line of the log that says
who made it.
"""

from __future__ import annotations

import hmac
import json
import re
import socket
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args
from urllib.parse import parse_qsl, unquote

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from fastway.address import address_name
from fastway.errors import CommandError
from fastway.logs import Throttle, escaped, make_logger
from fastway.ops.api import ROUTES, Api, BadQuery, NotFound, Route
from fastway.ops.events import MOST
from fastway.ops.openapi import document
from fastway.ops.schema import BadBody, check, encoded, read
from fastway.ops.shapes import Problem
from fastway.ops.snapshot import Slices, finish
from fastway.ops.verbs import NobodyThere
from fastway.web import TEXT, BoundedSite

changes = Logger(__name__)
"""What an operator did is logged whatever the level."""

log = make_logger(__name__)

SECONDS = 10.0
"""For a request and its answer."""

MAX_BODY = 16 * 1024

MAX_PARAMS = 16

OURS = ("localhost", "127.0.0.1", "[::1]")
"""Hosts that are this machine, whatever anybody's name server says."""

JSON = "application/json"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

HEADERS = {
    **BoundedSite.headers,
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[0-9A-Za-z._-]{1,253})(?::(\d{1,5}))?")
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


class Refusal(Exception):
    """A request is not answered.

    Attributes:
        headers: What the answer has besides.
    """

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


@dataclass(slots=True)
class Keys:
    """What opens the API.

    Attributes:
        token: What TCP needs; it may change.
        hosts: Names that requests may be for, beside those of this machine.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()


class Admin(Resource):
    """All paths.

    Args:
        api: What they answer.
        keys: What opens them.
        files: The page: path -> content type and content.
        quiet: For lines that strangers can cause.
        local: Who comes by here comes by a unix socket, and needs no token.
    """

    isLeaf = True

    def __init__(
        self,
        api: Api,
        keys: Keys,
        files: Mapping[str, tuple[str, bytes]],
        quiet: Throttle,
        local: bool,
    ) -> None:
        super().__init__()
        self._api = api
        self._keys = keys
        self._hosts = frozenset((*OURS, *keys.hosts))
        self._files = files
        self._quiet = quiet
        self._local = local

    def render(self, request: Any) -> bytes | int:
        try:
            self._check_from(request)
            path = self._path(request)
            if path in self._files:
                self._check_method(request, "GET")
                return self._say(request, 200, *self._files[path])
            route, told = self._route(request, path)
            self._check_token(request)
            told |= self._query(request, route)
            if route.method == "POST":
                told["body"] = self._body(request, route)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        return self._answer(request, route, told)

    # The rules.

    def _check_from(self, request: Any) -> None:
        """See that no other page is behind it."""
        hosts = headers(request, b"host")
        match = _HOST.fullmatch(hosts[0].strip()) if len(hosts) == 1 else None
        if match is None or match[1].lower() not in self._hosts:
            raise Refusal(421, "Host is none of this gateway's: see admin-hosts")
        host = match[1].lower()
        for origin in headers(request, b"origin"):
            scheme, _, rest = origin.strip().lower().partition("://")
            of = _HOST.fullmatch(rest)
            # Whether TLS ends before this is not known here.
            usual = {"http": "80", "https": "443"}.get(scheme)
            ours = host, match[2] or usual
            if of is None or usual is None or (of[1], of[2] or usual) != ours:
                raise Refusal(403, "Origin is another page's")
        for site in headers(request, b"sec-fetch-site"):
            if site.strip().lower() not in ("same-origin", "none"):
                raise Refusal(403, "another page asks for it")

    def _path(self, request: Any) -> str:
        return cast(bytes, request.uri).partition(b"?")[0].decode("latin-1")

    def _check_method(self, request: Any, *methods: str) -> None:
        method = request.method.decode("latin-1")
        allowed = [*methods, "HEAD"] if "GET" in methods else list(methods)
        if method not in allowed:
            raise Refusal(405, f"only {', '.join(allowed)}", Allow=", ".join(allowed))

    def _route(self, request: Any, path: str) -> tuple[Route, dict[str, Any]]:
        fits = [(route, found) for route in ROUTES if (found := route.match(path)) is not None]
        if not fits:
            raise Refusal(404, "there is no such path; /v1/openapi.json has all")
        self._check_method(request, *(route.method for route, _ in fits))
        route, found = fits[0]
        params = {param.name: param for param in route.params}
        try:
            return route, {name: params[name].read(unquote(found[name])) for name in found}
        except BadQuery as error:
            raise Refusal(404, str(error)) from None

    def _check_token(self, request: Any) -> None:
        if self._local:
            return
        given = headers(request, b"authorization")
        match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
        token = b"" if match is None else match[1].encode("latin-1")
        wanted = self._keys.token.encode()
        if not hmac.compare_digest(token, wanted) or not wanted:
            if match is not None:
                self._quiet.warn(
                    log,
                    "admin token was wrong",
                    getattr(request.getClientAddress(), "host", ""),
                    "{who} was refused: the admin token is wrong",
                    who=who(request),
                )
            raise Refusal(
                401,
                "it needs Authorization: Bearer and the admin token",
                **{"WWW-Authenticate": "Bearer"},
            )

    def _query(self, request: Any, route: Route) -> dict[str, Any]:
        text = cast(bytes, request.uri).partition(b"?")[2].decode("latin-1")
        params = [param for param in route.params if param.default is not None]
        told: dict[str, Any] = {}
        try:
            pairs = parse_qsl(
                text, keep_blank_values=True, max_num_fields=MAX_PARAMS, encoding="utf-8"
            )
            given = dict(pairs)
            if len(given) != len(pairs):
                raise BadQuery("a parameter stands there twice")
            names = [param.name for param in params]
            for name in given:
                if name not in names:
                    known = ", ".join(names) or "there are none"
                    raise BadQuery(f"there is no parameter {name[:40]!r}; parameters: {known}")
            for param in params:
                told[param.name] = param.read(given.get(param.name) or cast(str, param.default))
        except BadQuery as error:
            raise Refusal(400, str(error)) from None
        except ValueError:
            raise Refusal(400, f"over {MAX_PARAMS} parameters") from None
        return told

    def _body(self, request: Any, route: Route) -> Any:
        kinds = headers(request, b"content-type")
        if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != JSON:
            raise Refusal(415, f"the body must be {JSON}")
        try:
            data = json.loads(request.content.read().decode("utf-8"))
            json.dumps(data, ensure_ascii=False).encode("utf-8")  # no half surrogate pairs
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON") from None
        request.given = data
        try:
            if isinstance(route.body, type) and not get_args(route.body):
                return read(route.body, data)
            if not isinstance(data, dict):
                raise BadBody("the body must be a JSON object")
            for name, value in data.items():
                check(name[:40], get_args(route.body)[1], value)
        except BadBody as error:
            raise Refusal(400, str(error)) from None
        return data

    # The answers.

    def _answer(self, request: Any, route: Route, told: dict[str, Any]) -> bytes | int:
        if route.name == "openapi":
            return self._say(request, 200, JSON, document())
        if route.name == "events":
            return self._watch(request)
        job = self._api.jobs.begin(self._work(request, route, told))
        request.notifyFinish().addErrback(lambda _: job.cancel())
        job.addCallbacks(
            lambda content: self._finish(request, content),
            lambda failure: self._ended(request, route, failure),
        )
        return NOT_DONE_YET

    def _work(self, request: Any, route: Route, told: dict[str, Any]) -> Slices[bytes]:
        answer = getattr(self._api, route.name)(told)
        if isinstance(answer, Generator):
            answer = yield from answer
        if route.method == "POST":
            self._tell(request, route, "done" if route.name == "limits" else answer.text)
        if isinstance(answer, str):
            return self._say(request, 200, TEXT, answer.encode("utf-8", "replace"))
        content = yield from encoded(answer)
        return self._say(request, 200, JSON, content)

    def _finish(self, request: Any, content: bytes) -> None:
        request.write(content)
        request.finish()

    def _ended(self, request: Any, route: Route, failure: Failure) -> None:
        if not failure.check(CancelledError):  # else who asked is gone, or the gateway is
            self._finish(request, self._failed(request, route, failure))

    def _watch(self, request: Any) -> bytes | int:
        if request.method == b"HEAD":
            return self._say(request, 200, "text/event-stream", b"")
        if len(self._api.viewers) >= MOST:
            full = Refusal(503, f"{MOST} watch already", **{"Retry-After": "5"})
            return self._refuse(request, full)
        self._say(request, 200, "text/event-stream", b"")
        request.responseHeaders.removeHeader("Content-Length")
        self._api.viewers.add(request)
        return NOT_DONE_YET

    def _failed(self, request: Any, route: Route, failure: Failure) -> bytes:
        error = failure.value
        if isinstance(error, (NotFound, NobodyThere)):
            status, text = 404, str(error)
        elif isinstance(error, BadQuery):
            status, text = 400, str(error)
        elif isinstance(error, CommandError):
            status, text = route.failed, str(error)
        else:
            log.failure("{path} failed", failure, path=route.path)
            status, text = 500, "a fault of the gateway; its log says more"
        if route.method == "POST":
            self._tell(request, route, f"refused: {text}")
        return self._refuse(request, Refusal(status, text))

    def _tell(self, request: Any, route: Route, outcome: str) -> None:
        """The line of the log about a change."""
        given = " ".join(f"{name}={value}" for name, value in request.given.items())
        changes.info(
            "admin: {who}: {verb}{what}: {outcome}",
            who=who(request),
            verb=route.name,
            what=f" {escaped(given)}" if given else "",
            outcome=escaped(outcome.partition("\n")[0]),
            always=True,
        )

    def _refuse(self, request: Any, refusal: Refusal) -> bytes:
        for name, value in refusal.headers.items():
            request.setHeader(name, value)
        return self._say(request, refusal.status, JSON, finish(encoded(Problem(str(refusal)))))

    def _say(self, request: Any, status: int, kind: str, content: bytes) -> bytes:
        return cast(bytes, request.site.answer(request, status, kind, content))


class AdminSite(BoundedSite):
    """The web server of the admin API."""

    headers = HEADERS

    def __init__(self, admin: Admin, reactor: Any) -> None:
        super().__init__(admin, reactor, SECONDS, MAX_BODY)

    def problem(self, text: str) -> tuple[str, bytes]:
        return JSON, finish(encoded(Problem(text)))


def headers(request: Any, name: bytes) -> list[str]:
    """The values of a header; there may be any bytes in them."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name) or ()]


def who(request: Any) -> str:
    """Who asks: an address, or the user and process at the far end of a unix socket."""
    address = request.getClientAddress()
    if getattr(address, "host", None) is not None:
        return address_name(address)
    transport: Any = getattr(request.channel, "transport", None)
    try:
        told = transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("3i", told)
    except (AttributeError, OSError, struct.error):
        return "the unix socket"
    return f"uid {uid}, process {pid}"
