"""What the tests of snet share: the wire written down a second time, fake connections on a clock,
and a proxy on real sockets that cuts what it carries.

Rule: nothing here uses fastway's own crypto or handshakes, so that a mistake in them cannot hide
itself; and a fake transport fails the test when it is used as no transport may be.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.snet.interfaces import IResumableProtocol
from fastway.snet.stream import LINGER
from fastway.snet.transport import SnetClientEndpoint, SnetConfig, SnetFactory
from tests.harness import Peer, reactor, until
from tests.transport_checks import SECONDS, Tape

# The wire, written down a second time (spec "Key agreement" and what follows).

PRIME = 0xFFFFFFFFFFFFFFC5
REFUSED = bytes(24)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


def keystream(key: bytes) -> Iterator[int]:
    """RC4."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 255
        state[i], state[j] = state[j], state[i]
    i = j = 0
    while True:
        i = (i + 1) & 255
        j = (j + state[i]) & 255
        state[i], state[j] = state[j], state[i]
        yield state[(state[i] + state[j]) & 255]


class Script:
    """One end of a stream as the spec has it, without transport: what it would say.

    Attributes:
        wrote: All bytes of the stream that it wrote, as they went on the wire.
        read: All bytes of the stream that it read, decrypted.
    """

    def __init__(self, encrypt: bool = False, private: int = 0x0123456789ABCDEF) -> None:
        self.encrypt = encrypt
        self.private = private
        self.key = b""
        self.conn_id = 0
        self.wrote = bytearray()
        self.read = bytearray()
        self._out: Iterator[int] | None = None
        self._in: Iterator[int] | None = None

    @property
    def public(self) -> bytes:
        return u64(pow(5, self.private, PRIME))

    def agree(self, public: bytes) -> None:
        (number,) = struct.unpack("<Q", public)
        self.key = u64(pow(number, self.private, PRIME))
        self._out, self._in = keystream(self.key), keystream(self.key)

    def prove(self, challenge: bytes) -> bytes:
        return md5(challenge + self.key)

    def send(self, data: bytes) -> bytes:
        """Bytes for the wire, which count as written."""
        if self.encrypt:
            data = bytes(byte ^ next(cast(Any, self._out)) for byte in data)
        self.wrote += data
        return data

    def take(self, data: bytes) -> bytes:
        """The stream's bytes of what came."""
        if self.encrypt:
            data = bytes(byte ^ next(cast(Any, self._in)) for byte in data)
        self.read += data
        return data

    # As the dialling end.

    def hello(self) -> bytes:
        return b"\0" + self.public

    def accept(self, answer: bytes) -> bytes:
        """The proof that follows the 24 bytes that answer `hello`."""
        assert len(answer) == 24, answer
        self.agree(answer[:8])
        stream = keystream(self.key)
        pairs = zip(answer[8:16], stream, strict=False)
        self.conn_id = int.from_bytes(bytes(byte ^ pad for byte, pad in pairs), "little")
        for _ in range(8):
            next(cast(Any, self._in))
        return self.prove(answer[16:])

    def claim(self, wrote: int | None = None, read: int | None = None) -> bytes:
        """A request to resume, by default with true counts."""
        counts = u64(
            self.conn_id,
            len(self.wrote) if wrote is None else wrote,
            len(self.read) if read is None else read,
        )
        return b"\xff" + counts + md5(counts + self.key)

    # As the listening end.

    def answer(self, hello: bytes, conn_id: int = 1, challenge: bytes = b"schwierg") -> bytes:
        """What answers the 9 bytes of a new stream."""
        assert hello[:1] == b"\0" and len(hello) == 9, hello
        self.agree(hello[1:])
        self.conn_id = conn_id
        pairs = zip(u64(conn_id), cast(Any, self._out), strict=False)
        return self.public + bytes(byte ^ pad for byte, pad in pairs) + challenge


# Protocols.


