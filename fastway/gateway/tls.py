"""TLS on a port, by options: OpenSSL's contexts, and the layer that has them.

Rule: what both ends agree on is set here, once for all certificates of a port; which certificate
is shown is the store's business, and who may come in by one that of `identities`. What a client
asks for is looked at in Python on both lanes. What has to be calculated then is done on a thread
of its own on the native lane (`fastway.gateway.shaking`), where Python is called back only for the
protocol of a client of TLS 1.2, and for one who was asked for another key. Behind the handshake
the core drives the same connection there, and none of our callbacks is ever called again: all of
them (a name, a protocol, a certificate) belong to handshakes, of which there is no second.

What a peer can make this side do before it is known: one handshake, whose messages OpenSSL bounds
(a hello to 128 KiB, a chain to 100 KiB), within the port's deadline and among the port's
handshakes. Nothing is renegotiated, compressed or resumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.certificates import MAX_PAIRS, CertificateStore, Expiry, Loaded, read_certificates
from fastway.errors import ConfigError, Reason, TlsFailed
from fastway.gateway.preface import SECURE_TIMEOUT, Done
from fastway.relay import openssl
from fastway.watched import Stamp, stamp_of

MAX_DEPTH = 4
"""Certificates between a client's and its authority, at most."""

MORSEL = 4096
"""Bytes of a handshake that OpenSSL is given at a time: its buffers never shrink."""

MOST_BARREN = 32
"""Records without data (new keys) that a peer may send at once, and one more each second: each
costs 8 µs, and its sender nothing. The core has the same bound."""

BARREN_SIGNS = (SSL.SSL_CB_ACCEPT_EXIT, SSL.SSL_CB_WRITE_ALERT)
"""What OpenSSL says of one that it is done with: new keys, a handshake that it will not have."""

MAX_FAILURES = 32
"""Reasons of failed handshakes that are counted apart."""

MAX_TOLD = 16
"""Certificates that metrics tell of."""

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
        protocols: What is spoken inside, the first choice first (ALPN). Who offers nothing of it,
            or nothing, may come too.
    """

    def __init__(
        self,
        min_version: str = "1.2",
        client_auth: str = "none",
        client_ca: str = "",
        client_ca_option: str = "",
        protocols: tuple[bytes, ...] = (),
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
                stops = connection.get_app_data()
                if isinstance(stops, Stops):  # that was the other context's
                    stops.elsewhere.begins(connection)


class Handshakes:
    """Those of one port.

    Attributes:
        under_way: Now.
        done: Version -> how many were completed since the start.
        failed: OpenSSL's reason -> how many were not; `closed` where the connection ended, or was
            ended, before.
    """

    __slots__ = ("done", "failed", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def begins(self) -> None:
        """One more."""
        self.under_way += 1

    def is_over(self, connection: SSL.Connection) -> None:
        """One is completed."""
        self.under_way -= 1
        self.done[connection.get_protocol_version_name()] += 1

    def fails(self, error: BaseException | None) -> None:
        """One is not, and never will be."""
        self.under_way -= 1
        rows = error.args[0] if isinstance(error, SSL.Error) and error.args else None
        reason = str(rows[0][-1]) if isinstance(rows, list) and rows else "closed"
        if reason not in self.failed and len(self.failed) >= MAX_FAILURES:
            reason = "other"
        self.failed[reason] += 1


_causes: dict[str, str] = {}


def _cause(error: SSL.Error) -> str:
    """As `cause_of`, which takes longer than all else of a handshake that fails at once; here
    nothing but OpenSSL's words is known."""
    said = repr(error.args)
    text = _causes.get(said)
    if text is None:
        text = cause_of(error)
        if len(_causes) < MAX_FAILURES:
            _causes[said] = text
    return text


class Shaken(NamedTuple):
    """What a step of a handshake came to.

    Attributes:
        done: The handshake is over.
        answer: What is to be sent.
        error: OpenSSL's; None: it did not fail.
    """

    done: bool
    answer: bytes
    error: SSL.Error | None = None


