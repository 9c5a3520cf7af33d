"""A gateway's admin API played by a thread, for a page that wants much to show.

Rule: it answers as docs/admin.md says, of a state that tests set; it checks no token but TOKEN,
and has no clock but the time.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastway.config.table import BY_NAME
from tests.support.files import CHECKOUT

PAGE = os.path.join(CHECKOUT, "fastway", "ops", "page")

TOKEN = "let-me-in"

TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

LEVELS = ("debug", "info", "warn", "error", "critical")


def link(number: int, side: str = "client", **more: Any) -> dict[str, Any]:
    """A link as the API tells it."""
    return {
        "side": side,
        "link_id": number,
        "addr": f"198.51.{number // 250 % 250}.{number % 250}:{20000 + number % 40000}",
        "transport": ("tcp", "ws", "snet")[number % 3],
        "via": "",
        "conns": number % 4,
        "seconds": 10.0 + number % 5000,
        "packets_in": number * 7 % 90_000,
        "bytes_in": number * 977 % 9_000_000,
        "packets_out": number * 11 % 120_000,
        "bytes_out": number * 3571 % 60_000_000,
        "waiting_packets": 0,
        "waiting_bytes": 0,
        "held": False,
        "cut": None,
        "lost": None,
        "tls": "TLSv1.3" if number % 2 else "",
        "sni": "play.example" if number % 2 else "",
        "identity": "",
        "sha256": "",
        "port": "",
        "user": f"player {number}" if number % 5 else "",
        **more,
    }


def option(name: str, value: str) -> dict[str, Any]:
    """An option as the API tells it."""
    row = BY_NAME[name]
    return {
        "name": name,
        "value": value,
        "default": row.default,
        "source": "",
        "topic": row.topic,
        "help": row.help,
        "live": name.startswith("limit-") and name != "limit-ipv6-prefix",
    }


@dataclass(slots=True)
class Played:
    """What the gateway that is played is like.

    Attributes:
        full: As many watch as may.
        missed: Lines of the log that were too many for an event.
        asked: Paths that were asked for, of links with their queries.
        told: What was posted, each path and body.
    """

    links: list[dict[str, Any]] = field(default_factory=list)
    closed: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    told: list[tuple[str, Any]] = field(default_factory=list)
    full: bool = False
    missed: int = 0
    started: float = field(default_factory=time.time)

    def status(self) -> dict[str, Any]:
        now = time.time()
        up = now - self.started
        sides = Counter(one["side"] for one in self.links)
        ends = Counter((one["side"], one["reason"], one["text"]) for one in self.closed)
        return {
            "time": now,
            "version": "0.1.0",
            "path": "native code",
            "pid": 4711,
            "uptime": up,
            "state": "running",
            "ready": {"ok": True, "why": ""},
            "ports": [
                {
                    "name": "client",
                    "side": "client",
                    "addr": "0.0.0.0:9010",
                    "links": sides["client"],
                    "handshakes": 3,
                    "layers": ["tls", "snet"],
                }
            ],
            "shut": ["direct"],
            "clients": {"connected": sides["client"], "since_start": sides["client"] + len(ends)},
            "servers": {"connected": sides["server"], "since_start": sides["server"]},
            "server_ids": sides["server"],
            "transports": [
                {"side": "client", "transport": name, "connected": count, "since_start": count}
                for name, count in Counter(one["transport"] for one in self.links).items()
            ],
            "router": {
                "open": sum(one["conns"] for one in self.links),
                "accepted": 5,
                "packets": int(up * 41_000),
                "bytes": int(up * 5_300_000),
                "dials": int(up * 31),
                "refused": [{"reason": "unknown", "text": "no such remote", "count": 4}],
                "strays": 0,
                "foreign_closes": 0,
                "pings": 9,
            },
            "queues": {"packets": 0, "bytes": 900, "input": 0, "limit": 0, "held": 0, "holds": 2},
            "limits": {
                "connections": sides["client"],
                "entries": len(self.addresses),
                "table": 100_000,
                "overflowed": 0,
                "refused": [],
                "rests": 0,
                "dry_run": False,
                "dry": [],
                "dry_rests": 0,
                "slowed": 0,
                "slows": 0,
            },
            "turned_away": 0,
            "lost": [
                {"side": side, "reason": reason, "text": text, "count": count}
                for (side, reason, text), count in ends.items()
            ],
            "strangers": [],
            "layers": [],
            "memory": 91_000_000,
            "log_dropped": 0,
            "log_level": "info",
            "relay": None,
            "process": {
                "cpu": up * 0.34,
                "started": self.started,
                "files": sides["client"] + 30,
                "max_files": 65_536,
                "memory": 91_000_000,
            },
            "turns": {
                "bounds": [0.001, 0.005, 0.02],
                "counts": [int(up * 900), int(up * 60), int(up * 2), 0],
                "total": up * 0.4,
            },
            "drain": None,
            "metrics": False,
            "viewers": 1,
        }

    def page_of_links(self, words: dict[str, str]) -> dict[str, Any]:
        sort = {"id": "link_id"}.get(words.get("sort", "id"), words.get("sort", "id"))
        search = words.get("search", "").lower()
        found = [
            one
            for one in self.links
            if words.get("side", "") in ("", one["side"])
            and any(
                search in str(one[name]).lower()
                for name in ("addr", "user", "identity", "link_id")
            )
        ]
        found.sort(key=lambda one: one[sort], reverse=words.get("order") == "desc")
        first, limit = int(words.get("after", 0)), int(words.get("limit", 100))
        more = first + limit < len(found)
        return {
            "links": found[first : first + limit],
            "total": len(self.links),
            "found": len(found),
            "next": str(first + limit) if more else None,
        }

    def answer(self, path: str, words: dict[str, str]) -> dict[str, Any] | None:
        """What is at a path, or None."""
        if path == "/v1/status":
            return self.status()
        if path == "/v1/links":
            return self.page_of_links(words)
        if path == "/v1/closed":
            return {"closed": self.closed[::-1], "next": None}
        if path == "/v1/log":
            return {"lines": self.lines, "missed": 0}
        if path == "/v1/addresses":
            return {"addresses": self.addresses, "found": 0, "entries": 0, "table": 0}
        if path == "/v1/config":
            return {"options": [option(one.name, one.default) for one in BY_NAME.values()]}
        side, _, number = path.removeprefix("/v1/links/").partition("/")
        some = [one for one in self.links if (one["side"], str(one["link_id"])) == (side, number)]
        peers = [{"conn_id": 7, "side": "server", "id": 1}]
        return {"links": [{"link": one, "peers": peers} for one in some]} if some else None


class AdminDouble:
    """It, on a port of 127.0.0.1.

    Args:
        played: What it tells.
        port: That port; 0: any.

    Attributes:
        played: What it tells.
        url: Where the page is.
    """

    def __init__(self, played: Played | None = None, port: int = 0) -> None:
        self.played = state = Played() if played is None else played
        self.over = over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """No line for each request."""

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                name = parts.path.removeprefix("/") or "page.html"
                if not name.startswith("v1/"):
                    self.file(name)
                elif self.allowed():
                    state.asked.append(self.path)
                    if name == "v1/events":
                        if state.full:
                            self.say(503, {"error": "8 watch already"})
                        else:
                            self.events()
                        return
                    words = {key: one[0] for key, one in parse_qs(parts.query).items()}
                    found = state.answer(parts.path, words)
                    self.say(200 if found else 404, found or {"error": "nobody is there"})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.allowed():
                    state.told.append((self.path, json.loads(body)))
                    self.say(200, {"text": "done"})

            def allowed(self) -> bool:
                if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                    return True
                self.say(401, {"error": "give the token"})
                return False

            def file(self, name: str) -> None:
                path = os.path.join(PAGE, os.path.basename(name))
                if not os.path.exists(path):
                    self.say(404, {"error": "there is no such page"})
                    return
                with open(path, "rb") as file:
                    self.send(200, TYPES[os.path.splitext(name)[1]], file.read())

            def events(self) -> None:
                self.begin(200, "text/event-stream")
                lines, ends = len(state.lines), len(state.closed)
                while not over.is_set():
                    told = [("status", state.status())]
                    if len(state.lines) > lines:
                        told.append(
                            ("log", {"lines": state.lines[lines:], "missed": state.missed})
                        )
                    if len(state.closed) > ends:
                        told.append(("closed", {"closed": state.closed[ends:], "missed": 0}))
                    lines, ends = len(state.lines), len(state.closed)
                    try:
                        for kind, data in told:
                            event = f"event: {kind}\ndata: {json.dumps(data)}\n\n"
                            self.wfile.write(event.encode())
                    except OSError:
                        return
                    over.wait(1.0)

            def say(self, status: int, found: dict[str, Any]) -> None:
                self.send(status, "application/json", json.dumps(found).encode())

            def send(self, status: int, kind: str, body: bytes) -> None:
                self.begin(status, kind)
                self.wfile.write(body)

            def begin(self, status: int, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Security-Policy", POLICY)
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        """It is there no more."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
