"""Links of an App to peers of a test, in the dialect of words: in memory, and on the relay.

Both ends have the same verbs, so that one test body does for both: `say`, `lines`, `end`,
`take`, `stop_reading`, `read_on`; and `connected`, `producerState`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway import relay
from fastway.app import App
from fastway.app.link import Link
from fastway.app.ports import LinkFactory
from tests.support.words import Words


class Wireless(StringTransport):
    """A transport in memory, whose end the link hears of as from a real one."""

    link: Link

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link
        self.writes: list[bytes] = []
        link.makeConnection(self)

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(data)

    def loseConnection(self) -> None:
        super().loseConnection()
        self.end(ConnectionDone())

    def abortConnection(self) -> None:
        super().abortConnection()
        self.end(ConnectionLost())

    def end(self, why: Exception) -> None:
        """The connection is over."""
        if self.connected:
            self.connected = False
            self.link.connectionLost(Failure(why))

    def say(self, data: bytes) -> None:
        """The peer says something."""
        self.link.dataReceived(data)

    def stop_reading(self) -> None:
        """The peer takes nothing more: as full as it gets with what waits now."""
        self.link.pauseProducing()

    def read_on(self) -> None:
        self.link.resumeProducing()

    def take(self) -> list[bytes]:
        """What was written since the last look, in writes."""
        taken, self.writes = self.writes, []
        return taken

    def lines(self) -> list[str]:
        """The same, as text."""
        text: str = self.value().decode()
        self.clear()
        return text.splitlines()


class Turns(Clock):
    """A clock that is a reactor with readers: it looks at them at each step.

    Attributes:
        readers: Those it has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def advance(self, amount: float) -> None:
        super().advance(amount)
        self.look()

    def look(self) -> None:
        """Serve the readers until they have nothing to do."""
        for _ in range(1000):
            ready = [one for one in self.readers if select.select([one], [], [], 0)[0]]
            if not ready:
                return
            for one in ready:
                one.doRead()
        raise AssertionError("a reader that never rests")


class Wired:
    """A peer whose other end is the relay's.

    Args:
        kind: Of sockets; SOCK_SEQPACKET keeps writes apart.
    """

    def __init__(self, link: Link, turns: Turns, kind: int = socket.SOCK_STREAM) -> None:
        from fastway.app.native import relay_of

        self.link = link
        self.producerState = "producing"
        self._turns = turns
        self._reads = True
        mine, self._peer = socket.socketpair(socket.AF_UNIX, kind)
        mine.setblocking(False)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as small as it gets
        self._peer.setblocking(False)
        self._transport: Any = relay_of(link.app, turns).adopt(mine, link, ("192.168.1.1", 54321))
        link.makeConnection(self._transport)

    def watch(self, test: SynchronousTestCase, known: dict[Any, Wired]) -> None:
        """Note when it is read from.

        Args:
            known: Those of this test.
        """
        if not known:
            for name, state in (("pauseProducing", "paused"), ("resumeProducing", "producing")):
                verb = getattr(type(self._transport), name)

                def noted(of: Any, verb: Any = verb, state: str = state) -> None:
                    verb(of)
                    if of in known:
                        known[of].producerState = state

                test.patch(type(self._transport), name, noted)
        known[self._transport] = self
        test.addCleanup(self._peer.close)

    @property
    def connected(self) -> bool:
        self._turns.look()
        return self._transport.link is not None

    def take(self) -> list[bytes]:
        self._turns.look()
        found = []
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self._peer.recv(1 << 16):
                found.append(data)
                self._turns.look()
        return found

    def say(self, data: bytes, ends: bool = False) -> None:
        """The peer says something, perhaps its last; less where nobody reads it."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            self._peer.sendall(data)
        if ends:
            self._peer.shutdown(socket.SHUT_WR)
        self._turns.look()

    def end(self, why: Exception) -> None:
        if isinstance(why, ConnectionLost) and self.connected:
            self._transport.write(b"?")  # whoever closes before he has read all resets
            self._turns.look()
        self._peer.close()
        self._turns.look()

    def stop_reading(self) -> None:
        self._reads = False

    def read_on(self) -> None:
        """All that waits is taken by the next `lines`, which gives it together with the rest."""
        self._reads = True
        self._taken = "".join(data.decode() for data in self.take())

    _taken = ""

    def lines(self) -> list[str]:
        taken, self._taken = self._taken, ""
        if not self._reads:
            return []
        return (taken + b"".join(self.take()).decode()).splitlines()


class Links(SynchronousTestCase):
    """One App with a few handlers, and connections to it in memory."""

    def app_with(self, **settings: Any) -> App:
        self.clock = self.new_clock()
        app = App(clock=self.clock, **settings)
        self.gates: list[Deferred[Any]] = []

        @app.handler("echo")
        def echo(message: Any) -> Any:
            return message

        @app.handler("wait")
        async def wait(message: Any) -> Any:
            self.gates.append(Deferred())
            await self.gates[-1]
            return message

        self.app = app
        return app

    def new_clock(self) -> Clock:
        return Clock()

    def join(self, dialect: Words, **how: Any) -> Any:
        """A new connection's far end."""
        return self.reach(self.factory(dialect).buildProtocol(None), **how)

    def reach(self, link: Any, **how: Any) -> Any:
        """The far end of a new connection of that link."""
        return Wireless(link)

    def factory(self, dialect: Words) -> Any:
        """That of a port."""
        return self.factory_type()(self.app, dialect)

    def factory_type(self) -> type[LinkFactory]:
        return LinkFactory

    def connect(self, dialect: Words | None = None, welcome: bool = True, **how: Any) -> Any:
        dialect = dialect or Words()
        transport = self.join(dialect, **how)
        if dialect.greets and welcome:
            transport.say(b'hi "ann"\n')
            self.assertIn("welcome null", transport.lines())
        return transport

    def tell(self, transport: Any, *lines: str) -> list[str]:
        transport.say("".join(f"{line}\n" for line in lines).encode())
        heard: list[str] = transport.lines()
        return heard


class NativeLinks(Links):
    """The same connections on the relay."""

    def setUp(self) -> None:
        super().setUp()
        self.wired: dict[Any, Wired] = {}
        if relay.missing():
            raise SkipTest(relay.missing())

    def new_clock(self) -> Clock:
        return Turns()

    def reach(self, link: Any, **how: Any) -> Wired:
        wired = Wired(link, self.clock, **how)  # type: ignore[arg-type]
        wired.watch(self, self.wired)
        return wired

    def factory_type(self) -> type[LinkFactory]:
        from fastway.app.native import NativeFactory

        return NativeFactory
