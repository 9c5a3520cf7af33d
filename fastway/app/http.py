"""Pushes from outside: an HTTP port by which other programs tell groups and users something.

    site = push_site(app, token)
    await serverFromString(reactor, "tcp:8280:interface=127.0.0.1").listen(site)

    POST /push {"group": "lobby", "route": "onNotice", "message": {"text": "maintenance at 9"}}
    {"sent": 1042}

Rule: for the inside only: who has the token may say anything to anybody. A request is one small
JSON object; whatever is wrong with it is one line and a status, and nobody is told.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from twisted.web.resource import Resource

from fastway.app.app import App
from fastway.app.group import Group
from fastway.app.messages import BadBody, convert
from fastway.errors import LocalError
from fastway.web import BoundedSite

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

JSON = "application/json"

_KEYS = {"group", "user", "all", "route", "message"}


class BadPush(LocalError):
    """A push that cannot be carried out: its status, and a line that says what is wrong."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class PushApi(Resource):
    """What `POST` to it pushes; everything else is refused. It goes with a BoundedSite.

    Args:
        app: Whose groups and users are told.
        token: What `Authorization: Bearer` must say.

    Raises:
        ValueError: the token is empty.
    """

    isLeaf = True

    def __init__(self, app: App, token: str) -> None:
        super().__init__()
        if not token:
            raise ValueError("the token is empty: anybody could push; give a long random one")
        self._app = app
        self._token = f"Bearer {token}".encode()

    def render(self, request: Any) -> bytes:
        try:
            answer: dict[str, Any] = {"sent": self._push(request)}
            status = 200
        except BadPush as error:
            answer, status = {"error": str(error)}, error.status
        except Exception as error:  # a message that the dialect of some member cannot say
            answer, status = {"error": f"{type(error).__name__}: {error}"[:500]}, 422
        if status == 405:
            request.setHeader("Allow", "POST")
        return request.site.answer(request, status, JSON, _json(answer))  # type: ignore[no-any-return]

    def _push(self, request: Any) -> int:
        if request.method != b"POST":
            raise BadPush(405, "only POST")
        given = request.getHeader(b"authorization") or b""
        if not hmac.compare_digest(given, self._token):
            raise BadPush(401, "give the token: Authorization: Bearer TOKEN")
        kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise BadPush(415, "give Content-Type: application/json")
        try:
            asked = json.loads(request.content.read(MAX_BODY + 1))
        except (ValueError, RecursionError):
            raise BadPush(400, "the body is no JSON") from None
        whom, route, message = self._look_at(asked)
        sent = self._app.sent.get(route)
        if sent is not None and sent.kind is not bytes:
            try:
                message = convert(message, sent.kind)
            except BadBody as error:
                raise BadPush(400, f"no message of {route[:50]!r}: {error.detail[:500]}") from None
        return self._to_all(route, message) if whom is None else whom.send(route, message)

    def _to_all(self, route: str, message: Any) -> int:
        everybody = Group(self._app)
        try:
            for session in tuple(self._app.sessions.values()):
                everybody.add(session)
            return everybody.send(route, message)
        finally:
            everybody.clear()  # else each of them would keep it

    def _look_at(self, asked: Any) -> tuple[Group | None, str, Any]:
        """Who is told, None for all; the route, and the message."""
        if not isinstance(asked, dict):
            raise BadPush(400, "the body is no JSON object")
        odd = sorted(set(asked) - _KEYS)
        if odd:
            raise BadPush(400, f"no {odd[0][:50]!r} is known; give {', '.join(sorted(_KEYS))}")
        route = asked.get("route")
        if not isinstance(route, str) or not route:
            raise BadPush(400, "give the route, a text")
        whom = [key for key in ("group", "user", "all") if key in asked]
        if len(whom) != 1:
            raise BadPush(400, "give a group, a user, or all: true")
        name = asked[whom[0]]
        if whom == ["all"]:
            if name is not True:
                raise BadPush(400, "all is true, or not given")
            return None, route, asked.get("message")
        if isinstance(name, (dict, list)):
            raise BadPush(400, f"{whom[0]} is a name")
        if whom == ["user"]:
            return self._app.user(name), route, asked.get("message")
        found = self._app.groups.get(name)
        if found is None:
            raise BadPush(404, f"no group {str(name)[:50]!r}")
        return found, route, asked.get("message")


class PushSite(BoundedSite):
    """A web server of a PushApi alone."""

    def problem(self, text: str) -> tuple[str, bytes]:
        return JSON, _json({"error": text})


def push_site(app: App, token: str) -> PushSite:
    """A web server whose every path is the PushApi, and that bears whoever comes.

    Raises:
        ValueError: the token is empty.
    """
    return PushSite(PushApi(app, token), app.clock, max_body=MAX_BODY)


def _json(answer: Any) -> bytes:
    return json.dumps(answer).encode() + b"\n"
