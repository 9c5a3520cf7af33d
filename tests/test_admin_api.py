"""What the admin API tells and does, and that its document says the same."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import CommandError, Reason
from fastway.gateway.limits import LimitValues
from fastway.ops.api import ROUTES, place
from fastway.ops.closed import ROOM
from fastway.ops.events import BATCH, COMMENT, MOST, STUCK
from fastway.ops.jobs import TURN, Jobs
from fastway.ops.limits import FIXED
from fastway.ops.limits import OPTIONS as LIMITS
from fastway.ops.openapi import document
from fastway.ops.pick import SORTS, WORDS
from fastway.ops.ring import Ring
from fastway.ops.shapes import Status
from tests.support.admin_case import BEARER, AdminTestCase
from tests.support.commands import StillReactor
from tests.support.files import CHECKOUT
from tests.support.golden import dial, packet
from tests.support.logs import LogLines
from tests.support.schemas import fault
from tests.support.visits import Visitor

DOCUMENT = json.loads(document())

INFO, DEBUG = LogLevel.info, LogLevel.debug


class AnswerTests(AdminTestCase):
    def told(self, path: str, shape: str) -> Any:
        """An answer, which is as the document says."""
        answer = self.get(path)
        found = DOCUMENT["paths"][shape]["get"]["responses"]["200"]["content"]
        schema = found["application/json"]["schema"]
        self.assertEqual(fault(answer, schema, DOCUMENT), "", path)
        return answer

    def test_status(self) -> None:
        """The figures are the router's; text is what the command says."""
        client, server = self.harness.client(), self.harness.server(7)
        conn_id = self.harness.pair(client, server)
        client.send(packet(conn_id, b"hello"))
        self.harness.client().gone()
        self.harness.stranger().send(b"x" * 100)
        told = self.told("/v1/status", "/v1/status")
        self.assertEqual(told["clients"], {"connected": 1, "since_start": 2})
        self.assertEqual(told["servers"]["connected"], 1)
        self.assertEqual((told["router"]["packets"], told["router"]["open"]), (1, 1))
        self.assertEqual(told["ready"], {"ok": True, "why": ""})
        self.assertTrue(told["metrics"])
        (lost,) = told["lost"]
        self.assertEqual(
            lost,
            {"side": "client", "reason": "peer_closed", "text": "closed by the peer", "count": 1},
        )
        self.assertEqual([row["reason"] for row in told["strangers"]], ["auth_failed"])
        carried = {"side": "client", "transport": "other", "connected": 1, "since_start": 2}
        self.assertIn(carried, told["transports"])
        self.harness.service.draining = True
        self.assertEqual(
            self.told("/v1/status?format=json", "/v1/status")["ready"],
            {"ok": False, "why": "the gateway is draining"},
        )
        _, headers, body = self.ask("GET /v1/status?format=text")
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")

        def shown(text: str) -> list[str]:
            return [row for row in text.splitlines() if not row.startswith(("memory", "limits"))]

        self.assertEqual(shown(body.decode()), shown(self.answer("status")))

    def test_links(self) -> None:
        """A page at a time, in any order, all links once."""
        for _ in range(150):
            self.harness.client()
        for number in range(5):
            self.harness.server(number + 1)
        self.harness.server(3)
        self.harness.stranger()
        for sort in SORTS:
            for order in ("", "asc", "desc"):
                query = f"/v1/links?sort={sort}&order={order}&limit=40"
                rows: list[Any] = []
                answer = self.told(query, "/v1/links")
                pages = 1
                while True:
                    rows += answer["links"]
                    self.assertEqual((answer["total"], answer["found"]), (157, 157))
                    if answer["next"] is None:
                        break
                    answer = self.told(f"{query}&after={answer['next']}", "/v1/links")
                    pages += 1
                self.assertEqual((pages, len(rows)), (4, 157), sort)
                self.assertEqual(len({(row["side"], row["addr"]) for row in rows}), 157)
                keys = [
                    (row["side"], row["link_id"]) if sort == "id" else row[sort] for row in rows
                ]
                down = order == "desc" or (not order and sort not in WORDS)
                self.assertEqual(keys, sorted(keys, reverse=down), (sort, order))

    def test_links_change(self) -> None:
        """Between two pages links come and go; nobody who stays is left out or told twice."""
        ends = [self.harness.client() for _ in range(100)]
        first = self.told("/v1/links?limit=50", "/v1/links")
        for end in ends[:60:2]:
            end.gone()
        for _ in range(10):
            self.harness.client()
        second = self.told(f"/v1/links?limit=1000&after={first['next']}", "/v1/links")
        ids = [row["link_id"] for row in first["links"] + second["links"]]
        self.assertEqual(ids, [*range(1, 51), 52, 54, 56, 58, *range(60, 111)])
        self.assertIsNone(second["next"])
        other = self.problem_of(f"GET /v1/links?sort=conns&after={first['next']}")
        self.assertEqual(other, (400, "after is of another order; begin anew without it"))

    def test_search(self) -> None:
        """By side, and by part of an address, a name, an identity or an id."""
        ends = [self.harness.client() for _ in range(20)]
        self.harness.server(7)
        ends[4].link.user = "Anna Müller"
        for query, ids in (
            ("side=server", [7]),
            ("search=anna", [5]),
            ("search=M%C3%9CLLER", [5]),
            ("search=50003", [3]),
            ("search=7&side=client", [7, 17]),
            ("search=192.0.2.1:5000&side=client", list(range(1, 10))),
            ("search=nobody", []),
            ("search=%00", []),
        ):
            told = self.told(f"/v1/links?{query}", "/v1/links")
            self.assertEqual([row["link_id"] for row in told["links"]], ids, query)
            self.assertEqual((told["found"], told["total"]), (len(ids), 21))

    def test_link(self) -> None:
        """One client, all servers of an id, and whom they talk to."""
        client = self.harness.client()
        for _ in range(2):
            self.harness.server(7)
        client.send(dial(7))
        (conn_id,) = self.harness.router.conn_ids
        told = self.told("/v1/links/client/1", "/v1/links/{side}/{id}")
        (link,) = told["links"]
        self.assertEqual(link["link"]["conns"], 1)
        self.assertEqual(link["peers"], [{"conn_id": conn_id, "side": "server", "id": 7}])
        told = self.told("/v1/links/server/7", "/v1/links/{side}/{id}")
        self.assertEqual(sorted(len(link["peers"]) for link in told["links"]), [0, 1])
        self.assertEqual(
            self.problem_of("GET /v1/links/client/2"), (404, "no client 2 is connected")
        )

    def test_closed(self) -> None:
        """Who went, why, and what was counted: the last thousand, the newest first."""
        client, server = self.harness.client(), self.harness.server(7)
        client.link.user = "Anna\n"
        conn_id = self.harness.pair(client, server)
        client.send(packet(conn_id, b"hello"))
        client.gone()
        self.harness.client().send(b"\xff" * 4)
        self.harness.client().gone()
        self.harness.stranger().gone()  # said nothing: nobody's business
        told = self.told("/v1/closed", "/v1/closed")
        self.assertEqual(
            [(end["side"], end["id"], end["reason"]) for end in told["closed"]],
            [
                ("client", 3, "peer_closed"),
                ("client", 2, "frame_too_large"),
                ("client", 1, "peer_closed"),
            ],
        )
        self.assertEqual(told["closed"][2]["user"], "Anna\\n")
        self.assertEqual(told["closed"][2]["packets_in"], 2)
        self.assertEqual(told["closed"][2]["addr"], "192.0.2.1:50001")
        self.assertIn("4294967295", told["closed"][1]["detail"])
        for _ in range(ROOM + 20):
            self.harness.client().gone()
        ids: list[int] = []
        query = "/v1/closed?limit=300"
        answer = self.told(query, "/v1/closed")
        while True:
            ids += [end["id"] for end in answer["closed"]]
            if answer["next"] is None:
                break
            answer = self.told(f"{query}&after={answer['next']}", "/v1/closed")
        last = ROOM + 23
        self.assertEqual(ids, list(range(last, last - ROOM, -1)))
        self.assertEqual(self.problem_of("GET /v1/closed?after=x")[0], 400)
        self.assertEqual(self.get("/v1/closed?after=0")["closed"], [])

    def test_addresses(self) -> None:
        """Where clients are from, and whom limits refused."""
        for _ in range(3):
            self.harness.client()
        self.harness.server(1)
        gate = self.harness.service.gate
        gate.values = LimitValues(address_connections=1)
        first = b"\x20\x01\x0d\xb8" + bytes(12)
        for address in (bytes([198, 51, 100, 7]),) * 3 + (first,) * 2 + (first[:-1] + b"\x01",):
            gate.admit(address)
        told = self.told("/v1/addresses", "/v1/addresses")
        self.assertEqual(told["addresses"][0], {"address": "192.0.2.1", "count": 3, "refused": 0})
        self.assertEqual((told["found"], told["entries"]), (3, 3))
        told = self.told("/v1/addresses?sort=refused&limit=2", "/v1/addresses")
        self.assertEqual(
            told["addresses"],
            [
                {"address": "198.51.100.7", "count": 0, "refused": 2},
                {"address": "2001:db8::/64", "count": 0, "refused": 2},
            ],
        )
        self.assertEqual(place("2001:db8::1%eth0", 48), "2001:db8::/48")
        self.assertEqual(place("::ffff:1.2.3.4", 64), "1.2.3.4")
        self.assertEqual(place("/run/x", 64), "/run/x")

    def test_refusals_are_bounded(self) -> None:
        """However many addresses are refused, few are remembered: the last ones."""
        gate = self.harness.service.gate
        gate.values = LimitValues(address_connections=1)
        for number in range(3000):
            for _ in range(2):
                gate.admit(number.to_bytes(4, "big"))
        self.assertEqual(len(gate.refusals), 1024)
        self.assertEqual(gate.refusals[(2999).to_bytes(4, "big")], 1)
        self.get("/v1/addresses?sort=refused")

    def test_config(self) -> None:
        """What it is told and by whom, without keys; limits as they are now."""
        answer = self.told("/v1/config", "/v1/config")
        rows = {row["name"]: row for row in answer["options"]}
        self.assertEqual(rows["server-auth-password"]["value"], "(hidden)")
        self.assertNotIn("geheim", json.dumps(answer))
        self.assertEqual(
            rows["metrics-addr"],
            {
                "name": "metrics-addr",
                "value": ":0",
                "default": "",
                "source": "--metrics-addr",
                "topic": "Metrics and health",
                "help": "where /metrics, /live and /ready are, by HTTP; empty = nowhere",
                "live": False,
            },
        )
        live = {name for name, row in rows.items() if row["live"]}
        self.assertEqual(live, {*LIMITS} - {*FIXED})
        self.assertEqual((rows["max-packet"]["value"], rows["max-packet"]["source"]), ("512K", ""))
        self.assertEqual(rows["limit-rate"]["source"], "")
        self.post("/v1/limits", {"rate": 5})
        rows = {row["name"]: row for row in self.get("/v1/config")["options"]}
        self.assertEqual(rows["limit-rate"]["value"], "5")
        self.assertEqual(rows["limit-rate"]["source"], "the command limits")

    def test_log(self) -> None:
        """The last lines, fit for one line each, from the level on that is logged."""
        for number in range(600):
            self.api.tail({"log_format": "line {n}", "n": number, "log_level": INFO})
        told = self.told("/v1/log?limit=500", "/v1/log")
        self.assertEqual((len(told["lines"]), told["missed"]), (500, 100))
        self.assertEqual(told["lines"][-1]["text"], "line 599")
        self.api.tail({"log_format": "{x}", "x": "a\n\x1b[2J", "log_level": INFO})
        self.api.tail({"log_format": "quiet", "log_level": DEBUG})
        self.api.tail({"log_format": "{missing}", "log_level": INFO})
        self.api.tail({"log_format": "x" * 5000, "log_level": INFO})
        *_, odd, broken, long = self.told("/v1/log", "/v1/log")["lines"]
        self.assertEqual(odd["text"], "a\\n\\x1b[2J")
        self.assertIn("missing", broken["text"])
        self.assertLess(len(long["text"]), 2100)


