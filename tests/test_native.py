"""The native lane in the gateway: faults, links outside of the core, what operators see.

Rule: what both lanes must do alike is in support.lanes, test_sockets and test_lanes_machine; the
core alone is tested in tests/relay. Here is what only shows where the two meet.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import fastway.relay
from fastway.errors import ConfigError, Reason
from fastway.gateway import ClientFactory, PortConfig
from fastway.gateway.lane import End
from fastway.gateway.native import NativeCore, NativeLane
from fastway.ops.snapshot import Source, finish
from fastway.ops.status import status_rows
from fastway.relay import PoolConfig, _core, missing, stale
from fastway.relay.sources import digest
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.golden import PING, close, dial, packet
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, parsed
from tests.support.paths import on_both_paths
from tests.support.service import ServiceTestCase
from tests.support.sockets import Sockets, SocketTestCase, listen_by_relay, listen_with
from tests.support.waits import later, until

reactor = cast(Any, _reactor)


class RelayTestCase(SocketTestCase):
    """A test case with both ports open on the native path."""

    relay = True
    if missing():
        skip = missing()


def native_of(sockets: Sockets) -> NativeCore:
    native = sockets.service.native
    assert isinstance(native, NativeCore)
    return native


def core_of(sockets: Sockets) -> Any:
    return native_of(sockets).core


def counters(sockets: Sockets) -> tuple[int, int]:
    """Bytes of chunks in use and pages mapped."""
    used, _, _, classes = core_of(sockets).pool()
    return used, sum(pages for _, pages, _, _ in classes)


class OutsideTests(SocketTestCase):
    """One end in the core, the other on a plain Twisted transport."""

    if missing():
        skip = missing()

    def listen_mixed(self, inside: str, **config: Any) -> Sockets:
        """The ports of one side are the core's, those of the other are not."""

        def listen(factory: Any) -> Any:
            if factory.side.value != inside:
                return reactor.listenTCP(0, factory, interface="127.0.0.1")
            return listen_by_relay(factory.service)(factory)

        return self.listen(listen=listen, **config)

    async def check(self, inside: str) -> None:
        sockets = self.listen_mixed(inside)
        client, server = await sockets.client(), await sockets.server()
        self.assertNotEqual(type(client.link.lane), type(server.link.lane))
        conn_id = await sockets.pair(client, server)
        up = b"".join(packet(conn_id, b"up %d" % n * 9) for n in range(3000))
        down = b"".join(packet(conn_id, b"down %d" % n * 90) for n in range(300))
        client.send(up)
        server.send(down)
        await server.expect(up)
        await client.expect(down)
        await client.expect_alive()
        self.assertEqual(sockets.service.router.stats.packets, 3300)
        self.assertEqual(client.link.counts().packets_in, 3002)
        client.send(close(conn_id))
        await client.expect(close(conn_id))
        await server.expect(close(conn_id))
        await sockets.pair(server, client)
        client.wire.loseConnection()
        await server.expect(close(conn_id + 1))
        self.assertEqual(core_of(sockets).totals()[5], 0)

    async def test_client_inside(self) -> None:
        """A client in the core and a server outside talk both ways."""
        await self.check("client")

    async def test_server_inside(self) -> None:
        """A server in the core and a client outside talk both ways."""
        await self.check("server")

    async def hold(self, inside: str) -> None:
        sockets = self.listen_mixed(inside, server=PortConfig(queue_bytes=300_000))
        client, server = await sockets.client(), await sockets.server()
        data = await self.hold_behind(sockets, client, server)
        await later(0.05)
        self.assertTrue(client.link.counts().held)
        self.assertGreaterEqual(sockets.service.holds, 1)
        server.wire.resumeProducing()
        await server.expect(data)
        self.assertFalse(client.link.counts().held)
        await client.expect_alive()

    async def test_held_inside(self) -> None:
        """A server outside that does not read holds its client in the core, until it reads."""
        await self.hold("client")

    async def test_held_outside(self) -> None:
        """A server in the core that does not read holds its client outside, until it reads."""
        await self.hold("server")

    async def test_slow_client_inside(self) -> None:
        """A client in the core that does not read is cut, whoever sends to it."""
        sockets = self.listen_mixed("client", client=PortConfig(queue_bytes=300_000))
        client, server = await sockets.client(), await sockets.server()
        await self.cut_slow_client(sockets, client, server)
        self.assertIs(client.link.lost, Reason.SLOW_READER)


