"""Where a `ws:` or `wss:` URL leads, as an endpoint of Twisted.

    UrlEndpoint(reactor, Url.parse("wss://game.example/game")).connect(factory)

Rule: a server of `wss:` is who its certificate says, and whoever signed that is trusted; there is
no way to do without.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from fastway.websocket.client import HANDSHAKE_TIMEOUT, Url, WebSocket, host_header
from fastway.websocket.dial import WebSocketClientEndpoint


@dataclass(frozen=True)
class TlsFiles:
    """Whom to trust, and what to show, where a URL is `wss:`.

    Attributes:
        trust: A file with certificates in PEM, or a directory of `.pem` files; "": those that the
            system trusts.
        certificate, key: What to show to who wants to see one; the key may be in the same file.
    """

    trust: str = ""
    certificate: str = ""
    key: str = ""

    def options(self, host: str) -> Any:
        """What Twisted connects with: the server must be `host`.

        Raises:
            ImportError, OSError, ValueError, OpenSSL.SSL.Error: that cannot be.
        """
        from OpenSSL.crypto import FILETYPE_PEM
        from twisted.internet.ssl import (
            Certificate,
            KeyPair,
            PrivateCertificate,
            optionsForClientTLS,
            trustRootFromCertificates,
        )

        trust = own = None
        if self.trust:
            blocks = [block for path in self._trusted() for block in _blocks(path)]
            if not blocks:
                raise ValueError(f"trustRoots={self.trust}: no certificate in PEM is there")
            try:
                trust = trustRootFromCertificates([Certificate.loadPEM(one) for one in blocks])
            except Exception:  # whatever its reader likes to raise
                problem = "a certificate in it cannot be read"
                raise ValueError(f"trustRoots={self.trust}: {problem}") from None
        if self.certificate:
            key = KeyPair.load(_read(self.key or self.certificate), FILETYPE_PEM)
            own = PrivateCertificate.fromCertificateAndKeyPair(
                Certificate.loadPEM(_read(self.certificate)), key
            )
        elif self.key:
            raise ValueError(f"privateKey={self.key} is of no use without certificate=FILE")
        return optionsForClientTLS(host, trustRoot=trust, clientCertificate=own)

    def _trusted(self) -> list[str]:
        if not os.path.isdir(self.trust):
            return [self.trust]
        names = sorted(os.listdir(self.trust))
        return [os.path.join(self.trust, name) for name in names if name.endswith(".pem")]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)


def _blocks(path: str) -> list[bytes]:
    pattern = rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
    return [block + b"\n" for block in re.findall(pattern, _read(path), re.S)]


@implementer(IStreamClientEndpoint)
class UrlEndpoint:
    """A WebSocket to where a URL leads: over TCP, and over TLS where it is `wss:`.

    Two are the same if they lead to the same place in the same way.

    Args:
        reactor: What it runs on.
        wanted: What is asked for; None: the URL's path.
        tls: For `wss:`; its files are read for each connection.

    Raises:
        ImportError, OSError, ValueError, OpenSSL.SSL.Error: what is in `tls` cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        url: Url,
        wanted: WebSocket | None = None,
        tls: TlsFiles | None = None,
        timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.url = url
        self._reactor = reactor
        self._wanted = WebSocket(url.path) if wanted is None else wanted
        self._tls = TlsFiles() if tls is None else tls
        self._timeout = timeout
        if url.secure:
            self._tls.options(url.host)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.url).partition('?')[0]}>"

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """As WebSocketClientEndpoint's."""
        url, reactor = self.url, self._reactor
        below: IStreamClientEndpoint = HostnameEndpoint(reactor, url.host, url.port)
        if url.secure:
            below = wrapClientTLS(self._tls.options(url.host), below)
        host = host_header(url.host, url.port, url.secure)
        over = WebSocketClientEndpoint(below, reactor, host, self._wanted, self._timeout)
        return over.connect(factory)
