r"""What is wrong with an address as it was written: `host:port`, or an endpoint string.

Rule: a line says what is wrong and how to write it. It is about the text: what a parser of
Twisted's raises speaks of Python, and is put into such words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

MAX_PORT = 65535

LISTENS: Mapping[str, str] = {
    "tcp": "tcp:PORT:interface=ADDRESS",
    "tcp4": "tcp4:PORT:interface=ADDRESS",
    "tcp6": r"tcp6:PORT:interface=\:\:1",
    "ssl": "ssl:PORT:privateKey=FILE:certKey=FILE",
    "tls": "tls:DIRECTORY:PORT",
    "unix": "unix:PATH:mode=660",
    "ws": "ws:PORT:path=/PATH:interface=ADDRESS",
    "wss": "wss:PORT:path=/PATH:privateKey=FILE:certKey=FILE",
    "snet": r"snet:tcp\:PORT",
    "haproxy": "haproxy:tcp:PORT",
    "fastway": r"fastway:tcp\:HOST\:PORT:id=ID:key=KEY",
    "systemd": "systemd:NAME",
}
"""How it is written where one may listen, by what it begins with."""

DIALS: Mapping[str, str] = {
    "tcp": "tcp:HOST:PORT",
    "ssl": "ssl:HOST:PORT",
    "tls": "tls:HOST:PORT",
    "unix": "unix:PATH",
    "ws": "ws:HOST:PORT:path=/PATH",
    "wss": "wss:HOST:PORT:path=/PATH",
    "snet": r"snet:tcp\:HOST\:PORT",
    "fastway": r"fastway:tcp\:HOST\:PORT:server=ID",
}
"""And where one may connect."""

OFFERS = "host:port, :port, [v6]:port, systemd:NAME, or tcp:..., ssl:..."
"""What may be given for a port."""

_PORTS = {"tcp", "tcp4", "tcp6", "ssl", "ws", "wss"}
"""They listen on a port, the first argument."""

_RAISED = (
    (r"invalid literal for int\(\) with base 8: '(.*)'", "{0!r} is no mode, such as 660"),
    (r"invalid literal for int\(\) with base 10: '(.*)'", "{0!r} is not a number"),
    (r"unexpected keyword argument '(\w+)'", "it takes no {0}="),
    (r"unrecognized keyword arguments present', \['(\w+)'", "it takes no {0}="),
    (r"missing \d+ required .* arguments?: (.*)", "it lacks {0}"),
    (r"takes .*positional arguments?", r"it takes less; a colon within a value is written \:"),
    (r"^Unknown endpoint type: '(.*)'", "there is no kind {0!r} of what is inside"),
    (r"StopIteration", "it ends too soon"),
)
"""What parsers raise, and what that means for who wrote the text."""


def fault(text: str, forms: Mapping[str, str]) -> str:
    """What shows to be wrong with the values of an endpoint string; "" if nothing does.

    Args:
        forms: LISTENS or DIALS.
    """
    kind, *rest = _split(text, ":")
    if kind not in forms:
        return ""
    args: list[str] = []
    named: dict[str, str] = {}
    for one in rest:
        name, *value = _split(one, "=")
        if value:
            named[_plain(name)] = _plain("=".join(value))
        else:
            args.append(_plain(one))
    problem = (_listens if forms is LISTENS else _dials)(kind, args, named)
    return f"{problem}; write {forms[kind]}" if problem else ""


def _listens(kind: str, args: list[str], named: Mapping[str, str]) -> str:
    first = args[0] if args else ""
    if kind == "snet":
        return "" if args[1:] else _inside(first, LISTENS)  # its parser tells of colons
    if kind == "fastway":
        return _inside(first, DIALS)
    if kind == "unix" and not (first or named.get("address")):
        return "it has no path"
    if kind == "tls" and not os.path.isdir(named.get("path", first)):
        return f"there is no directory {named.get('path', first)!r}, with certificates"
    if kind in ("ws", "wss") and first.startswith("//"):
        return "a URL says where to connect, not where to listen"
    return _port(named.get("port", first)) if kind in _PORTS else ""


def _dials(kind: str, args: list[str], named: Mapping[str, str]) -> str:
    if kind in ("snet", "fastway"):
        return "" if kind == "snet" and args[1:] else _inside(args[0] if args else "", DIALS)
    if kind == "unix":
        return "" if args[:1] > [""] or named.get("path") else "it has no path"
    if kind in ("ws", "wss"):
        # The port may be left out, and a URL in its place is told apart by the parser.
        if args[:1] == [""]:
            return "it has no host"
        return _port(args[1], 1) if len(args) > 1 and not args[0].startswith("//") else ""
    if not (named.get("host") or args[:1] > [""]):
        return "it has no host"
    place = 0 if "host" in named else 1
    return _port(named.get("port", args[place] if len(args) > place else ""), 1)


def _inside(text: str, forms: Mapping[str, str]) -> str:
    return fault(text, forms).partition("; write ")[0]


def _port(text: str, least: int = 0) -> str:
    if not text:
        return "it has no port"
    if text.isdecimal() and least <= int(text) <= MAX_PORT:
        return ""
    return f"{text!r} is not a port from {least} to {MAX_PORT}"


def meaning(text: str, raised: str, forms: Mapping[str, str]) -> str:
    """What a parser means that did not take an endpoint string.

    Args:
        raised: What it said.
        forms: LISTENS or DIALS.
    """
    kind = text.partition(":")[0]
    if kind not in forms and raised.startswith("Unknown endpoint type"):
        return _no_kind(text, kind, forms)
    if kind == "systemd":
        return f"{text!r}: systemd gave no such socket to this process; write {forms[kind]}"
    for pattern, words in _RAISED:
        found = re.search(pattern, raised)
        if found is not None:
            form = f"; write {forms[kind]}" if kind in forms else ""
            told = (one.replace("'", "") for one in found.groups())
            return f"{text!r}: {words.format(*told)}{form}"
    return f"{text!r}: {raised}"


def _no_kind(text: str, kind: str, forms: Mapping[str, str]) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        problem = "it has no port"
    elif re.fullmatch(r"[a-zA-Z]\w*", kind):
        problem = f"there is no kind {kind!r}, and {port!r} is no port"
    elif ":" in host:
        problem = "with IPv6 it is [ADDRESS]:PORT"
    else:
        problem = _port(port) or f"{host!r} is no host"
    offer = OFFERS if forms is LISTENS else "host:port, ws://host:port/path, or tcp:..., tls:..."
    return f"{text!r} is neither host:port nor an endpoint string: {problem}; give {offer}"


def _split(text: str, mark: str) -> list[str]:
    """At each mark that has no backslash before it."""
    parts = [""]
    letters = iter(text)
    for letter in letters:
        if letter == mark:
            parts.append("")
        else:
            parts[-1] += letter + (next(letters, "") if letter == "\\" else "")
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
