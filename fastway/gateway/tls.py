"""TLS on a port, by options: OpenSSL's contexts, and the layer that has them.

Rule: what both ends agree on is set here, once for all certificates of a port; which certificate
is shown is the store's business, and who may come in by one that of `identities`.

What a peer can make this side do before it is known: one handshake, whose messages OpenSSL bounds
(a hello to 128 KiB, a chain to 100 KiB), within the port's deadline and among the port's
handshakes. Nothing is renegotiated, compressed or resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from fastway.certificates import CertificateStore, Expiry, Loaded, read_certificates
from fastway.errors import ConfigError
from fastway.watched import Stamp, stamp_of

PROTOCOLS = (b"fastway/1",)
"""What a port speaks inside TLS (ALPN). Who offers nothing of it, or nothing, may come too."""

HTTP = (b"http/1.1",)
"""The same of a port that speaks WebSocket."""

MAX_DEPTH = 4
"""Certificates between a client's and its authority, at most."""

MAX_AUTHORITIES = 100
"""Authorities of one port: their names go to each client that is asked for a certificate."""

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

VERIFY = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class Contexts:
    """Makes the contexts of a port, one for each certificate.

    Args:
        min_version: The least version of TLS: 1.2 or 1.3.
        client_auth: Whether clients show a certificate: none, optional or require.
        client_ca: The path of a PEM file with the authorities of these certificates.
        client_ca_option: The option that gave it.
        protocols: What is spoken inside, the first choice first (ALPN).
    """

    def __init__(
        self,
        min_version: str = "1.2",
        client_auth: str = "none",
        client_ca: str = "",
        client_ca_option: str = "",
        protocols: tuple[bytes, ...] = PROTOCOLS,
    ) -> None:
        self.min_version = min_version
        self.client_auth = client_auth
        self.protocols = protocols
        self.files: tuple[str, ...] = (client_ca,) if client_ca else ()
        self.store: CertificateStore | None = None
        self._option = client_ca_option
        self._authorities: list[Any] = []
        self._stamp: Stamp | None = None

    def refresh(self) -> None:
        for path in self.files:
            stamp = stamp_of(path)
            if stamp == self._stamp:
                return
            found = read_certificates(path, self._option)
            if len(found) > MAX_AUTHORITIES:
                raise ConfigError(
                    self._option,
                    f"{path} has {len(found)} certificates, over {MAX_AUTHORITIES}; "
                    "give the authorities of your own clients only",
                )
            self._stamp, self._authorities = stamp, found

    def make(self, loaded: Loaded) -> SSL.Context:
        # Twisted's choice of ciphers and curves; without compression, sessions and tickets. A
        # ticket saves little (RSA aside), and its key would have to be shared and changed.
        context = ssl.CertificateOptions().getContext()
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_min_proto_version(VERSIONS[self.min_version])
        own, *chain = loaded.chain
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(loaded.key)
        store = cast(crypto.X509Store, context.get_cert_store())
        for authority in self._authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)
        context.set_verify(VERIFY[self.client_auth])
        context.set_verify_depth(MAX_DEPTH)
        context.set_tlsext_servername_callback(self._asked)
        context.set_alpn_select_callback(self._offered)
        return context

    def _offered(self, _: SSL.Connection, offered: list[bytes]) -> Any:
        """A client speaks one of these."""
        known = (protocol for protocol in self.protocols if protocol in offered)
        return next(known, SSL.NO_OVERLAPPING_PROTOCOLS)

    def _asked(self, connection: SSL.Connection) -> None:
        """A client asks for a name, of at most 255 bytes."""
        name = connection.get_servername()
        if name and self.store is not None:
            chosen = self.store.choose(name.decode("ascii", "replace"))
            if chosen is not connection.get_context():
                connection.set_context(chosen)


@dataclass(frozen=True, slots=True)
class TlsFigures:
    """The TLS of one port.

    Attributes:
        certificates: Those in use, the first to end first.
        min_version: The least version of TLS.
        client_auth: Whether clients show a certificate.
        rereads: Times that something new was taken into use.
        failures: Times that something new could not be.
    """

    certificates: tuple[Expiry, ...]
    min_version: str
    client_auth: str
    rereads: int
    failures: int

    SHOWN = 4
    """Certificates that a line tells of."""

    @property
    def terms(self) -> str:
        """What is in use, and what is asked for."""
        shown = ", ".join(map(str, self.certificates[: self.SHOWN]))
        more = len(self.certificates) - self.SHOWN
        return (
            f"{len(self.certificates)} certificates ({shown}"
            + (f", and {more} that end later" if more > 0 else "")
            + f"); at least TLS {self.min_version}, client certificates: {self.client_auth}"
        )

    def __str__(self) -> str:
        """One line for an operator."""
        return f"{self.terms}; read again: {self.rereads}, failed: {self.failures}"


@implementer(IOpenSSLServerConnectionCreator)
class Shown:
    """Begins each connection with the certificate that is the default now."""

    def __init__(self, store: CertificateStore) -> None:
        self._store = store

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._store.default, None)


class TlsFactory(TLSMemoryBIOFactory):
    """The layer: TLS around the connections of a port.

    Args:
        wrapped: Makes what runs inside.
        clock: The reactor, or a test's.
        contexts: What all its contexts have alike.
        store: Its certificates, made by `contexts`.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        contexts: Contexts,
        store: CertificateStore,
    ) -> None:
        contexts.store = store
        self.contexts = contexts
        self.store = store
        super().__init__(cast(Any, Shown(store)), False, wrapped, clock)

    def figures(self) -> TlsFigures:
        """What there is now."""
        return TlsFigures(
            self.store.expiries(),
            self.contexts.min_version,
            self.contexts.client_auth,
            self.store.rereads,
            self.store.failures,
        )