class FakeGateway:
    """A whole gateway, as verbs see it."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def drain(self, again: bool = False) -> str:
        if "drain" in " ".join(self.did):
            raise CommandError("it drains already")
        self.did.append(f"drain {again}")
        return "drains"

    def undrain(self) -> str:
        self.did.append("undrain")
        return "taken back"

    def reload(self, said: bool = True) -> list[str]:
        self.did.append(f"reload {said}")
        return ["a", "b"]


class ChangeTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = FakeGateway()
        self.commands.verbs.gateway = self.gateway

    def test_kick(self) -> None:
        """As the command does it; with a code and a text of one's own."""
        ends = [self.harness.client() for _ in range(3)]
        servers = [self.harness.server(7), self.harness.server(7)]
        self.assertEqual(self.post("/v1/kick", {"side": "client", "id": 2}), (200, "1 kicked"))
        self.assertIs(ends[1].lost, Reason.KICKED)
        body: dict[str, Any] = {"side": "client", "id": 3, "code": 4501, "reason": "böse"}
        self.assertEqual(self.post("/v1/kick", body)[0], 200)
        self.assertEqual(ends[2].link.farewell, (4501, "böse"))
        self.assertEqual(self.post("/v1/kick", {"side": "server", "id": 7}), (200, "2 kicked"))
        self.assertTrue(all(one.lost is Reason.KICKED for one in servers))
        self.assertIsNone(ends[0].lost)
        for body, status, said in (
            ({"side": "client", "id": 9}, 404, "no client 9 is connected"),
            ({"side": "client"}, 400, "id is missing"),
            ({"side": "client", "id": "1"}, 400, "id must be a whole number"),
            ({"side": "client", "id": True}, 400, "id must be a whole number"),
            ({"side": "nobody", "id": 1}, 400, "side must be one of client, server"),
            ({"side": ["client"], "id": 1}, 400, "side must be one of client, server"),
            ({"side": "client", "id": 1, "x": 1}, 400, "there is no field 'x'"),
            ({"side": "client", "id": 1, "code": 1005}, 400, "1005 is no close code"),
            ({"side": "client", "id": 1, "code": 5000}, 400, "5000 is no close code"),
            ({"side": "client", "id": 1, "reason": "x" * 124}, 400, "the reason is over 123"),
            ({"side": "client", "id": 1, "reason": "half \ud800"}, 400, "the body is not JSON"),
        ):
            told, text = self.post("/v1/kick", body)
            self.assertEqual(told, status, body)
            self.assertIn(said, text)
        self.assertIsNone(ends[0].lost)

    def test_lines(self) -> None:
        """Each change is a line of the log whatever the level: who, what, and what came of it."""
        self.harness.client()
        self.commands.verbs.loglevel("critical")
        with LogLines() as lines:
            self.post("/v1/kick", {"side": "client", "id": 1, "reason": "a\nb"})
            self.post("/v1/kick", {"side": "client", "id": 1})
            self.post("/v1/limits", {"rate": 5, "dry-run": True})
            self.post("/v1/drain", {})
            self.post("/v1/drain", {"again": True})
            self.post("/v1/loglevel", {"level": "info"})
            self.get("/v1/links")
        texts = [formatEvent(event) for event in lines.events if "admin: " in formatEvent(event)]
        who = "admin: 192.168.1.1:54321"
        self.assertEqual(
            texts,
            [
                f"{who}: kick side=client id=1 reason=a\\nb: 1 kicked",
                f"{who}: kick side=client id=1: refused: no client 1 is connected",
                f"{who}: limits rate=5 dry-run=True: done",
                f"{who}: drain: drains",
                f"{who}: drain again=True: refused: it drains already",
                f"{who}: loglevel level=info: the log level is info",
            ],
        )

    def test_drain(self) -> None:
        """Drain, undrain and reload are the gateway's own."""
        self.assertEqual(self.post("/v1/drain", {"again": True}), (200, "drains"))
        self.assertEqual(self.post("/v1/drain", {}), (409, "it drains already"))
        self.assertEqual(self.post("/v1/undrain", {})[0], 200)
        self.assertEqual(self.post("/v1/undrain", {"x": 1})[0], 400)
        self.assertEqual(self.post("/v1/reload", {}), (200, "a\nb"))
        self.assertEqual(self.gateway.did, ["drain True", "undrain", "reload True"])
        self.commands.verbs.gateway = None
        self.assertEqual(self.post("/v1/drain", {})[0], 409)

    def test_limits(self) -> None:
        """The answer is the command's; what cannot be used changes nothing."""
        status, text = self.post(
            "/v1/limits", {"address-connections": 50, "limit-rate": "12.5", "dry_run": True}
        )
        self.assertEqual(status, 200)
        values = self.harness.service.gate.values
        self.assertEqual(
            (values.address_connections, values.rate, values.dry_run), (50, 12.5, True)
        )
        self.assertEqual(self.post("/v1/limits", {})[1], text)
        self.assertEqual(text, self.answer("limits"))
        for body in ({"rate": "fast"}, {"burst": 1}, {"ipv6-prefix": 56}, {"rate": [5]},
                     {"rate": None}, {"rate": -1}, {"rate": 5, "table": 1}):  # fmt: skip
            self.assertEqual(self.post("/v1/limits", body)[0], 400, body)
        self.assertIs(self.harness.service.gate.values, values)

    def test_profile(self) -> None:
        """Looks into the process are those of the commands; long ones take turns."""
        self.assertEqual(self.post("/v1/profile", {"kind": "cpuprof"})[0], 409)
        self.assertEqual(self.post("/v1/profile", {"kind": "cpuprof", "action": "start"})[0], 200)
        self.assertEqual(self.post("/v1/profile", {"kind": "cpuprof", "action": "start"})[0], 409)
        status, text = self.post("/v1/profile", {"kind": "cpuprof", "action": "stop"})
        self.assertEqual(status, 200)
        self.assertIn("fastway.cpu.prof", text)
        status, text = self.post("/v1/profile", {"kind": "goroutine", "rows": 3})
        self.assertRegex(text, r"threads, 0 links, written to .*fastway.goroutine.prof")
        self.assertEqual(self.post("/v1/profile", {"kind": "goroutine", "action": "stop"})[0], 409)
        self.assertEqual(self.post("/v1/profile", {"kind": "core"})[0], 400)