@on_both_paths
class FaultTests(SocketTestCase):
    """What goes wrong around a gateway; both paths."""

    async def test_both_ends_vanish_at_once(self) -> None:
        """A client and its server that are reset before the gateway looks leave nothing."""
        sockets = self.listen()
        other = await sockets.client()
        ends = [(await sockets.client(), await sockets.server(n)) for n in range(1, 6)]
        for client, server in ends:
            conn_id = await sockets.pair(client, server)
            client.send(packet(conn_id, b"last") * 50)
            server.send(packet(conn_id, b"last") * 50)
        await later(0)
        for client, server in ends:
            client.wire.abortConnection()
            server.wire.abortConnection()
        await until("their ends", lambda: len(sockets.service.connected) == 1)
        self.assertEqual(sockets.service.router.conn_ids, set())
        for client, server in ends:
            self.assertIs(client.link.lost, Reason.CONNECTION_LOST)
            self.assertIs(server.link.lost, Reason.CONNECTION_LOST)
        await other.expect_alive()

    async def test_busy_reactor(self) -> None:
        """A reactor that was kept busy for longer than the idle timeout loses nobody for it."""
        sockets = self.listen(
            client=PortConfig(idle_timeout=0.5), server=PortConfig(idle_timeout=0.5)
        )
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        await later(0.15)
        client.send(packet(conn_id, b"before"))
        time.sleep(1.3)
        await server.expect(packet(conn_id, b"before"))
        await later(0.12)
        self.assertIsNone(client.link.lost)
        self.assertIsNone(server.link.lost)
        await client.expect_alive()
        await server.expect_alive()
        await until("the idle timeout", lambda: client.link.lost and server.link.lost)

    async def test_no_descriptors(self) -> None:
        """Without descriptors a connection is closed and the others go on; later ones are taken.

        The peers' sockets are made before, so that the gateway is the one that has none.
        """
        sockets = self.listen()
        client = await sockets.client()
        where = ("127.0.0.1", sockets.client_port.getHost().port)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            self.addCleanup(sock.close)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        gc.collect()  # sockets of earlier tests
        # Far from the bottom: half of a small limit is a client's whatever is kept for servers.
        last = max(200, *map(int, os.listdir("/proc/self/fd")))
        taken = [os.dup(0)]
        while taken[-1] < last:  # no number below the limit is to be free
            taken.append(os.dup(0))
        for fd in taken:
            self.addCleanup(os.close, fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
        try:
            for sock in waiting:
                sock.connect(where)
                sock.setblocking(False)
            closed: set[socket.socket] = set()

            def all_closed() -> bool:
                for sock in waiting:
                    try:
                        if sock.recv(1) == b"":
                            closed.add(sock)
                    except BlockingIOError:
                        pass
                    except ConnectionError:
                        closed.add(sock)
                return len(closed) == len(waiting)

            await until("the refusals", all_closed)
            await client.expect_alive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await (await sockets.client()).expect_alive()

    async def test_log_lines(self) -> None:
        """What operators read about links is the same, whichever path its packets took."""
        sockets = self.listen()
        with LogLines() as log:
            client, other = await sockets.client(), await sockets.client()
            server = await sockets.server()
            conn_id = await sockets.pair(client, server)
            client.send(packet(conn_id, b"hello") * 3 + PING)
            await client.expect(PING)
            server.send(packet(conn_id, b"hi"))
            await client.expect(packet(conn_id, b"hi"))
            other.send((600_000).to_bytes(4, "little"))
            await other.expect_end()
            server.wire.loseConnection()
            await until("the end", lambda: server.link not in sockets.service.connected)
            sockets.service.router.lose(client.link, Reason.KICKED)
        rows = [
            (
                *(event.get(name) for name in ("side", "id", "reason_code", "detail")),
                *(event.get(f"packets_{way}") for way in ("in", "out")),
                *(event.get(f"bytes_{way}") for way in ("in", "out")),
            )
            for event in log.events
            if "reason_code" in event
        ]
        self.assertEqual(
            rows,
            [
                ("client", 2, "frame_too_large", "length 600000 is over 524288", 0, 0, 4, 0),
                ("server", 1, "peer_closed", "", 1, 4, 30, 56),
                ("client", 1, "kicked", "", 5, 4, 61, 49),
            ],
        )
        self.assertIn(f"client 1 127.0.0.1:{client.wire.getHost().port} connected", log.lines)


class PoolTests(RelayTestCase):
    """The slab pool behind a gateway."""

    async def test_nothing_is_held_in_idleness(self) -> None:
        """Links that do nothing hold no chunk, a packet that is not whole holds a small one."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.send(packet(conn_id, b"x"))
        await server.expect(packet(conn_id, b"x"))
        self.assertEqual(counters(sockets)[0], 0)
        client.send(packet(conn_id, bytes(100_000))[:20])
        await client.was_read()
        self.assertEqual(counters(sockets)[0], 64)

    async def flood(self, sockets: Sockets) -> None:
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        while client.link.counts().waiting_bytes < 500_000:
            server.send(packet(conn_id, bytes(500_000)))
            await server.was_read()
        client.wire.resumeProducing()
        await until("its end", lambda: client.total == server.sent - 20 + 17)

    async def test_memory_goes_back(self) -> None:
        """What a flood took is the system's again soon after it."""
        for kind in ("atom", "sync"):
            sockets = self.listen(pool=PoolConfig(kind), client=PortConfig(idle_timeout=0))
            await self.flood(sockets)
            self.assertEqual(counters(sockets)[0], 0)
            core = core_of(sockets)
            for seconds in (1.1, 2.2):
                core.sweep(sockets.service.wheel.seconds() + seconds)
            self.assertEqual(counters(sockets), (0, 0))
            self.assertEqual(sum(row[3] for row in core.pool()[3]), 0)

    async def test_limit(self) -> None:
        """At the limit the link that needs a chunk is lost, with its reason; others go on."""
        limited = PoolConfig(max_chunk=4096, limit=300_000)
        sockets = self.listen(pool=limited, client=PortConfig(queue_packets=10_000))
        slow, other = await sockets.client(), await sockets.client()
        server = await sockets.server()
        slow_id, other_id = await sockets.pair(slow, server), await sockets.pair(other, server)
        slow.wire.pauseProducing()
        for _ in range(3000):
            server.send(packet(slow_id, bytes(5000)))
            await server.was_read()
            if slow.link.lost:
                break
        self.assertIs(slow.link.lost, Reason.NO_MEMORY)
        await server.expect(close(slow_id))
        server.send(packet(other_id, b"on"))
        await other.expect(packet(other_id, b"on"))
        self.assertGreater(core_of(sockets).pool()[2], 0)

    async def test_status(self) -> None:
        """`status` shows the core's links and the pool's classes, pages and chunks."""
        sockets = self.listen(pool=PoolConfig("chan", limit=1 << 20))
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.send(packet(conn_id, bytes(1000))[:200])
        await client.was_read()
        rows = status_rows(finish(Source(sockets.service).snapshot()))
        self.assertIn("relay: 2 links, 1 virtual connections in native code", rows)
        self.assertIn(
            "memory pool: chan, 256 of 1048576 bytes of chunks used, "
            "0 chunks outside of pages, 0 requests failed",
            rows,
        )
        self.assertIn("chunks of 256: 1 pages, 1 used, 4095 free", rows)
        self.assertIn("forwarded: 0 packets, 0 bytes", rows)

    def test_nonsense(self) -> None:
        """Sizes that do not fit together are one line that names the option."""
        for arguments, option in (
            (("--mem-pool-min-chunk=128K",), "--mem-pool-min-chunk"),
            (("--mem-pool-max-chunk=2M",), "--mem-pool-page-size"),
            (("--mem-pool-page-size=2G",), "--mem-pool-page-size"),
            (("--mem-pool-limit=1K",), "--mem-pool-limit"),
        ):
            error = raised(ConfigError, parsed, *LOOPBACK, *arguments)
            self.assertEqual(error.option, option)
            self.assertNotIn("\n", str(error))


class CoreTests(RelayTestCase):
    """The core in a reactor."""

    async def test_interfaces(self) -> None:
        """The core is one reader, and a lane lends its socket."""
        sockets = self.listen()
        client = await sockets.client()
        verifyObject(IReadDescriptor, native_of(sockets))
        with cast(NativeLane, client.link.lane).socket() as lent:
            self.assertEqual(lent.getpeername()[1], client.wire.getHost().port)
        await client.expect_alive()

    async def test_gone(self) -> None:
        """A lane that is gone still tells its counts, and takes every call."""
        sockets = self.listen()
        client = await sockets.client()
        lane = cast(NativeLane, client.link.lane)
        client.send(PING)
        await client.expect(PING)
        client.wire.abortConnection()
        await until("the end", lambda: not sockets.service.connected)
        self.assertEqual(client.link.counts().bytes_in, 9)
        self.assertEqual(client.link.counts().packets_in, 1)
        lane.write(b"late")
        lane.send(PING, 1)
        lane.settle(None)
        lane.pause()
        lane.resume()
        lane.unpair(7)
        for how in End:
            lane.close(how)
        self.assertFalse(lane.saturated())
        raised(OSError, lane.socket)

    async def test_ports(self) -> None:
        """There are as many ports as one likes; those with the same bounds are one to the core."""
        sockets = self.listen()
        native = native_of(sockets)
        for _ in range(40):
            port = listen_with(native.listen, ClientFactory(sockets.service))
            self.addCleanup(port.stopListening)
            self.assertEqual(port.core_port, 0)
        with socket.create_connection(("127.0.0.1", port.getHost().port)):
            await until("it", lambda: sockets.service.router.clients)

    async def test_not_in_the_reactor_without_links(self) -> None:
        """The core is in the reactor only while it has links, and soon after not on the wheel."""
        sockets = self.listen()
        native = native_of(sockets)
        self.assertNotIn(native, reactor.getReaders())
        client = await sockets.client()
        self.assertIn(native, reactor.getReaders())
        client.wire.loseConnection()
        await until("the end", lambda: native not in reactor.getReaders())
        await until("its last look", lambda: len(sockets.service.wheel) == 0, 5)
        await (await sockets.client()).expect_alive()

    async def test_pings_stay_in_the_core(self) -> None:
        """A Ping is answered without the router, in its place, whole, and is counted."""
        sockets = self.listen()
        client = await sockets.client()
        asked: list[object] = []
        self.patch(NativeLane, "send", lambda *call: asked.append(call))
        long = packet(0, b"\5with more behind")
        for _ in range(50):
            client.send((PING + long) * 20)
        await client.expect((PING + long) * 1000)
        self.assertEqual(asked, [])
        await until("the count", lambda: sockets.service.router.stats.pings == 2000)
        self.assertEqual(client.link.counts().packets_in, 2000)
        self.assertEqual(client.link.routed, 0)

    async def test_a_failing_event(self) -> None:
        """A bug in what an event asks for costs that link, and nobody else."""
        sockets = self.listen()
        client, other = await sockets.client(), await sockets.client()

        def fail(*_: object) -> None:
            raise ValueError("a bug")

        self.patch(sockets.service.router, "receive", fail)
        client.send(dial(1))
        await until("its end", lambda: client.ended)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        await other.expect_alive()

    async def test_no_memory_for_python(self) -> None:
        """A core that cannot tell Python anything ends the gateway with one line."""
        sockets = self.listen()
        problems: list[str] = []
        sockets.service.failed = problems.append
        await sockets.client()

        def fail(_: float) -> None:
            raise MemoryError

        native = native_of(sockets)
        real, native.core = native.core, cast(Any, Broken(native.core))
        try:
            with LogLines() as log:
                await until("the failure", lambda: problems)
        finally:
            native.core = real
            native._reading = True
            reactor.addReader(native)
        self.assertIn("the native relay cannot go on: MemoryError", problems[0])
        self.assertNotIn("\n", problems[0])
        self.assertFalse([event for event in log.events if "log_failure" in event])


def count(call: Callable[..., Any], calls: list[object]) -> Callable[..., Any]:
    """The call, counted."""

    def counted(*args: object) -> Any:
        calls.append(args)
        return call(*args)

    return counted


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def is_closed(sock: socket.socket) -> bool:
    """Its peer has closed it."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


class Broken:
    """A core for which Python has no memory."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def sweep(self, _: float) -> None:
        raise MemoryError

    run = sweep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


class DescriptorTests(SocketTestCase):
    """Descriptors that run out, on either lane where it may be either."""

    relay = True
    if missing():
        skip = missing()

    def exhaust(self, left: int) -> None:
        """Leave this process so many descriptors."""
        gc.collect()  # sockets of earlier tests
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Far from the bottom: half of a small limit is a client's whatever is kept for servers.
        last = max(200, *map(int, os.listdir("/proc/self/fd")))
        taken = [os.dup(0)]
        while taken[-1] < last:  # no number below the limit is to be free
            taken.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + left, hard))

        def heal() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            while taken:
                os.close(taken.pop())

        self.heal = heal
        self.addCleanup(heal)

    async def test_not_even_one_to_refuse_with(self) -> None:
        """A port without a descriptor to refuse with rests, does not spin, and comes back."""
        sockets = self.listen()
        client = await sockets.client()
        port = sockets.client_port
        late = socket.socket()
        self.addCleanup(late.close)
        os.close(port._spare)
        port._spare = -1
        self.exhaust(0)
        reads: list[object] = []
        self.patch(port, "_refuse", count(port._refuse, reads))
        late.connect(("127.0.0.1", port.getHost().port))
        await until("the first try", lambda: reads)
        await later(0.1)
        self.assertEqual(len(reads), 1)
        await client.expect_alive()
        self.heal()
        await until("the newcomer", lambda: len(sockets.service.connected) == 2, 3)
        self.assertGreaterEqual(port._spare, 0)
        await (await sockets.client()).expect_alive()

    async def test_twice(self) -> None:
        """Running out in the middle of a refusal leaves a port with nothing to refuse with: who
        comes when it happens again waits, and is let in."""
        sockets = self.listen()
        port = sockets.client_port
        await sockets.client()
        refused, late = socket.socket(), socket.socket()
        for sock in (refused, late):
            self.addCleanup(sock.close)
        self.exhaust(0)
        patch = self.patch(os, "open", fail_with(OSError(errno.EMFILE, "too many")))
        refused.connect(("127.0.0.1", port.getHost().port))
        refused.setblocking(False)
        await until("the refusal", partial(is_closed, refused))
        patch.restore()
        self.heal()
        self.assertEqual(port._spare, -1)
        await (await sockets.client()).expect_alive()
        self.exhaust(0)
        reads: list[object] = []
        self.patch(port, "_refuse", count(port._refuse, reads))
        late.connect(("127.0.0.1", port.getHost().port))
        await until("another try", lambda: reads)
        self.heal()
        await until("the newcomer", lambda: len(sockets.service.connected) == 3)
        self.assertGreaterEqual(port._spare, 0)
        await (await sockets.client()).expect_alive()

    async def test_kept_for_servers(self) -> None:
        """The last descriptors are for servers: clients are turned away, servers are not."""
        await self.check_kept()

    async def test_kept_for_servers_in_python(self) -> None:
        """So they are on the Python lane."""
        self.relay = False
        await self.check_kept()

    async def check_kept(self) -> None:
        sockets = self.listen()
        await sockets.client()
        sockets.service.keep_files = 64
        self.exhaust(40)
        client = await sockets.dial_port(sockets.client_port)
        await until("the refusal", lambda: client.ended)
        self.assertEqual(sockets.service.turned_away, 1)
        self.assertEqual(sockets.clients.links, 1)
        turned_away = sockets.service.router.stats.turned_away
        self.assertEqual(turned_away, {Reason.NO_DESCRIPTOR: 1})
        server = await sockets.server()
        await server.expect_alive()
        self.heal()
        await (await sockets.client()).expect_alive()


