"""The facts of a link as game servers are told them.

Rule: whatever certificates, proxies and clients wrote, the result is what a library may read.
"""

from __future__ import annotations

from fastway.control import MAX_TEXT, PlayerFacts, TlsFacts
from fastway.gateway.facts import Facts

_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "?")


def address_of(facts: Facts) -> tuple[str, int]:
    """Address and port; `unix` for those who have none."""
    if facts.transport.endswith("unix") and not facts.via:
        return "unix", 0
    return _host_and_port(facts.name)


def _host_and_port(name: str) -> tuple[str, int]:
    """Of an address as operators write it; the port is 0 where there is none."""
    host, _, port = name.rpartition(":")
    if name.startswith("["):
        host = name[1:].partition("]")[0]
    elif not host or ":" in host:  # a name, or IPv6 alone
        host, port = name, ""
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
    return _fit(host), number if number <= 0xFFFF else 0


def transport_of(facts: Facts) -> str:
    """The spec's name of what carries a link: direct ports are what carries them."""
    parts = facts.transport.split("+")
    secure = bool(facts.tls) or "tls" in parts or "wss" in parts
    web = "ws" in parts or "wss" in parts
    name = ("wss" if secure else "ws") if web else ("tls" if secure else "tcp")
    return name + ("+snet" if "snet" in parts else "")


def player_facts(client: int, facts: Facts, user: str | None, since: float) -> PlayerFacts:
    """What servers are told of a client."""
    addr, port = address_of(facts)
    via = [_host_and_port(name)[0] for name in facts.via.split(", ") if name]
    tls = None
    if facts.tls:
        tls = TlsFacts(_fit(facts.tls), _fit(facts.sni), _fit(facts.identity), _fit(facts.sha256))
    return PlayerFacts(
        client, addr, port, _fit(", ".join(via)), transport_of(facts), tls, user, since
    )


def _fit(text: str) -> str:
    """A text that others wrote, as it may be told: one line, Unicode, not too long."""
    whole = text.translate(_CONTROLS).encode("utf-8", "replace")
    return whole[:MAX_TEXT].decode("utf-8", "ignore")