@implementer(IResumableProtocol)
class Resumable(Tape):
    """A Tape that keeps what happens to its stream.

    Attributes:
        events: "cut", or (seconds, bytes) of a resume, in order.
        on_cut: Called within stream_cut.
        on_resumed: Called within stream_resumed.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.events: list[str | tuple[float, int]] = []
        self.on_cut: Callable[[], object] | None = None
        self.on_resumed: Callable[[], object] | None = None

    def stream_cut(self) -> None:
        self.events.append("cut")
        if self.on_cut is not None:
            self.on_cut()

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        self.events.append((round(seconds, 3), replayed))
        if self.on_resumed is not None:
            self.on_resumed()


# Fake connections.


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Wire:
    """This side's end of a fake TCP connection, whose far end is the test.

    Attributes:
        sent: What was written since the last `take`.
        acked: Bytes that the far host has acknowledged, a FIN among them as Linux counts it;
            None: nobody tells.
        prompt: The far host acknowledges all at once.
        reading: Whether this side reads.
        fin: This side has closed its sending half.
        closed: This side has closed, or the connection broke.
        aborted: This side has closed with a reset.
    """

    def __init__(self, clock: Clock, protocol: Any, port: int, prompt: bool = True) -> None:
        self.clock = clock
        self.protocol = protocol
        self.port = port
        self.sent = bytearray()
        self.total = 0
        self.acked: int | None = 0
        self.prompt = prompt
        self.reading = True
        self.fin = False
        self.closed = False
        self.aborted = False
        self.told = False
        self.producer: Any = None
        self.bufferSize = 65536
        protocol.makeConnection(self)

    # What the test does.

    def take(self) -> bytes:
        data = bytes(self.sent)
        self.sent.clear()
        return data

    def feed(self, data: bytes) -> None:
        """The far end's bytes come."""
        assert self.reading, "a transport that is paused reads nothing"
        assert not self.told, "the connection is gone"
        if not self.closed:
            self.protocol.dataReceived(data)

    def ack(self, size: int | None = None) -> None:
        """The far host acknowledges so much more; None: all."""
        assert self.acked is not None
        everything = self.total + self.fin
        self.acked = everything if size is None else min(everything, self.acked + size)

    def half_close(self) -> None:
        """The far end's FIN comes."""
        assert not self.told
        self.protocol.readConnectionLost()

    def broken(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        self._lost(ConnectionLost() if error is None else error)

    def fill(self) -> None:
        """The transport's buffer is full now."""
        self.producer.pauseProducing()

    def drain(self) -> None:
        self.producer.resumeProducing()

    # What the code under test does.

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        if self.fin or self.closed:
            return
        self.sent += data
        self.total += len(data)
        if self.prompt and self.acked is not None:
            self.acked = self.total

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        self.aborted = self.aborted or not self.closed
        self._lose(ConnectionAborted())

    def loseWriteConnection(self) -> None:
        if not self.fin:
            self.fin = True
            if self.prompt and self.acked is not None:
                self.ack()
            self.clock.callLater(0, self._wrote_all)

    def _wrote_all(self) -> None:
        if not self.closed:
            self.protocol.writeConnectionLost()

    def _lose(self, error: Exception) -> None:
        # Never within the call, as Twisted's.
        if not self.closed:
            self.closed = True
            self.clock.callLater(0, self._lost, error)

    def _lost(self, error: Exception) -> None:
        if not self.told:
            self.closed = self.told = True
            producer, self.producer = self.producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(error))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("registered already")
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if not self.closed:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", self.port)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 9000)

    def getHandle(self) -> object:
        return None

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        assert enabled


def acked_of(transport: Any) -> int | None:
    """What stands in for fastway.tcp.acked_bytes."""
    return cast("int | None", transport.acked)


class Bench:
    """Both sides of snet on one clock, with fake connections."""

    def __init__(self, config: SnetConfig | None = None) -> None:
        self.clock = Clock()
        self.config = SnetConfig() if config is None else config
        self.wires: list[Wire] = []
        self._last_port = 50000

    def wire(self, protocol: Any, prompt: bool = True) -> Wire:
        self._last_port += 1
        wire = Wire(self.clock, protocol, self._last_port, prompt)
        self.wires.append(wire)
        return wire

    def turn(self) -> None:
        """Let a few reactor turns go by."""
        for _ in range(4):
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        """Turn the clock in steps that the wheel does not take for a stall (exact in binary)."""
        self.clock.pump([0.125] * round(seconds * 8))

    @property
    def calls(self) -> list[Any]:
        """What is scheduled."""
        return list(self.clock.getDelayedCalls())