class EventTests(AdminTestCase):
    REQUEST = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode()

    def watch(self) -> Visitor:
        return self.visit(self.REQUEST)

    def take(self, visitor: Visitor) -> list[tuple[str, Any]]:
        """The events that came since the last call; a comment is one without a name."""
        data = visitor.transport.value()
        visitor.transport.clear()
        if data.startswith(b"HTTP"):
            head, _, data = data.partition(b"\r\n\r\n")
            self.assertIn(b"Content-Type: text/event-stream", head)
            self.assertIn(b"Cache-Control: no-store", head)
            self.assertNotIn(b"Content-Length", head)
        # Chunks, whose ends are those of events here.
        text = re.sub(rb"[0-9a-f]+\r\n(.*?)\r\n", rb"\1", data, flags=re.S).decode()
        found: list[tuple[str, Any]] = []
        for part in text.split("\n\n"):
            if part.startswith("event: "):
                name, _, rest = part.removeprefix("event: ").partition("\ndata: ")
                self.assertNotIn("\n", rest)
                found.append((name, json.loads(rest)))
            elif part:
                found.append(("", part))
        return found

    def test_stream(self) -> None:
        """The status at once and each second, and what is new; after it ends nothing is left."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.harness.client().gone()
        visitor = self.watch()
        first = self.take(visitor)
        self.assertEqual([name for name, _ in first], ["", "status"])
        schema = {"$ref": "#/components/schemas/Status"}
        self.assertEqual(fault(first[1][1], schema, DOCUMENT), "")
        self.assertEqual(first[1][1]["viewers"], 1)
        self.assertEqual(self.watched, [True])
        self.reactor.advance(1)
        self.assertEqual([name for name, _ in self.take(visitor)], ["status"])
        self.harness.client().gone()
        self.api.tail({"log_format": "hello", "log_level": INFO})
        self.reactor.advance(1)
        (_, closed, lines) = self.take(visitor)
        self.assertEqual((closed[0], lines[0]), ("closed", "log"))
        self.assertEqual([end["id"] for end in closed[1]["closed"]], [2])
        self.assertEqual([line["text"] for line in lines[1]["lines"]], ["hello"])
        for name, (_, data) in (("NewEnds", closed), ("LogLines", lines)):
            schema = {"$ref": f"#/components/schemas/{name}"}
            self.assertEqual(fault(data, schema, DOCUMENT), "")
        self.reactor.pump([1] * (COMMENT - 2))
        self.assertEqual(self.take(visitor)[-1], ("", ":"))
        visitor.gone()
        self.assertEqual(self.watched, [True, False])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_much(self) -> None:
        """Of what happens in a second so much is told, and how much is not."""
        visitor = self.watch()
        for number in range(BATCH + 30):
            self.harness.client().gone()
            self.api.tail({"log_format": "{n}", "n": number, "log_level": INFO})
        self.take(visitor)
        self.reactor.advance(1)
        _, (_, ends), (_, lines) = self.take(visitor)
        self.assertEqual((len(ends["closed"]), ends["missed"]), (BATCH, 30))
        self.assertEqual((len(lines["lines"]), lines["missed"]), (BATCH, 30))
        self.assertEqual(lines["lines"][-1]["text"], str(BATCH + 29))
        visitor.gone()

    def test_shared(self) -> None:
        """It is made once, however many watch; more than may are told to come later."""
        made: list[Status] = []

        def brief() -> Status:
            made.append(self.api.brief())
            return made[-1]

        self.patch(self.api.viewers, "_status", brief)
        visitors = [self.watch() for _ in range(MOST)]
        self.assertEqual(len(made), MOST)
        for visitor in visitors:
            self.take(visitor)
        self.reactor.advance(1)
        self.assertEqual(len(made), MOST + 1)
        told = {visitor.transport.value() for visitor in visitors}
        self.assertEqual(len(told), 1)
        for _ in range(100):
            status, headers, _ = self.ask("GET /v1/events")
            self.assertEqual((status, headers["Retry-After"]), (503, "5"))
        visitors.pop().gone()
        late = self.watch()
        self.assertEqual(self.take(late)[1][1]["viewers"], MOST)
        for visitor in (*visitors, late):
            visitor.gone()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stuck(self) -> None:
        """Who does not read misses what is told meanwhile, and is cut off in the end; others
        notice nothing."""
        stuck, slow, other = self.watch(), self.watch(), self.watch()
        for visitor in (stuck, slow):
            visitor.transport.clear()
            visitor.transport.producer.pauseProducing()  # type: ignore[union-attr]
        self.reactor.pump([1] * 10)
        self.assertEqual(stuck.transport.value() + slow.transport.value(), b"")
        self.assertEqual(len(self.take(other)), 2 + 10)
        slow.transport.producer.resumeProducing()  # type: ignore[union-attr]
        self.reactor.advance(1)
        self.assertEqual([name for name, _ in self.take(slow)], ["status"])
        self.reactor.pump([1] * round(STUCK))
        self.assertTrue(stuck.aborted)
        self.assertFalse(slow.ended or other.ended)
        for visitor in (stuck, slow, other):
            visitor.gone()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_hundred_who_do_not_read(self) -> None:
        """They are as many as may watch, the others are refused; nothing piles up for any of
        them, and all are cut off in the end."""
        crowd = [self.watch() for _ in range(100)]
        for visitor in crowd:
            visitor.transport.clear()
            if visitor.transport.producer is not None:
                visitor.transport.producer.pauseProducing()
        self.assertEqual(sum(not visitor.ended for visitor in crowd), MOST)
        self.assertEqual(len(self.api.viewers), MOST)
        for _ in range(3):
            for _ in range(BATCH):
                self.harness.client().gone()
            self.reactor.advance(1)
        self.assertEqual(sum(len(visitor.transport.value()) for visitor in crowd), 0)
        self.reactor.pump([1] * round(STUCK))
        self.assertTrue(all(visitor.ended for visitor in crowd))
        for visitor in crowd:
            visitor.gone()
        self.assertEqual((self.reactor.getDelayedCalls(), self.site.open), ([], {}))

    def test_stop(self) -> None:
        """The gateway stops: all streams end, in order."""
        visitor = self.watch()
        self.api.viewers.stop()
        self.assertTrue(visitor.transport.disconnecting)
        self.assertTrue(visitor.transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        visitor.gone()


class JobTests(SynchronousTestCase):
    """Work of many shares a turn."""

    def setUp(self) -> None:
        self.now = 0.0
        self.steps: Counter[str] = Counter()
        self.clock = StillReactor()
        self.jobs = Jobs(self.clock)
        self.jobs.timer = lambda: self.now

    def work(self, name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            self.now += TURN
            self.steps[name] += 1
            yield
        return name  # type: ignore[return-value]

    def test_share(self) -> None:
        """However many ask, one turn costs as much; all get on alike."""
        done: list[str] = []
        for name in "abcdefgh":
            self.jobs.begin(self.work(name, 4)).addCallback(done.append)  # type: ignore[arg-type]
        while self.clock.getDelayedCalls():
            before = self.now
            self.clock.turn()
            self.assertLessEqual(self.now - before, 1.01 * TURN)
            steps = [self.steps[name] for name in "abcdefgh"]
            self.assertLessEqual(max(steps) - min(steps), 2)
        self.assertEqual(done, list("abcdefgh"))

    def test_cancel(self) -> None:
        """What nobody waits for any more is not done; a stop leaves nothing."""
        works = [self.work(name, 100) for name in "abc"]
        jobs: list[Any] = [self.jobs.begin(cast(Any, work)) for work in works]
        jobs[0].cancel()
        self.failureResultOf(jobs[0], CancelledError)
        self.assertIsNone(works[0].gi_frame)  # type: ignore[attr-defined]
        before = self.now
        self.jobs.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertEqual(self.now, before)
        self.assertTrue(all(work.gi_frame is None for work in works))  # type: ignore[attr-defined]

    def test_ring(self) -> None:
        """The last of many, by their numbers."""
        ring: Ring[int] = Ring(3)
        self.assertEqual((ring.since(0, 5), list(ring.before(9))), ([], []))
        for number in range(5):
            ring.add(number)
        self.assertEqual((ring.count, len(ring)), (5, 3))
        self.assertEqual(ring.since(0, 9), [2, 3, 4])
        self.assertEqual((ring.since(4, 9), ring.since(5, 9), ring.since(0, 2)), ([4], [], [3, 4]))
        self.assertEqual(list(ring.before(5)), [(4, 4), (3, 3), (2, 2)])
        self.assertEqual(list(ring.before(3)), [(2, 2)])


class DocumentTests(SynchronousTestCase):
    """The OpenAPI document, and the page about it."""

    def test_file(self) -> None:
        """docs/openapi.json is what is served: `python -m fastway.ops.openapi` writes it."""
        with open(os.path.join(CHECKOUT, "docs", "openapi.json"), "rb") as file:
            self.assertEqual(file.read(), document())

    def test_whole(self) -> None:
        """Every path is there, every shape and field says what it is, every reference leads
        somewhere."""
        self.assertEqual(
            {
                (method.upper(), path)
                for path, ways in DOCUMENT["paths"].items()
                for method in ways
            },
            {(route.method, route.path) for route in ROUTES},
        )
        schemas = DOCUMENT["components"]["schemas"]
        for name, schema in schemas.items():
            self.assertTrue(schema["description"], name)
        for name in re.findall(r'"#/components/schemas/(\w+)"', document().decode()):
            self.assertIn(name, schemas)
        for name in ("Status", "End", "KickBody", "OptionRow"):
            for field, told in schemas[name]["properties"].items():
                if field.partition("_")[0] not in ("packets", "bytes"):
                    self.assertTrue(told.get("description"), f"{name}.{field}")

    def test_page(self) -> None:
        """docs/admin.md tells of every path, by what the table says."""
        with open(os.path.join(CHECKOUT, "docs", "admin.md"), encoding="utf-8") as file:
            text = file.read()
        rows = re.findall(r"^\| `(GET|POST) (\S+)` \| (.*?) \| (.*?) \|$", text, re.M)
        self.assertEqual(rows, [_row(route) for route in ROUTES])


def _row(route: Any) -> tuple[str, str, str, str]:
    names = [param.name for param in route.params if param.default is not None]
    body = route.body
    if body is not None:
        names = list(getattr(body, "__dataclass_fields__", ["NAME"]))
    return route.method, route.path, ", ".join(f"`{name}`" for name in names), route.words
