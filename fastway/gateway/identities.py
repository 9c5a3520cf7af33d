"""Whom a verified certificate names, and which server ids he may bring.

Rule: only what OpenSSL has verified is looked at. Who is not named in the table may bring no id:
a key that was stolen is worth nothing without a certificate.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from twisted.internet.interfaces import ISSLTransport

from fastway.errors import ConfigError
from fastway.logs import make_logger
from fastway.tcp import carrying
from fastway.watched import Stamp, read_bounded, stamp_of
from fastway.websocket.interfaces import IWebSocketTransport
from fastway.wire import MAX_ID

log = make_logger("fastway.gateway")

MAX_NAME = 255
"""Characters of an identity; a longer one is none."""

MAX_FILE = 4 * 1024 * 1024
"""Bytes of the table of identities,"""

MAX_RANGES = 100_000
"""and ranges of ids in it."""

FINGERPRINT = "sha256:"
"""What the fingerprint of a certificate begins with in the table."""

_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def secured(transport: object) -> dict[str, str]:
    """What a connection's TLS tells, as attributes of `Facts`; nothing without TLS.

    To be asked after the handshake; of an snet stream it is its connection's.
    """
    transport = carrying(transport)
    if IWebSocketTransport.providedBy(transport):
        transport = cast(Any, transport).below
    if not ISSLTransport.providedBy(transport):
        return {}
    return told_by(cast(Any, transport).getHandle())


def told_by(connection: Any) -> dict[str, str]:
    """What a TLS connection of OpenSSL tells once its handshake is over, as attributes of
    `Facts`."""
    told = {"tls": sys.intern(str(connection.get_protocol_version_name()))}
    sni = connection.get_servername()
    if sni:
        told["sni"] = sys.intern(sni.decode("ascii", "replace"))  # many ask for the same
    shown = connection.get_peer_certificate()
    if shown is not None:
        told["sha256"] = shown.digest("sha256").decode().replace(":", "").lower()
        with suppress(ValueError):  # OpenSSL takes certificates that others do not
            told["identity"] = identity_of(shown.to_cryptography())
    return told


def identity_of(certificate: Any) -> str:
    """Whom a certificate names: its first URI (SPIFFE), else its first DNS name, else, where it
    has no such list of names, its common name; empty: nobody."""
    from cryptography import x509

    name = ""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for kind in (x509.UniformResourceIdentifier, x509.DNSName):
            name = name or next(iter(names.get_values_for_type(kind)), "")
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = str(common[0].value) if len(common) == 1 else ""
        if ":" in name:
            name = ""  # nor may it look like one of another kind
    except Exception:  # an extension may hold anything
        return ""
    good = 0 < len(name) <= MAX_NAME and name.isprintable() and " " not in name
    return name if good else ""


class Identities:
    """Which server ids an identity may bring: a file, read again when it changes.

    A line is an identity, or `sha256:` and a certificate's fingerprint, and behind it ids and
    ranges of them with commas between, or `*` for all ids. A line that begins with `#` is none.

        spiffe://example.org/game/eu    1-99, 200
        lobby.example.org               *

    Args:
        path: The file.
        option: The option that gave it.

    Attributes:
        changed: Called when another table came into use.
        rereads: Times that one did.
        failures: Times that one could not.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: str, option: str) -> None:
        self.path = path
        self.option = option
        self.changed = lambda: None
        self.rereads = 0
        self.failures = 0
        self._stamp = stamp_of(path)
        self._table = self._read()

    def problem(self, identity: str, sha256: str, server_id: int) -> str:
        """Why a server may not bring that id; empty: it may."""
        if not sha256:
            return "it showed no certificate"
        if identity.startswith(FINGERPRINT):
            identity = ""  # a name that only looks like one
        known = False
        for name in (identity, FINGERPRINT + sha256):
            ranges = self._table.get(name)
            if ranges is not None:
                known = True
                if _within(ranges, server_id):
                    return ""
        who = identity or FINGERPRINT + sha256
        return f"{who} may not bring this id" if known else f"nobody knows {who}"

    # What a watcher calls.

    def look(self) -> Stamp:
        return stamp_of(self.path)

    def reread(self) -> Iterator[None]:
        stamp = stamp_of(self.path)
        if stamp == self._stamp:
            return
        try:
            self._table = self._read()
        except ConfigError as error:
            self.failures += 1
            log.error("the old identities stay in use: {problem}", problem=str(error))
            return
        self._stamp = stamp
        self.rereads += 1
        log.info("{count} identities of servers are in use", count=len(self._table))
        self.changed()
        yield

    def age(self) -> None:
        """Nothing of it ends."""

    def _read(self) -> dict[str, list[tuple[int, int]]]:
        data = read_bounded(self.path, MAX_FILE, self.option)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(self.option, f"{self.path} is not UTF-8") from None
        table: dict[str, list[tuple[int, int]]] = {}
        count = 0
        for number, line in enumerate(text.split("\n"), 1):
            where = f"{self.path}, line {number}"
            words = line.split(None, 1)
            if not words or words[0].startswith("#"):
                continue
            if len(words) == 1:
                raise ConfigError(self.option, f"{where}: no ids behind the identity")
            name = words[0]
            if name.lower().startswith(FINGERPRINT):
                name = FINGERPRINT + name[len(FINGERPRINT) :].replace(":", "").lower()
            try:
                ranges = _ranges(words[1])
            except ValueError as error:
                raise ConfigError(self.option, f"{where}: {error}") from None
            count += len(ranges)
            if count > MAX_RANGES:
                raise ConfigError(self.option, f"{where}: over {MAX_RANGES} ranges of ids")
            if name in table:
                raise ConfigError(self.option, f"{where}: {name} stands there twice")
            table[name] = ranges
        if not table:
            raise ConfigError(self.option, f"{self.path} names nobody, so no server could come")
        return table


def _ranges(text: str) -> list[tuple[int, int]]:
    """The ranges of a line, in order and apart.

    Raises:
        ValueError: that is none.
    """
    if text.strip() == "*":
        return [(0, MAX_ID)]
    ranges = []
    for piece in text.split(","):
        found = _RANGE.fullmatch(piece.strip())
        low = int(found[1]) if found is not None else 1
        high = int(found[2] or found[1]) if found is not None else 0
        if not 0 <= low <= high <= MAX_ID:
            raise ValueError(
                f"{piece.strip()[:60]!r} is neither an id nor a range such as 100-199"
            )
        ranges.append((low, high))
    apart: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if apart and low <= apart[-1][1]:
            low, high = apart[-1][0], max(high, apart.pop()[1])
        apart.append((low, high))
    return apart


def _within(ranges: list[tuple[int, int]], server_id: int) -> bool:
    place = bisect_right(ranges, (server_id, MAX_ID)) - 1
    return place >= 0 and server_id <= ranges[place][1]