class Listening(Bench):
    """The listening side, whose clients are scripts."""

    def __init__(self, *protocols: Any, config: SnetConfig | None = None) -> None:
        super().__init__(config)
        self.made = list(protocols)
        self.snet = SnetFactory(cast(Any, self), self.clock, self.config)
        self.snet.doStart()
        self.stopped = False

    # It is the wrapped factory.

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        self.stopped = True

    def buildProtocol(self, addr: Any) -> Any:
        return self.made.pop(0) if self.made else None

    def dial(self, prompt: bool = True) -> Wire:
        """Somebody connects."""
        return self.wire(self.snet.buildProtocol(None), prompt)

    def new(self, rest: bytes = b"", prompt: bool = True) -> tuple[Script, Wire]:
        """A new stream; `rest` comes with the end of its handshake."""
        script = Script(self.config.encrypt)
        wire = self.dial(prompt)
        wire.feed(script.hello())
        proof = script.accept(wire.take())
        wire.feed(proof + script.send(rest))
        return script, wire

    def asks(self, script: Script, **counts: int) -> tuple[Wire, bytes]:
        """The script's client asks for a resume: its new connection, and what was answered."""
        wire = self.dial()
        wire.feed(script.claim(**counts))
        return wire, wire.take()

    def resume(self, script: Script, rest: bytes = b"", prompt: bool = True) -> Wire:
        """The script's client comes back, and sends again what this side lacks."""
        wire = self.dial(prompt)
        wire.feed(script.claim())
        answer = wire.take()
        read = int.from_bytes(answer[8:16], "little")
        replay = bytes(script.wrote[read:])
        wire.feed(script.prove(answer[16:]) + replay + script.send(rest))
        return wire

    def take(self, script: Script, wire: Wire) -> bytes:
        """What the client gets of the stream."""
        return script.take(wire.take())


