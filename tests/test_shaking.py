"""Handshakes that are done elsewhere: what is, in which order, and what ends there."""

from __future__ import annotations

import contextlib
import os
import select
import ssl
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import skipIf

from OpenSSL import SSL
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.certificates import CertificateStore, Places
from fastway.errors import TlsFailed
from fastway.gateway.preface import Done
from fastway.gateway.tls import Contexts, Handshakes, Shaken, TlsHandshake
from fastway.relay import missing
from tests.support.errors import raised
from tests.support.tls import make
from tests.support.waits import reactor, until

if not missing():
    from fastway.gateway.shaking import Shaking
    from fastway.relay import _core, openssl


class Client:
    """Python's own, over memory."""

    def __init__(self, name: str = "one.test", most: Any = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = most
        context.set_alpn_protocols(["fastway/1"])
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.end = context.wrap_bio(self.into, self.out, server_hostname=name)

    def says(self, heard: bytes = b"") -> bytes:
        self.into.write(heard)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.end.do_handshake()
        return self.out.read()


class Thread:
    """An `Elsewhere` that works when it is told to, with the core's thread."""

    def __init__(self) -> None:
        self.shaker = _core.Shaker(*openssl.library())
        self.given: list[tuple[TlsHandshake, SSL.Connection, bytes]] = []
        self.dropped: list[TlsHandshake] = []
        self.refuses = False

    def begins(self, connection: SSL.Connection) -> None:
        openssl.stop_at_choice(connection)

    def give(self, handshake: TlsHandshake, connection: SSL.Connection, data: bytes) -> bool:
        if self.refuses:
            openssl.pass_choice(connection)
            return False
        self.given.append((handshake, connection, data))
        return True

    def drop(self, handshake: TlsHandshake) -> None:
        self.dropped.append(handshake)

    def work(self) -> None:
        handshake, connection, data = self.given.pop(0)
        self.shaker.give(handshake, *openssl.objects_of(connection), data)
        select.select([self.shaker], [], [], 30)
        taken = self.shaker.take()
        assert taken is not None
        owner, end, used, answer, errors = taken
        assert owner is handshake
        error: Any = openssl.error_of(errors) if end == _core.FAILED else None
        handshake.shaken(Shaken(end == _core.DONE, answer, error), used)


@skipIf(missing(), missing())
class StepTests(SynchronousTestCase):
    """A handshake as a preface, its steps in memory."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        for name in ("one", "two"):
            host = f"{name}.test"
            make(host, [host]).write(
                os.path.join(directory.name, f"{name}.pem"),
                os.path.join(directory.name, f"{name}.key"),
            )
        contexts = Contexts(protocols=(b"fastway/1",))
        places = Places(directory=directory.name, directory_option="client-tls-dir")
        self.store = contexts.store = CertificateStore("client", places, contexts)
        self.thread = Thread()
        self.addCleanup(self.thread.shaker.stop)
        self.counts = Handshakes()
        self.backs = 0

    def handshake(self, elsewhere: Any = None) -> TlsHandshake:
        def back() -> None:
            self.backs += 1

        return TlsHandshake(self.store.default, self.counts, elsewhere or self.thread, back)

    def whole(self, client: Client, feed: Callable[[TlsHandshake, bytes], Any]) -> Done:
        """Shake hands; returns how it ended."""
        handshake = self.handshake()
        said = client.says()
        for _ in range(4):
            result = feed(handshake, said)
            if isinstance(result, Done):
                client.says(result.answer)
                return result
            said = client.says(result)
        raise AssertionError("it never ends")

    def elsewhere(self, handshake: TlsHandshake, data: bytes) -> Any:
        self.assertEqual(handshake.feed(data), b"")
        self.assertTrue(handshake.away)
        self.thread.work()
        self.assertFalse(handshake.away)
        return handshake.feed(b"")

    def test_steps(self) -> None:
        """Both steps are done elsewhere, in both versions and for each certificate."""
        for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for name in ("one.test", "two.test"):
                self.backs = 0
                client = Client(name, most)
                done = self.whole(client, self.elsewhere)
                self.assertEqual(client.end.selected_alpn_protocol(), "fastway/1")
                shown = client.end.getpeercert(True)
                self.assertIn(name.encode(), shown or b"")
                self.assertIs(done.secure.get_context(), self.store.choose(name))
                self.assertEqual((self.backs, done.rest), (2, b""))
        self.assertEqual(self.counts.done, {"TLSv1.2": 2, "TLSv1.3": 2})
        self.assertEqual((self.counts.under_way, self.thread.given), (0, []))

    def test_byte_by_byte(self) -> None:
        """Cuts are where they like; nothing goes elsewhere before a hello is whole."""
        handshake, client = self.handshake(), Client()
        hello = client.says()
        for at in range(len(hello) - 1):
            self.assertEqual(handshake.feed(hello[at : at + 1]), b"")
            self.assertFalse(handshake.away)
        finished = client.says(self.elsewhere(handshake, hello[-1:]))
        for at in range(len(finished) - 1):
            self.assertEqual(self.elsewhere(handshake, finished[at : at + 1]), b"")
        self.assertIsInstance(self.elsewhere(handshake, finished[-1:]), Done)

    def test_what_is_behind(self) -> None:
        """What came behind the last piece that was needed is the rest, or goes with it."""
        handshake, client = self.handshake(), Client()
        finished = client.says(self.elsewhere(handshake, client.says()))
        client.end.write(b"x" * 16000)
        sealed = client.out.read()
        done = self.elsewhere(handshake, finished + sealed)
        came = done.secure.bio_write(done.rest)
        self.assertEqual(came, len(done.rest))
        self.assertGreater(len(done.rest), 0)
        self.assertEqual(done.secure.recv(1 << 16), b"x" * 16000)

    def test_failures(self) -> None:
        """OpenSSL's reason is the same, wherever it found it."""
        error = raised(TlsFailed, lambda: self.handshake().feed(b"GET / HTTP/1.1\r\n\r\n"))
        self.assertIn("does not talk TLS", str(error))
        handshake, client = self.handshake(), Client()
        finished = bytearray(client.says(self.elsewhere(handshake, client.says())))
        finished[-1] ^= 1
        error = raised(TlsFailed, lambda: self.elsewhere(handshake, bytes(finished)))
        self.assertGreater(len(error.answer), 0)  # an alert
        self.assertEqual((self.counts.under_way, sum(self.counts.failed.values())), (0, 2))
        self.assertNotIn("closed", self.counts.failed)

    def test_lost_meanwhile(self) -> None:
        """Who goes while its step is done is counted once, and nobody is told of the step."""
        handshake = self.handshake()
        handshake.feed(Client().says())
        handshake.lost()
        self.assertEqual(self.thread.dropped, [handshake])
        self.thread.work()
        self.assertEqual((self.backs, self.counts.failed), (0, {"closed": 1}))
        self.assertEqual(self.counts.under_way, 0)

    def test_no_thread(self) -> None:
        """Where it cannot be done elsewhere it is done here."""
        self.thread.refuses = True
        self.whole(Client("two.test"), lambda handshake, data: handshake.feed(data))
        self.assertEqual((self.counts.done, self.backs), ({"TLSv1.3": 1}, 0))

    def test_silence(self) -> None:
        """Who says nothing has no memory of OpenSSL's."""
        self.assertIsNone(self.handshake()._connection)


@skipIf(missing(), missing())
class ReactorTests(TestCase):
    """The thread in the reactor."""

    def test_life(self) -> None:
        """It is in the reactor while it has steps; after a stop it begins anew."""
        ensure: Any = ensureDeferred
        return ensure(self.life())  # type: ignore[no-any-return]

    async def life(self) -> None:
        contexts = Contexts(protocols=(b"fastway/1",))
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "own.pem")
            make("one.test", ["one.test"]).write(path)
            store = contexts.store = CertificateStore("client", Places(path), contexts)
        settled: list[int] = []
        shaking = Shaking(reactor, lambda: settled.append(1))
        self.addCleanup(shaking.stop)
        told: list[TlsHandshake] = []

        def one() -> TlsHandshake:
            handshake = TlsHandshake(
                store.default, Handshakes(), shaking, lambda: told.append(handshake)
            )
            handshake.feed(Client().says())
            return handshake

        for _ in range(2):
            made = [one() for _ in range(10)]
            self.assertIn(shaking, reactor.getReaders())
            await until("all steps", lambda: len(told) == 10)
            self.assertEqual(told, made)  # in their order
            self.assertTrue(settled)
            self.assertNotIn(shaking, reactor.getReaders())
            told.clear()
            left = [one() for _ in range(10)]
            left[-1].lost()
            shaking.stop()
            self.assertNotIn(shaking, reactor.getReaders())
            self.assertEqual(told, left[:-1])
            told.clear()
