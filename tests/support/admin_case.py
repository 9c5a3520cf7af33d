"""The admin API of a gateway on fake transports.

Rule: requests and answers are bytes; time is a clock's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastway.ops.admin import Admin, AdminSite, Keys
from fastway.ops.api import Api
from tests.support.commands import CommandsTestCase
from tests.support.options import settings
from tests.support.visits import Answer, Visitor, parsed

TOKEN = "0123456789abcdef"

PAGE = {"/": ("text/html; charset=utf-8", b"<!doctype html>"), "/page.css": ("text/css", b"p {}")}

BEARER = f"Authorization: Bearer {TOKEN}"


class AdminTestCase(CommandsTestCase):
    """A gateway with an admin API.

    Attributes:
        arguments: Its options.
    """

    arguments: tuple[str, ...] = ("--server-auth-password=geheim", "--metrics-addr=:0")

    def setUp(self) -> None:
        super().setUp()
        self.watched: list[bool] = []
        options = settings(*self.arguments)
        self.api = Api(self.commands, lambda: options, self.reactor, self.watched.append)
        self.harness.service.enders.append(self.api.closed)
        self.site = self.make_site()

    def make_site(self, local: bool = False, token: str = TOKEN) -> AdminSite:
        keys = Keys(token, ("admin.example",))
        quiet = self.harness.service.quiet
        site = AdminSite(Admin(self.api, keys, PAGE, quiet, local), self.reactor)
        site.doStart()
        return site

    def visit(self, *pieces: bytes, site: AdminSite | None = None) -> Visitor:
        visitor = Visitor(site or self.site)
        for piece in pieces:
            visitor.send(piece)
        return visitor

    def ask(
        self,
        request: str,
        *headers: str,
        host: str = "localhost",
        body: bytes | None = None,
        token: str = BEARER,
        site: AdminSite | None = None,
    ) -> Answer:
        """The answer to one request."""
        rows = [f"{request} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
        rows += [token] if token else []
        rows += [] if body is None else [f"Content-Length: {len(body)}"]
        head = "\r\n".join([*rows, "", ""]).encode("latin-1")
        visitor = self.visit(head, body or b"", site=site)
        self.answered()
        self.assertTrue(visitor.transport.disconnecting, request)
        answer = parsed(visitor.transport.value())
        visitor.gone()
        return answer

    def get(self, path: str) -> Any:
        """The JSON of a path that answers."""
        status, headers, body = self.ask(f"GET {path}")
        self.assertEqual((status, headers["Content-Type"]), (200, "application/json"), body)
        return json.loads(body)

    def problem_of(self, request: str, *headers: str, **more: Any) -> tuple[int, str]:
        """The status of a request that is refused, and why."""
        status, told, body = self.ask(request, *headers, **more)
        self.assertEqual(told["Content-Type"], "application/json")
        (text,) = json.loads(body).values()
        self.assertTrue(status == 200 or "\n" not in text, text)
        return status, text

    def post(self, path: str, body: Mapping[str, Any], **more: Any) -> tuple[int, str]:
        """The status of a change, and its text."""
        return self.problem_of(
            f"POST {path}",
            "Content-Type: application/json",
            body=json.dumps(body).encode(),
            **more,
        )
