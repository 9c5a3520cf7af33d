"""The PROXY header with which chosen game servers are told of the client of each connection.

Rule: it is the first message that the server has of a connection which a client dialled, or which
was dialled for one; nothing else of the connection changes.

    source, destination   the client, and what it connected to, as far as that is known
    AUTHORITY             the host name that it asked for (TLS)
    UNIQUE_ID             GATEWAY:CLIENT:CONNECTION
    SSL                   the version of TLS, and as CN whom its certificate names
    0xE0, 0xE1, 0xE2      how it came (`wss+snet`), its id in decimals, its user's name
"""

from __future__ import annotations

import socket
from collections.abc import Container
from contextlib import closing

from fastway.gateway.facts import Facts
from fastway.gateway.link import GatewayLink
from fastway.gateway.players import player_facts
from fastway.proxy import MAX_ID, Header, Tls, encode_header
from fastway.router import Link

TRANSPORT, CLIENT, USER = 0xE0, 0xE1, 0xE2
"""Types of values that are our own."""

MOST_NAME, MOST_HOST, MOST_VERSION = 1024, 255, 32
"""Bytes of the longest that are told; of a longer one nothing is, for half of it is another's."""


class Introductions:
    """Makes the headers.

    Args:
        servers: The ids of those who are told.
        gateway: Its name, which stands in the unique ids.
    """

    def __init__(self, servers: Container[int], gateway: str) -> None:
        self._servers = servers
        self._gateway = gateway.encode()[: MAX_ID - 32]

    def message(self, link: Link, remote: Link, conn_id: int) -> bytes:
        """What a server is told before all that `link` says; empty: nothing."""
        if remote.link_id not in self._servers or not isinstance(link, GatewayLink):
            return b""
        told = player_facts(link.link_id, link.facts, link.user, 0.0)
        values = [(TRANSPORT, told.transport.encode()), (CLIENT, b"%d" % link.link_id)]
        if told.user is not None:
            values.append((USER, told.user.encode()))
        tls = told.tls
        header = Header(
            _source(link.facts),
            _destination(link),
            authority="" if tls is None else _fitting(tls.sni, MOST_HOST),
            unique_id=b"%s:%d:%d" % (self._gateway, link.link_id, conn_id),
            tls=None
            if tls is None
            else Tls(
                _fitting(tls.version, MOST_VERSION) or "TLS",
                _fitting(tls.identity, MOST_NAME),
                bool(tls.sha256),
            ),
        )
        return encode_header(header, values)


def _source(facts: Facts) -> str:
    return "unix" if facts.transport.endswith("unix") and not facts.via else facts.name


def _destination(link: GatewayLink) -> str:
    """Where it connected to; behind a proxy, which may have another, what the proxy did."""
    try:
        with closing(link.lane.socket()) as sock:
            name = sock.getsockname()
    except OSError:
        return ""
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else ""


def _fitting(text: str, most: int) -> str:
    return text if len(text.encode()) <= most else ""