@implementer(IStreamClientEndpoint)
class ByHand:
    """An endpoint whose connections come when the test says so.

    Attributes:
        asked: The times at which a connection was wanted.
        waiting: Those that are under way: their Deferred and their factory.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self.waiting: list[tuple[Deferred[Any], Any]] = []
        self.cancelled = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        self.asked.append(self.clock.seconds())
        done: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append((done, factory))
        return done

    def _cancel(self, done: Deferred[Any]) -> None:
        self.cancelled += 1
        self.waiting = [pair for pair in self.waiting if pair[0] is not done]

    def fail(self, error: Exception) -> None:
        done, _ = self.waiting.pop(0)
        done.errback(Failure(error))


class Dialling(Bench):
    """The dialling side, whose gateway is a script."""

    def __init__(
        self,
        factory: Any,
        config: SnetConfig | None = None,
        backoff: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__(config)
        self.endpoint = ByHand(self.clock)
        snet = SnetClientEndpoint(self.endpoint, self.clock, self.config, backoff)
        self.connected = snet.connect(factory)
        self.script = Script(self.config.encrypt)

    def reach(self) -> Wire:
        """The connection that is under way is made."""
        done, factory = self.endpoint.waiting.pop(0)
        protocol = factory.buildProtocol(None)
        wire = self.wire(protocol)
        done.callback(protocol)
        return wire

    def new(self, rest: bytes = b"") -> Wire:
        """Its first connection, with the handshake done; `rest` comes with its end."""
        wire = self.reach()
        answer = self.script.answer(wire.take())
        wire.feed(answer + self.script.send(rest))
        assert wire.take()[:16] == self.script.prove(b"schwierg")
        return wire

    def resume(self, rest: bytes = b"") -> Wire:
        """It comes back, and is sent again what it lacks."""
        wire = self.reach()
        conn_id, _, read, proof = struct.unpack("<xQQQ16s", claim := wire.take())
        assert (conn_id, proof) == (self.script.conn_id, md5(claim[1:25] + self.script.key))
        counts = u64(len(self.script.wrote), len(self.script.read))
        replay = bytes(self.script.wrote[read:])
        wire.feed(counts + b"schwerer" + replay + self.script.send(rest))
        sent = wire.take()
        assert sent[:16] == self.script.prove(b"schwerer")
        wire.sent += sent[16:]
        return wire


def linger() -> float:
    """Surely over LINGER, in steps of the clock."""
    return LINGER + 0.5


# Real sockets.


@implementer(IHalfCloseableProtocol)
class Far(Protocol):
    """The proxy's connection to its target."""

    def __init__(self, near: Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.far = self
        if self.near.ended:
            cast(Any, self.transport).abortConnection()
            return
        held, self.near.held = self.near.held, b""
        cast(Any, self.transport).write(held)

    def dataReceived(self, data: bytes) -> None:
        if not self.near.frozen:
            cast(Any, self.near.transport).write(data)

    def readConnectionLost(self) -> None:
        if not self.near.frozen:
            cast(Any, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.near.far = None
        if not self.near.ended:
            cast(Any, self.near.transport).loseConnection()


class Near(Protocol):
    """A connection to the proxy.

    Attributes:
        frozen: Nothing goes on over it, but nobody is told: a phone that changed networks.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.far: Far | None = None
        self.held = b""
        self.frozen = False
        self.ended = False

    def connectionMade(self) -> None:
        self.proxy.total += 1
        self.proxy.pairs.append(self)
        factory = Factory.forProtocol(cast(Any, lambda: Far(self)))
        factory.noisy = False
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target).connect(factory)
        connecting.addErrback(lambda _: cast(Any, self.transport).abortConnection())

    def dataReceived(self, data: bytes) -> None:
        if self.frozen:
            return
        if self.far is None:
            self.held += data
        else:
            cast(Any, self.far.transport).write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        if self in self.proxy.pairs:
            self.proxy.pairs.remove(self)
        if self.far is not None and not self.frozen:
            cast(Any, self.far.transport).abortConnection()


class Nears(Factory):
    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def buildProtocol(self, addr: Any) -> Near | None:
        return None if self.proxy.down else Near(self.proxy)


class Proxy:
    """Carries TCP connections to a port of 127.0.0.1, and cuts them when told to.

    `stop` must be among the test's cleanups.

    Attributes:
        pairs: The connections that are there, the newest last.
        total: Connections so far.
        down: It takes no connection: closes each at once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.pairs: list[Near] = []
        self.frozen: list[Near] = []
        self.total = 0
        self.down = False
        factory = Nears(self)
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    @property
    def port(self) -> int:
        return cast(int, self._port.getHost().port)

    def cut(self, how: int = 0) -> None:
        """Cut all that it carries: 0, both ends by a reset; 1, the near one by a FIN; 2, the far
        one by a reset and the near one by a FIN."""
        for near in list(self.pairs):
            if how % 3 == 0:
                cast(Any, near.transport).abortConnection()
            elif how % 3 == 1 or near.far is None:
                cast(Any, near.transport).loseConnection()
            else:
                cast(Any, near.far.transport).abortConnection()

    def freeze(self) -> None:
        """What it carries now goes nowhere from now on, and no end is told."""
        for near in self.pairs:
            near.frozen = True
            self.frozen.append(near)

    async def stop(self) -> None:
        await maybeDeferred(self._port.stopListening)
        for near in [*self.pairs, *self.frozen]:
            if near.far is not None:
                cast(Any, near.far.transport).abortConnection()
            if not near.ended:
                cast(Any, near.transport).abortConnection()
        await until("the proxy's end", lambda: not self.pairs, SECONDS)


class RawClient(Peer):
    """A client of the listening side over a real socket, that says what the test tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()

    async def new(self) -> Script:
        """Shake hands for a new stream."""
        self.send(self.script.hello())
        self.send(self.script.accept(await self.read(24)))
        return self.script

    async def ask(self, script: Script, **counts: int) -> bytes:
        """Ask for a resume: the answer."""
        self.script = script
        self.send(script.claim(**counts))
        return await self.read(24)

    async def resume(self, script: Script) -> None:
        """Come back, and send again what the other side lacks."""
        answer = await self.ask(script)
        read = int.from_bytes(answer[8:16], "little")
        self.send(script.prove(answer[16:]) + bytes(script.wrote[read:]))

    async def take(self, size: int) -> bytes:
        """So many bytes of the stream."""
        return self.script.take(await self.read(size))


async def raw_client(port: int) -> RawClient:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    factory = Factory.forProtocol(RawClient)
    factory.noisy = False
    return cast(RawClient, await endpoint.connect(factory))


_Error = TypeVar("_Error", bound=Exception)


async def failure_of(kind: type[_Error], waiting: Any) -> _Error:
    """The error of that kind with which a Deferred fails."""
    try:
        result = await waiting
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {result!r}")