class Elsewhere(Protocol):
    """Who does steps of handshakes while others are served."""

    def begins(self, connection: SSL.Connection) -> None:
        """Its handshake will stop where the certificate is chosen, and can be given then."""

    def give(self, handshake: TlsHandshake, connection: SSL.Connection, data: bytes) -> bool:
        """Do a step with what came; `handshake.shaken` is told of it later. False: it cannot, and
        the handshake does not stop any more."""

    def drop(self, handshake: TlsHandshake) -> None:
        """Nobody waits for its step."""


class Stops(NamedTuple):
    """Kept with a connection whose handshake stops where its certificate is chosen."""

    elsewhere: Elsewhere


class TlsHandshake:
    """A handshake as a preface, without a socket: where the core has that.

    What a client asks for is looked at here; what has to be calculated is done elsewhere.

    Args:
        context: With the certificate that is the default.
        handshakes: Where it counts.
        elsewhere: Where that is; None: here and now.
        back: Called when a step was done there: `feed` is to be called with nothing.

    Attributes:
        away: A step is done elsewhere: nothing may be fed.
    """

    __slots__ = (
        "_back",
        "_came",
        "_chosen",
        "_connection",
        "_context",
        "_elsewhere",
        "_handshakes",
        "_over",
        "_shaken",
        "away",
    )

    seconds = SECURE_TIMEOUT

    def __init__(
        self,
        context: SSL.Context,
        handshakes: Handshakes,
        elsewhere: Elsewhere | None = None,
        back: Callable[[], object] = lambda: None,
    ) -> None:
        self._context = context
        self._connection: Any = None
        """Made with the first bytes: who says nothing has none."""
        self._handshakes = handshakes
        self._elsewhere = elsewhere
        self._back = back
        self._chosen = False
        """It stopped where the certificate is chosen: what follows is done elsewhere."""
        self._came = b""
        """What OpenSSL was not given yet."""
        self._shaken: Shaken | None = None
        self._over = False
        self.away = False
        handshakes.begins()

    def begin(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> Done | bytes:
        shaken, self._shaken = self._shaken, None
        if shaken is None:
            self._came = data
            shaken = self._step()
            if shaken is None:
                return b""
        if shaken.error is not None:
            self._over = True
            self._handshakes.fails(shaken.error)
            raise TlsFailed(_cause(shaken.error), shaken.answer)
        if not shaken.done:
            return shaken.answer
        self._over = True
        self._handshakes.is_over(self._connection)
        # What came behind it in its last piece is in its memory, and goes with it.
        return Done(self._came, answer=shaken.answer, secure=self._connection)

    def shaken(self, shaken: Shaken, used: int) -> None:
        """A step was done elsewhere, with so many bytes."""
        self.away = False
        if self._over:
            return
        self._came = self._came[used:]
        self._shaken = shaken
        self._back()

    def refuse(self, reason: Reason) -> bytes:
        return b""

    def why(self, reason: Reason) -> Reason:
        return reason

    def lost(self) -> None:
        """The connection is gone."""
        if self._over:
            return
        self._over = True
        self._handshakes.fails(None)
        if self.away and self._elsewhere is not None:
            self._elsewhere.drop(self)

    def _step(self) -> Shaken | None:
        """Go on with what came; None: elsewhere."""
        if self._connection is None:
            self._connection = SSL.Connection(self._context, None)
            self._connection.set_accept_state()
            if self._elsewhere is not None:
                self._connection.set_app_data(Stops(self._elsewhere))
                self._elsewhere.begins(self._connection)
        if not self._chosen:
            shaken = self._shake()
            if shaken is not None:
                return shaken
            self._chosen = True
        assert self._elsewhere is not None
        if self._elsewhere.give(self, self._connection, self._came):
            self.away = True
            return None
        self._chosen = False
        return self._shake()

    def _shake(self) -> Shaken | None:
        """Go on here; None: it stopped where the certificate is chosen."""
        connection = self._connection
        while True:
            piece, self._came = self._came[:MORSEL], self._came[MORSEL:]
            if piece:
                connection.bio_write(piece)
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                if not self._came:
                    return Shaken(False, self._sealed())
            except SSL.WantX509LookupError:
                return None
            except SSL.Error as error:
                return Shaken(False, self._sealed(), error)
            else:
                return Shaken(True, self._sealed())

    def _sealed(self) -> bytes:
        """What it wants sent."""
        pieces = []
        try:
            while True:
                pieces.append(self._connection.bio_read(1 << 15))
        except SSL.WantReadError:
            return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class TlsFigures:
    """The TLS of one port.

    Attributes:
        certificates: Those in use, the first to end first.
        min_version: The least version of TLS.
        client_auth: Whether clients show a certificate.
        rereads: Times that something new was taken into use.
        failures: Times that something new could not be.
        under_way: Handshakes that are now.
        done: Version -> handshakes that were completed.
        failed: OpenSSL's reason, or `closed` -> handshakes that were not.
    """

    certificates: tuple[Expiry, ...]
    min_version: str
    client_auth: str
    rereads: int
    failures: int
    under_way: int = 0
    done: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)

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
        done = ", ".join(f"{count} {version}" for version, count in sorted(self.done.items()))
        failed = ", ".join(f"{count} {why}" for why, count in sorted(self.failed.items()))
        return (
            f"{self.terms}; read again: {self.rereads}, failed: {self.failures}; "
            f"handshakes: {done or 'none'}, {self.under_way} under way, "
            f"{sum(self.failed.values())} failed" + (f" ({failed})" if failed else "")
        )


