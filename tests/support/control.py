"""The gateway's end of a control connection, written down a second time from the spec.

Rule: nothing here knows fastway, so that a mistake in its messages cannot hide itself.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

FACTS: dict[str, Any] = {
    "client": 7,
    "addr": "203.0.113.9",
    "port": 51123,
    "via": "10.0.0.2",
    "transport": "wss",
    "tls": {
        "version": "TLSv1.3",
        "sni": "play.example",
        "identity": "spiffe://example/player",
        "sha256": "ab" * 32,
    },
    "user": None,
    "since": 1763721600.5,
}
"""The facts that the spec prints."""

FACTS_LINE = (
    b'{"client":7,"addr":"203.0.113.9","port":51123,"via":"10.0.0.2","transport":"wss",'
    b'"tls":{"version":"TLSv1.3","sni":"play.example","identity":"spiffe://example/player",'
    b'"sha256":"abababababababababababababababababababababababababababababababab"},'
    b'"user":null,"since":1763721600.5}'
)
"""The same as they stand on the wire."""

UNIX = 1763721600.5
"""What `time` tells."""


def said(fields: dict[str, Any]) -> bytes:
    """A message without a payload."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def told(name: str, **fields: Any) -> bytes:
    """An event."""
    return said({"op": name, **fields})


def done(number: int, **fields: Any) -> bytes:
    """An answer that says yes."""
    return said({"id": number, "ok": True, **fields})


def denied(number: int, error: str, text: str = "") -> bytes:
    """An answer that says no."""
    return said({"id": number, "ok": False, "error": error, "text": text})


def welcome(number: int, max_packet: int = 512 * 1024, **fields: Any) -> bytes:
    """The answer to hello."""
    greeting = {"v": 1, "gateway": "gw1", "version": "0.1.0", "features": ["groups"]}
    return done(number, **{**greeting, "max_packet": max_packet, **fields})


def asked(message: bytes) -> tuple[dict[str, Any], bytes | None]:
    """A request of the server, and its payload; AssertionError if the spec forbids it."""
    head, newline, payload = message.partition(b"\n")
    assert len(head) <= 64 * 1024, "the object is too large"
    fields = json.loads(head.decode("utf-8"))
    assert head == said(fields), f"{head!r} is not compact"
    assert isinstance(fields["op"], str), head
    assert isinstance(fields.get("id"), int) or (fields["op"] == "push" and "id" not in fields)
    return fields, payload if newline else None


class ControlEnd:
    """A gateway that carries out requests in order, and answers when it is told to.

    Args:
        group_members: How many connections fit a group.

    Attributes:
        conns: The server's virtual connections -> the client's id.
        groups: The groups -> their connections; none is empty.
        users: Client -> the name that it was given.
        kicked: The clients that were.
        pushed: What was delivered, in order: (conn_id, message).
        answers: Request -> the answer that waits to be given, in the order of the requests.
        want: What hello asked for; None before.
    """

    def __init__(self, group_members: int = 1000) -> None:
        self.group_members = group_members
        self.conns: dict[int, int] = {}
        self.groups: dict[str, set[int]] = {}
        self.users: dict[int, str] = {}
        self.kicked: list[int] = []
        self.pushed: list[tuple[int, bytes]] = []
        self.answers: dict[int, bytes] = {}
        self.want: list[str] | None = None
        self._last = 0

    def open(self, conn_id: int, client: int) -> bytes:
        """A client opened a connection; the `open` event."""
        self.conns[conn_id] = client
        facts = {**FACTS, "client": client, "user": self.users.get(client)}
        return told("open", conn=conn_id, **facts)

    def close(self, conn_id: int, reason: str = "peer_closed") -> bytes:
        """A connection is closed; the `closed` event."""
        del self.conns[conn_id]
        for name in list(self.groups):
            self._leave(name, {conn_id})
        return told("closed", conn=conn_id, reason=reason)

    def hear(self, message: bytes, denies: Container[str] = ()) -> None:
        """Carry out a request, if its verb is none that it `denies`."""
        fields, payload = asked(message)
        number = fields.get("id", 0)
        assert number not in self.answers, f"{number} was used twice"
        assert (payload is not None) == (fields["op"] == "push"), message
        assert (fields["op"] == "hello") == (self.want is None), "hello comes first, and once"
        try:
            if fields["op"] in denies:
                answer = denied(number, "full", "not now")
            else:
                answer = self._carry_out(number, fields, payload or b"")
        except LookupError:
            answer = denied(number, "gone", "nobody has that id")
        if "id" in fields:
            self.answers[number] = answer

    def _leave(self, name: str, conns: set[int]) -> int:
        members = self.groups.get(name, set()) - conns
        if members:
            self.groups[name] = members
        else:
            self.groups.pop(name, None)
        return len(members)

    def _carry_out(self, number: int, fields: dict[str, Any], payload: bytes) -> bytes:
        verb = fields["op"]
        if verb == "hello":
            assert fields["v"] == 1
            self.want = fields["want"]
            return welcome(number)
        if verb == "who":
            client = self.conns[fields["conn"]] if "conn" in fields else fields["client"]
            if client not in self.conns.values():
                raise LookupError
            user = self.users.get(client)
            return done(number, **{**FACTS, "client": client, "user": user})
        if verb == "kick":
            if fields["client"] not in self.conns.values():
                return denied(number, "denied")
            self.kicked.append(fields["client"])
            return done(number)
        if verb == "user":
            self.users[self.conns[fields["conn"]]] = fields["user"]
            return done(number)
        if verb in ("join", "leave"):
            name, conns = fields["group"], set(fields["conns"]) & self.conns.keys()
            if verb == "leave":
                if name not in self.groups:
                    raise LookupError
                return done(number, members=self._leave(name, conns))
            members = self.groups.get(name, set()) | conns
            if len(members) > self.group_members:
                return denied(number, "full", "the group has no room")
            if members:
                self.groups[name] = members
            return done(number, members=len(members))
        if verb == "push":
            if "group" in fields:
                wanted = sorted(self.groups[fields["group"]])
            else:
                wanted = sorted(self.conns) if fields.get("all") is True else fields["conns"]
            wanted = [one for one in dict.fromkeys(wanted) if one not in fields.get("but", [])]
            there = [one for one in wanted if one in self.conns]
            self.pushed += [(one, payload) for one in there]
            missing = [one for one in wanted if one not in self.conns]
            return done(number, sent=len(there), missing=missing)
        assert verb == "time", verb
        return done(number, unix=UNIX)
