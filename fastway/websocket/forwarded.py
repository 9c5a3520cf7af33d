"""Whom HTTP proxies say that a request is from: X-Forwarded-For, or Forwarded (RFC 7239).

Rule: of both headers one is read, which the operator names. Proxies hand on what they do not know:
who believed both would believe a client, too.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from fastway.networks import Networks
from fastway.websocket.request import HandshakeRefused, Request

ADDRESS_HEADERS = {"x-forwarded-for": "X-Forwarded-For", "forwarded": "Forwarded"}
"""Those that can be read, and how they are written."""

_PAIR = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)"""
    r"""|"((?:[^"\\]|\\.)*)")[ \t]*"""
)
_BLANK = re.compile(r"[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
_NODE = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[0-9A-Fa-f:.]+\])(?::(?:\d{1,5}|_[0-9A-Za-z._-]+))?")


@dataclass(frozen=True, slots=True)
class Trusted:
    """Whom a port believes whom a connection, or its request, is from.

    Attributes:
        proxies: These peers, of requests.
        header: Where they say so: one of `ADDRESS_HEADERS`.
        senders: Peers whose connections begin with a PROXY header;
        direct: others may come without one, where there are some; else nobody else may come.
    """

    proxies: Networks = Networks()
    header: str = "x-forwarded-for"
    senders: Networks = Networks()
    direct: bool = False


def forwarded_for(
    request: Request, peer: str, proxies: Networks, header: str = "x-forwarded-for"
) -> str | None:
    """Whom the proxies say that a request is from.

    Each proxy adds the address of its peer at the right, and what a client writes there itself
    stays at the left: so the first from the right counts that is no proxy's own.

    Args:
        peer: The address of whoever sent it, or `unix`.
        proxies: Who is believed.
        header: What they write: one of `ADDRESS_HEADERS`.

    Returns:
        An address, IPv6 in brackets; None: nobody says so who is believed.

    Raises:
        HandshakeRefused: a Forwarded header that cannot be told apart. A client that hid what its
            proxy adds, behind a quotation mark, would be nobody to the limits.
    """
    if peer not in proxies:
        return None
    value = request.headers.get(header, "")
    if header == "forwarded":
        nodes = [_of_node(node) for node in forwarded_nodes(value)]
    else:
        nodes = [member.strip(" \t") for member in value.split(",") if member.strip(" \t")]
    for node in reversed(nodes):
        address = _address(node)
        if address is None:
            return None
        if str(address) not in proxies:
            return f"[{address}]" if address.version == 6 else str(address)
    return None


def forwarded_nodes(value: str) -> list[str]:
    """What each element of a Forwarded header says behind `for`, empty where it says nothing.

    Raises:
        HandshakeRefused: it is none.
    """
    nodes: list[str] = []
    pairs: dict[str, str] = {}
    at, end = 0, len(value)
    while True:
        match = _PAIR.match(value, at) or _BLANK.match(value, at)
        assert match is not None  # blanks match anything
        at = match.end()
        if match.re is _PAIR:
            name, token, quoted = match.groups()
            name = name.lower()
            if name in pairs:
                raise HandshakeRefused(400, f"its Forwarded header has two {name[:20]}")
            pairs[name] = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
        behind = value[at] if at < end else ","
        if behind not in ",;":
            raise HandshakeRefused(400, "its Forwarded header is none of RFC 7239")
        if behind == "," and pairs:
            nodes.append(pairs.get("for", ""))
            pairs = {}
        if at >= end:
            return nodes
        at += 1


def _of_node(node: str) -> str:
    """The address of a node, as X-Forwarded-For would have it; else nothing that is one: `unknown`
    and names that a proxy makes up (`_hidden`) tell nobody."""
    match = _NODE.fullmatch(node)
    return "" if match is None else match[1]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, IPv6 in brackets or not, without a zone."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None