class StartTests(ServiceTestCase):
    """`--relay`, and what the log says about it."""

    def lines(self, *arguments: str) -> list[str]:
        with LogLines() as log:
            self.start(*arguments)
        return [line for line in log.lines if "take the path of" in line]

    def test_native(self) -> None:
        """Where it is built it runs, and the log says so."""
        for choice in ("auto", "on"):
            self.directory = scratch(self)  # one gateway each
            (line,) = self.lines(f"--relay={choice}", "--mem-pool-type=sync")
            self.assertTrue(line.endswith("the native relay; its memory pool is sync"), line)

    if missing():
        test_native.skip = missing()  # type: ignore[attr-defined]

    def test_off(self) -> None:
        """`off` takes the Python path."""
        (line,) = self.lines("--relay=off")
        self.assertTrue(line.endswith("Python: --relay off"), line)

    def test_not_built(self) -> None:
        """Without the extension `auto` takes the Python path and says why; `on` is refused."""
        self.patch(fastway.relay, "missing", lambda: "the native relay is not built")
        (line,) = self.lines()
        self.assertTrue(line.endswith("Python: the native relay is not built"), line)
        error = raised(ConfigError, self.make, "--relay=on")
        self.assertEqual(error.option, "--relay")
        self.assertIn("not built", error.problem)
        self.assertNotIn("\n", str(error))

    def test_stale(self) -> None:
        """One of other sources is as good as none: `auto` says what to do, `on` is refused."""
        self.addCleanup(stale.cache_clear)
        self.patch(_core, "SOURCES", "others")
        stale.cache_clear()
        (line,) = self.lines()
        self.assertTrue(line.endswith("its sources here; pip install -e . builds it anew"), line)
        error = raised(ConfigError, self.make, "--relay=on")
        self.assertIn("--relay: the native relay is older than its sources", str(error))
        self.assertIn("pip install -e . builds it anew; auto goes without it", str(error))

    if missing():
        test_stale.skip = missing()  # type: ignore[attr-defined]

    async def test_restart(self) -> None:
        """A gateway that is stopped and started again listens again."""
        service = self.start()
        for _ in range(20):
            await service.stopService()
            service.startService()
        self.assertEqual(set(service.ports), {"client", "server"})


