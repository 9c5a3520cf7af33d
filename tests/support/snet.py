"""Both sides of snet on a clock, over fake connections whose far end is the test.

Rule: a fake transport fails the test when it is used as no transport may be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.snet.config import LINGER, SnetConfig
from fastway.snet.dial import SnetClientEndpoint
from fastway.snet.interfaces import IResumableProtocol
from fastway.snet.listen import SnetFactory
from tests.support.snet_golden import Script, md5, u64
from tests.support.tapes import Tape


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