@implementer(IOpenSSLServerConnectionCreator)
class Shown:
    """Begins each connection with the certificate that is the default now."""

    def __init__(self, store: CertificateStore) -> None:
        self._store = store

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._store.default, None)


class CountedTls(BufferingTLSTransport):
    """Twisted's TLS, whose handshakes count, as records without data do then."""

    factory: TlsFactory

    _barren = 0.0
    """Records without data, less one for each second, as of `_since`."""
    _since = 0.0

    def makeConnection(self, transport: Any) -> None:
        self.factory.handshakes.begins()
        super().makeConnection(transport)

    def _checkHandshakeStatus(self) -> None:
        before = self._handshakeDone
        super()._checkHandshakeStatus()
        if self._handshakeDone and not before:
            self.factory.handshakes.is_over(self._tlsConnection)
            self._tlsConnection.set_info_callback(self._informed)

    def _informed(self, connection: SSL.Connection, where: int, _: int) -> None:
        """Called by OpenSSL, in the midst of reading; never for data."""
        if where not in BARREN_SIGNS:
            return
        now = self.factory.seconds()
        self._barren = max(0.0, self._barren - (now - self._since)) + 1
        self._since = now
        if self._barren > MOST_BARREN and self._reason is None:
            self._reason = Failure(openssl.error_of([openssl.BARREN]))
            connection.set_shutdown(SSL.RECEIVED_SHUTDOWN)  # it reads no further, and fails

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._handshakeDone and self.connected:
            why = self._reason or reason
            self.factory.handshakes.fails(why.value)
        super().connectionLost(reason)


class TlsFactory(TLSMemoryBIOFactory):
    """The layer: TLS around the connections of a port.

    Args:
        wrapped: Makes what runs inside.
        clock: The reactor, or a test's.
        contexts: What all its contexts have alike.
        store: Its certificates, made by `contexts`.

    Attributes:
        handshakes: How many there are and were.
    """

    noisy = False
    protocol = CountedTls

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
        self.handshakes = Handshakes()
        self.seconds = clock.seconds
        super().__init__(cast(Any, Shown(store)), False, wrapped, clock)

    def counts(self) -> TlsFigures:
        """The figures, with the first certificates to end only."""
        return self.figures(MAX_TOLD)

    def figures(self, most: int = MAX_PAIRS) -> TlsFigures:
        """What there is now, with so many certificates at most."""
        return TlsFigures(
            self.store.expiries(most),
            self.contexts.min_version,
            self.contexts.client_auth,
            self.store.rereads,
            self.store.failures,
            self.handshakes.under_way,
            dict(self.handshakes.done),
            dict(self.handshakes.failed),
        )

    def handshake(
        self, elsewhere: Elsewhere | None = None, back: Callable[[], object] = lambda: None
    ) -> TlsHandshake:
        """The same for a connection of the core; see `TlsHandshake`."""
        return TlsHandshake(self.store.default, self.handshakes, elsewhere, back)
