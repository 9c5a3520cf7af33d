"""Who may ask the admin API: each rule against strangers, their pages, and those who only take."""

from __future__ import annotations

import hmac
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import formatEvent

from fastway.ops.admin import MAX_BODY, POLICY, SECONDS
from fastway.ops.api import ROUTES
from fastway.web import MAX_HEAD, MAX_OPEN
from tests.support.admin_case import BEARER, PAGE, TOKEN, AdminTestCase
from tests.support.logs import LogLines
from tests.support.visits import parsed

JSON = "Content-Type: application/json"
KICK = b'{"side":"client","id":1}'


class RuleTests(AdminTestCase):
    def test_host(self) -> None:
        """A name that somebody has pointed at this machine is none of ours."""
        for host in ("localhost", "LocalHost:9082", "127.0.0.1", "127.0.0.1:1", "[::1]:9082"):
            self.assertEqual(self.ask("GET /v1/status", host=host)[0], 200, host)
        self.assertEqual(self.ask("GET /", host="admin.example:443")[0], 200)
        for host in (
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9082",
            "127.0.0.2",
            "0.0.0.0",
            "localhost:9082@evil.example",
            "localhost evil",
            "localhost,evil.example",
            "[::1",
            "localhost:",
            "localhost:x",
            "http://localhost",
        ):
            for path in ("/", "/v1/status", "/nowhere"):
                self.assertEqual(self.problem_of(f"GET {path}", host=host)[0], 421, host)
        self.assertEqual(self.problem_of("GET /", "Host: localhost")[0], 421)

    def test_origin(self) -> None:
        """What another page asks is refused; its own page may."""
        host = "localhost:9082"
        for origin in ("http://localhost:9082", "HTTP://LOCALHOST:9082"):
            self.assertEqual(self.ask("GET /v1/links", f"Origin: {origin}", host=host)[0], 200)
        # TLS may end in a proxy before this.
        https = self.ask("GET /", "Origin: https://admin.example", host="admin.example")
        self.assertEqual(https[0], 200)
        self.harness.client()
        for origin in (
            "http://evil.example",
            "http://localhost",
            "http://localhost:9081",
            "https://localhost",
            "http://127.0.0.1:9082",
            "null",
            "",
            "localhost:9082",
            "file://localhost:9082",
            "http://localhost:9082/",
            "http://localhost:9082.evil.example",
            "http://evil.example@localhost:9082",
        ):
            for request in ("GET /v1/links", "GET /", "POST /v1/kick", "OPTIONS /v1/kick"):
                told = self.problem_of(request, JSON, f"Origin: {origin}", host=host, body=KICK)
                self.assertEqual(told[0], 403, origin)
        twice = ("Origin: http://localhost:9082", "Origin: http://evil.example")
        self.assertEqual(self.problem_of("GET /", *twice, host=host)[0], 403)
        self.assertEqual(len(self.harness.router.clients), 1)

    def test_fetch_site(self) -> None:
        """A browser says who asks: a link or an image of another page gets nothing."""
        for site in ("same-origin", "none", "Same-Origin"):
            self.assertEqual(self.ask("GET /", f"Sec-Fetch-Site: {site}")[0], 200)
        for site in ("cross-site", "same-site", "", "same-origin, cross-site"):
            told = self.problem_of("GET /v1/status", f"Sec-Fetch-Site: {site}")
            self.assertEqual(told[0], 403, site)

    def test_headers(self) -> None:
        """Whatever the answer is: nobody keeps it, guesses its type, frames it, or gets a cookie;
        and no page of others may read it."""
        self.harness.client()
        asked: list[tuple[str, dict[str, Any]]] = [
            ("GET /", {}),
            ("GET /v1/status", {}),
            ("HEAD /v1/status", {}),
            ("GET /v1/status", {"token": ""}),
            ("GET /v1/status", {"host": "evil.example"}),
            ("GET /nowhere", {}),
            ("OPTIONS /v1/kick", {}),
            ("POST /v1/kick", {"body": b"x" * (MAX_BODY + 1)}),
            ("POST /v1/kick", {"body": KICK}),
        ]
        for request, more in asked:
            headers = self.ask(request, **more)[1]
            self.assertEqual(headers["Cache-Control"], "no-store", request)
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(headers["Content-Security-Policy"], POLICY)
            self.assertEqual(headers["Connection"], "close")
            names = " ".join(headers).lower()
            self.assertNotIn("access-control", names)
            self.assertNotIn("cookie", names)
            self.assertNotIn("Server", headers)
        for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'",
                     "connect-src 'self'", "frame-ancestors 'none'"):  # fmt: skip
            self.assertIn(part, POLICY)
        self.assertNotIn("unsafe", POLICY)

    def test_token(self) -> None:
        """By TCP the token, in its header alone; the page's files need none."""
        for token in (
            "",
            "Authorization: Bearer",
            f"Authorization: Bearer {TOKEN}x",
            f"Authorization: Bearer {TOKEN[:-1]}",
            f"Authorization: Bearer {TOKEN.upper()}",
            "Authorization: Bearer \xff\xfe",
            f"Authorization: Basic {TOKEN}",
            f"Authorization: {TOKEN}",
            f"Cookie: token={TOKEN}",
            f"{BEARER}\r\n{BEARER}",
        ):
            for route in ROUTES:
                path = route.path.format(side="client", id=1)
                status, headers, _ = self.ask(
                    f"{route.method} {path}", JSON, token=token, body=b"{}"
                )
                self.assertEqual((status, headers["WWW-Authenticate"]), (401, "Bearer"), path)
        self.assertEqual(self.ask(f"GET /v1/status?token={TOKEN}", token="")[0], 401)
        self.assertEqual(
            self.ask("GET /v1/status", token=f"authorization: bearer {TOKEN}")[0], 200
        )
        for path, (kind, content) in PAGE.items():
            status, headers, body = self.ask(f"GET {path}", token="")
            self.assertEqual((status, headers["Content-Type"], body), (200, kind, content))

    def test_constant_time(self) -> None:
        """How much of a token is right does not show."""
        seen = []

        def compare(one: bytes, other: bytes) -> bool:
            seen.append((one, other))
            return True

        self.patch(hmac, "compare_digest", compare)
        self.assertEqual(self.ask("GET /v1/status", token="Authorization: Bearer x")[0], 200)
        self.assertEqual(seen, [(b"x", TOKEN.encode())])

    def test_no_token_at_all(self) -> None:
        """Without one nobody gets in by TCP; by a unix socket its mode is enough."""
        closed = self.make_site(token="")
        for token in ("", "Authorization: Bearer", "Authorization: Bearer x"):
            self.assertEqual(self.ask("GET /v1/status", token=token, site=closed)[0], 401)
        local = self.make_site(local=True)
        self.assertEqual(self.ask("GET /v1/status", token="", site=local)[0], 200)
        for host, status in (("evil.example", 421), ("localhost", 403)):
            told = self.ask(
                "GET /v1/status", "Origin: http://evil", host=host, token="", site=local
            )
            self.assertEqual(told[0], status)

    def test_guesses(self) -> None:
        """Wrong tokens are lines of the log, one for many; that one is missing is none."""
        with LogLines() as log:
            for _ in range(50):
                self.ask("GET /v1/status", token="Authorization: Bearer guess")
                self.ask("GET /v1/status", token="")
        (event,) = log.events
        self.assertIn("the admin token is wrong", formatEvent(event))
        self.assertNotIn("guess", formatEvent(event))

    def test_methods(self) -> None:
        """A change is a POST, all else is GET or HEAD; nothing is done otherwise."""
        self.harness.client()
        for route in ROUTES:
            path = route.path.format(side="client", id=1)
            allowed = "POST" if route.method == "POST" else "GET, HEAD"
            wrong = ("GET", "HEAD") if route.method == "POST" else ("POST",)
            for method in (*wrong, "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
                status, headers, _ = self.ask(f"{method} {path}", JSON, body=KICK)
                self.assertEqual((status, headers["Allow"]), (405, allowed), path)
        self.assertEqual(self.ask("POST /")[0], 405)
        self.assertEqual(len(self.harness.router.clients), 1)

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        for path in ("/", "/v1/links", "/v1/events", "/v1/openapi.json", "/nowhere"):
            self.assertEqual(self.ask(f"HEAD {path}")[2], b"", path)

    def test_content_type(self) -> None:
        """What a form of another page can send is no change."""
        self.harness.client()
        for headers in (
            (),
            ("Content-Type: text/plain",),
            ("Content-Type: application/x-www-form-urlencoded",),
            ("Content-Type: multipart/form-data; boundary=x",),
            ("Content-Type: text/plain; application/json",),
            (JSON, JSON),
        ):
            self.assertEqual(self.problem_of("POST /v1/kick", *headers, body=KICK)[0], 415)
        self.assertEqual(len(self.harness.router.clients), 1)
        utf8 = self.problem_of("POST /v1/kick", f"{JSON}; charset=utf-8", body=KICK)
        self.assertEqual(utf8, (200, "1 kicked"))

    def test_paths(self) -> None:
        """Nothing else is there."""
        for path in (
            "/v1", "/v1/", "/v1/status/", "//v1/status", "/V1/status", "/v1/%73tatus",
            "/v1/../v1/status", "/page.html", "/../page.css", "/page.css/", "/%2e%2e/etc/passwd",
            "/v1/links/client", "/v1/links/client/", "/v1/links/client/x", "/v1/links/nobody/1",
            "/v1/links/client/-1", "/v1/links/client/4294967296", "/v1/links/client/1/x",
            "/v1/links/client/%C2%B2", "http://localhost/v1/status", "*", "x",
        ):  # fmt: skip
            self.assertEqual(self.problem_of(f"GET {path}")[0], 404, path)

    def test_query(self) -> None:
        """A parameter that is none, stands twice, or cannot be that is told."""
        for query, said in (
            ("limit=0", "limit must be from 1 to 1000"),
            ("limit=1001", "limit must be"),
            ("limit=x", "limit must be a number"),
            ("limit=-5", "limit must be a number"),
            ("limit=%C2%B2", "limit must be a number"),
            ("sort=nothing", "sort must be one of id, addr"),
            ("side=both", "side must be one of client, server"),
            ("order=up", "order must be one of asc, desc"),
            ("after=x", "after is not"),
            ("after=WyJpZCJd", "after is not"),
            ("after=" + "x" * 3000, "after is not"),
            ("limit=5&limit=6", "twice"),
            ("limt=5", "there is no parameter 'limt'; parameters: side, search"),
            ("&".join(f"a{number}=" for number in range(50)), "over 16 parameters"),
        ):
            status, text = self.problem_of(f"GET /v1/links?{query}")
            self.assertEqual(status, 400, query)
            self.assertIn(said, text)
        self.assertEqual(self.ask("GET /v1/status?x=y")[0], 400)
        self.assertEqual(self.ask("GET /v1/links?search=&side=&limit=")[0], 200)


class LoadTests(AdminTestCase):
    """Those who only take: long, slow, many."""

    HEAD = f"POST /v1/limits HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n{BEARER}\r\n".encode()

    def test_long_body(self) -> None:
        """A body over its bound is refused as soon as it is announced, and nothing of it is
        kept; one without a length too."""
        for more, status in (
            (b"Content-Length: 1000000000", 413),
            (b"Content-Length: %d" % (MAX_BODY + 1), 413),
            (b"Content-Length: 1000000000\r\nExpect: 100-continue", 413),
            (b"Transfer-Encoding: chunked", 411),
        ):
            for rest in (b"", b"x" * 60_000):
                visitor = self.visit(self.HEAD + more + b"\r\n\r\n" + rest, b"y" * 60_000)
                self.assertTrue(visitor.ended, more)
                said = visitor.transport.value()
                self.assertEqual(said.count(b"HTTP/1.1"), 1)
                told, headers, body = parsed(said)
                self.assertEqual(told, status)
                self.assertEqual(headers["Content-Length"], str(len(body)))
                self.assertIn("error", json.loads(body))
                visitor.gone()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        for more in (b"Content-Length: -5", b"Content-Length: x", b"Content-Length: 5, 5"):
            visitor = self.visit(self.HEAD + more + b"\r\n\r\n" + b"x" * 100)
            self.assertTrue(visitor.ended)
            self.assertNotIn(b"200", visitor.transport.value()[:20])

    def test_chunks_and_length(self) -> None:
        """Both a length and chunks: what a proxy might read otherwise is no request."""
        both = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        visitor = self.visit(self.HEAD + both)
        self.assertTrue(visitor.ended)
        self.assertNotIn(b"HTTP/1.1 200", visitor.transport.value())

    def test_longest_body(self) -> None:
        """One of just the bound is read, whole and byte by byte."""
        body = b'{"rate":"5"' + b" " * (MAX_BODY - 12) + b"}"
        self.assertEqual(len(body), MAX_BODY)
        head = self.HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
        for pieces in ((head + body,), (head, *(body[at : at + 1] for at in range(len(body))))):
            visitor = self.visit(*pieces)
            self.assertEqual(parsed(visitor.transport.value())[0], 200)
            visitor.gone()

    def test_slow(self) -> None:
        """A head or a body that comes drop by drop ends at a deadline, and so does who reads no
        answer; a drop starts no other."""
        dripping = self.visit(b"GET ")
        body = self.visit(self.HEAD + b"Content-Length: 1000\r\n\r\n")
        silent = self.visit()
        asked = self.visit(
            f"GET /v1/links HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode()
        )
        everybody = (dripping, body, silent, asked)
        for _ in range(round(4 * SECONDS) - 1):
            self.reactor.advance(0.25)
            dripping.send(b"/")
            body.send(b" ")
            self.assertFalse(any(one.aborted for one in everybody))
        self.reactor.advance(0.25)
        self.assertTrue(all(one.aborted for one in everybody))
        for one in everybody:
            one.gone()
        self.assertEqual((self.reactor.getDelayedCalls(), self.site.open), ([], {}))

    def test_crowd(self) -> None:
        """Past the bound the oldest goes; who watches is none of them."""
        watching = self.visit(
            f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode()
        )
        crowd = [self.visit() for _ in range(MAX_OPEN + 100)]
        self.assertEqual(sum(not one.aborted for one in crowd), MAX_OPEN)
        self.assertFalse(watching.ended)
        self.assertEqual(self.ask("GET /v1/status")[0], 200)
        for one in (*crowd, watching):
            one.gone()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_request(self) -> None:
        """A connection has one request, whatever it asks for; what follows is not looked at."""
        self.harness.client()
        first = f"GET /v1/links HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n{BEARER}"
        second = self.HEAD.replace(b"limits", b"kick") + b"Content-Length: %d\r\n\r\n" % len(KICK)
        whole = first.encode() + b"\r\n\r\n" + second + KICK
        for pieces in ((whole,), tuple(whole[at : at + 1] for at in range(len(whole)))):
            visitor = self.visit(*pieces)
            self.answered()
            self.assertEqual(visitor.transport.value().count(b"HTTP/1.1 "), 1)
            self.assertTrue(visitor.ended)
            visitor.gone()
        self.assertEqual(len(self.harness.router.clients), 1)

    def test_long_head(self) -> None:
        """A head over its bound is no request."""
        for head in (b"GET /?" + b"x" * MAX_HEAD, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD):
            visitor = self.visit(head + b"\r\n\r\n")
            self.assertTrue(visitor.ended)
            self.assertNotIn(b"HTTP/1.1 200", visitor.transport.value())

    def test_gone_amid(self) -> None:
        """Who goes while his answer is made leaves nothing behind."""
        for _ in range(300):
            self.harness.client()
        ticks = iter(range(10_000))
        self.commands.jobs.timer = lambda: float(next(ticks))
        visitor = self.visit(
            f"GET /v1/links HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode()
        )
        self.assertEqual(visitor.transport.value(), b"")
        visitor.gone()
        self.answered()
        self.assertEqual(visitor.transport.value(), b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_fault(self) -> None:
        """A fault of ours is a 500 without a word about it, and a line in the log."""
        self.commands.source.memory = lambda: 1 // 0
        status, text = self.problem_of("GET /v1/status")
        self.assertEqual(status, 500)
        self.assertNotIn("Zero", text)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from([route for route in ROUTES if route.body is not None]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["side", "id", "level", "kind", "again", "rate", "table", "x"])
                    | st.text(max_size=5),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=6,
        ),
    )
    def test_bodies(self, route: Any, body: Any) -> None:
        """Whatever JSON comes: done, or refused in one line."""
        status, _ = self.post(route.path, body)
        self.assertIn(status, (200, 400, 404, 409), body)

    def test_no_json(self) -> None:
        """What is no JSON is told."""
        for body in (b"", b"{", b"\xff", b"[" * 8000, b"{}x", b'{"side":', b'"\\ud800"'):
            told = self.problem_of("POST /v1/kick", JSON, body=body)
            self.assertEqual(told, (400, "the body is not JSON"))
        self.assertEqual(self.post("/v1/drain", [])[0], 400)  # type: ignore[arg-type]