class MissingTests(SynchronousTestCase):
    def test_sources(self) -> None:
        """Sources are told from others by their names and what is in them, and by nothing else."""
        directory = scratch(self)
        self.assertEqual(digest(directory), "")
        self.assertEqual(digest(os.path.join(directory, "nowhere")), "")

        def written(**texts: str) -> str:
            for name, text in texts.items():
                with open(os.path.join(directory, name.replace("_", ".")), "w") as file:
                    file.write(text)
            return digest(directory)

        first = written(a_c="int a;")
        self.assertTrue(first)
        self.assertEqual(written(notes_txt="to do"), first)
        others = {written(a_c="int b;"), written(b_h=""), written(c_h="")}
        self.assertEqual(len(others | {first}), 4)

    def test_elsewhere(self) -> None:
        """On other systems than Linux there is no native relay."""
        self.patch(sys, "platform", "darwin")
        self.assertIn("Linux", missing())

    def test_no_extension(self) -> None:
        """Without the extension that is said."""
        name = "fastway.relay._core"
        core = sys.modules.pop(name, None)
        sys.modules[name] = cast(Any, None)
        had = fastway.relay.__dict__.pop("_core", None)
        try:
            self.assertIn("not built", missing())
        finally:
            del sys.modules[name]
            if had is not None and core is not None:
                fastway.relay.__dict__["_core"] = had
                sys.modules[name] = core
