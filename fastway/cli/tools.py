"""Tools on the endpoint library: `fastway client`, `play`, `ping`, `serve-echo`.

Rule: answers go to standard output, everything else to standard error; the exit status is 0 when
it went as asked and 1 when it did not, with one line that says why.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import host_and_port
from fastway.causes import cause_of, string_problem
from fastway.cli.interrupts import stops
from fastway.cli.table import ClientOptions, EchoOptions, PingOptions
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    GatewayPool,
    Overflow,
    VirtualConnection,
    connect_client,
)
from fastway.endpoint.connect import checked_gateway
from fastway.errors import (
    ConfigError,
    ConnectionEnded,
    EndpointEnded,
    FastwayError,
    LocalError,
    NoWebSocket,
)
from fastway.strings import DIALS, fault
from fastway.websocket.client import is_url

QUIET = 1.0
"""Seconds without an answer after which the end of the input ends `fastway client`."""

MAX_LINE = 512 * 1024


@implementer(IPushProducer)
class Room:
    """Whether standard output takes more."""

    def __init__(self) -> None:
        self._full: Deferred[None] | None = None

    async def wait(self) -> None:
        """Until it does."""
        if self._full is not None:
            await self._full

    def pauseProducing(self) -> None:
        if self._full is None:
            self._full = Deferred()

    def resumeProducing(self) -> None:
        full, self._full = self._full, None
        if full is not None:
            full.callback(None)

    def stopProducing(self) -> None:
        """The output is closed; writeConnectionLost tells."""


@implementer(IHalfCloseableProtocol)
class Lines(LineReceiver):
    """Standard input line by line, no longer than MAX_LINE bytes, and standard output.

    StandardIO makes both non-blocking, where `print` would lose what a slow reader leaves.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE

    def __init__(self, line: Callable[[bytes], None], over: Callable[[str], None]) -> None:
        self._line = line
        self._over = over
        self.room = Room()
        self.gone: Deferred[None] = Deferred()
        """Fires when all output is written and closed."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).registerProducer(self.room, True)

    def finish(self) -> Deferred[None]:
        """Write what is left and close; fires when that is done."""
        transport = cast(Any, self.transport)
        transport.unregisterProducer()
        transport.loseConnection()
        return self.gone

    def lineReceived(self, line: bytes) -> None:
        self._line(line.removesuffix(b"\r"))

    def lineLengthExceeded(self, line: bytes) -> None:
        self._over(f"a line is longer than {MAX_LINE} bytes")

    def readConnectionLost(self) -> None:
        if self._buffer:  # the last line has no end
            self._line(self._buffer)
        self._over("")

    def writeConnectionLost(self) -> None:
        self._over("nobody reads the output")
        cast(Any, self.transport).loseConnection()
        if not self.gone.called:
            self.gone.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.gone.called:
            self.gone.callback(None)


class ToolError(LocalError):
    """A tool cannot go on. The text is one line."""


def gateway_endpoint(reactor: Any, option: str, text: str) -> IStreamClientEndpoint:
    """The client endpoint of a gateway: `host:port`, the URL of a WebSocket, or a Twisted endpoint
    string.

    Args:
        option: As the operator wrote it.

    Raises:
        ConfigError: it is none of them.
    """
    if is_url(text):
        try:
            return checked_gateway(text, reactor)
        except ValueError as error:
            raise ConfigError(option, str(error)) from None
        except Exception as error:  # TLS is not all there
            raise ConfigError(option, string_problem(text, error)) from None
    plain = host_and_port(option, text)
    endpoint = text
    if plain is not None:
        host, port = plain
        endpoint = f"tcp:{quoteStringArgument(host or '127.0.0.1')}:{port}"
    problem = fault(endpoint, DIALS)
    if problem:
        raise ConfigError(option, f"{text!r}: {problem}")
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, endpoint))
    except Exception as error:  # each endpoint parser raises what it likes
        raise ConfigError(option, string_problem(text, error)) from None


async def reach(reactor: Any, gateway: str, config: EndpointConfig) -> GatewayConnection:
    """Connect to a gateway's client port.

    Raises:
        ToolError: it cannot be reached.
        FastwayError: it can, and does not talk as a gateway.
    """
    endpoint = gateway_endpoint(reactor, "--gateway", gateway)
    try:
        return await connect_client(endpoint, config, reactor)
    except (FastwayError, CancelledError) as error:
        if not isinstance(error, NoWebSocket):
            raise
        problem = cause_of(error)
    except Exception as error:  # what the endpoint likes to fail with
        problem = cause_of(error)
    raise ToolError(f"cannot reach the gateway {gateway}: {problem}")


def say(text: str) -> None:
    """A line on standard error.

    It is one write: unbuffered, `print` makes two, and the log's thread may write between them.
    """
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class LineClient:
    """`fastway client` between standard input and one virtual connection.

    Args:
        may_close: That the server closes the connection is an orderly end.
    """

    def __init__(self, reactor: Any, options: ClientOptions, may_close: bool = False) -> None:
        self._reactor = reactor
        self._options = options
        self._may_close = may_close
        self._done: Deferred[str] = Deferred()
        self._quiet: Any = None
        self._over = False
        self._blocked = False
        self._typed = 0
        self._lines = Lines(self._line, self._input_over)
        self._conn: VirtualConnection[Any] | None = None

    async def run(self) -> int:
        options = self._options
        remote_id = options["dial"]
        config = EndpointConfig(overflow=Overflow.PAUSE)
        endpoint = await reach(self._reactor, options["gateway"], config)
        try:
            conn = self._conn = await endpoint.dial(remote_id, options["timeout"])
            say(f"connected to {options['gateway']}, dialled server {remote_id}")
            StandardIO(self._lines, reactor=self._reactor)
            printing = ensureDeferred(self._print_messages(conn))
            problem = await self._done
            printing.cancel()
            await self._lines.finish()
        finally:
            closing = endpoint.close()
        await closing
        if problem:
            raise ToolError(problem)
        return 0

    def _finish(self, problem: str) -> None:
        if not self._done.called:
            self._done.callback(problem)

    def _line(self, line: bytes) -> None:
        assert self._conn is not None
        self._typed += 1
        try:
            message = self._message(line)
        except ValueError as error:
            self._finish(f"line {self._typed}: {error}")
            return
        try:
            sending = self._conn.send(message)
        except FastwayError as error:
            self._finish(cause_of(error))
            return
        sending.addErrback(lambda _: None)  # the connection's end is told by the reader
        if not sending.called:
            # The gateway does not take more: nor do we, of the input.
            transport = cast(Any, self._lines.transport)
            transport.pauseProducing()
            sending.addCallback(lambda _: transport.resumeProducing())
        self._rest()

    def _message(self, line: bytes) -> bytes:
        if self._options["hex"]:
            return bytes.fromhex(line.decode("ascii", "replace"))
        if self._options["json"]:
            return json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")
        return line

    async def _print_messages(self, conn: VirtualConnection[Any]) -> None:
        try:
            async for message in conn:
                self._print(message)
                # A reader that takes its time is no silence of the server.
                self._blocked = True
                await self._lines.room.wait()
                self._blocked = False
                self._rest()
            self._closed(conn.ended)
        except CancelledError:
            pass
        except ValueError as error:
            self._finish(str(error))
        except FastwayError as error:
            self._finish(cause_of(error))

    def _closed(self, reason: FastwayError | None) -> None:
        """No more messages will come."""
        if isinstance(reason, ConnectionEnded) and reason.cause is not None:
            self._finish(cause_of(reason))
        elif self._over:
            self._finish("")
        elif self._may_close:
            say("closed by the server")
            self._finish("")
        else:
            self._finish("closed by the server")

    def _print(self, message: bytes) -> None:
        if self._options["hex"]:
            message = message.hex().encode()
        elif self._options["json"]:
            message = json.dumps(json.loads(message), ensure_ascii=False).encode()
        cast(Any, self._lines.transport).write(message + b"\n")

    def _input_over(self, problem: str) -> None:
        if problem:
            self._finish(problem)
        self._over = True
        self._rest()

    def _rest(self) -> None:
        """Begin to wait for the silence in which it may end."""
        if self._quiet is not None and self._quiet.active():
            self._quiet.cancel()
        if self._over:
            self._quiet = self._reactor.callLater(QUIET, self._silence)

    def _silence(self) -> None:
        if self._blocked:
            self._rest()
        else:
            self._finish("")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the ordered values lie, the nearest one."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def send_pings(reactor: Any, options: PingOptions) -> int:
    """`fastway ping`."""
    count, interval = options["count"], options["interval"]
    endpoint = await reach(reactor, options["gateway"], EndpointConfig(ping_interval=0))
    trips: list[float] = []

    def summary() -> None:
        if not trips:
            return
        ordered = sorted(trips)
        figures = [
            ("min", ordered[0]),
            ("avg", sum(ordered) / len(ordered)),
            ("p50", percentile(ordered, 50)),
            ("p90", percentile(ordered, 90)),
            ("p99", percentile(ordered, 99)),
            ("max", ordered[-1]),
        ]
        text = ", ".join(f"{name} {seconds * 1000:.3f} ms" for name, seconds in figures)
        print(f"{len(trips)} pings of {options['gateway']}: {text}", flush=True)

    reactor.addSystemEventTrigger("before", "shutdown", summary)
    try:
        while not count or len(trips) < count:
            seconds = await endpoint.ping()
            trips.append(seconds)
            print(f"ping {len(trips)}: {seconds * 1000:.3f} ms", flush=True)
            if not count or len(trips) < count:
                await deferLater(reactor, interval, lambda: None)
    finally:
        closing = endpoint.close()
    await closing  # TLS says goodbye
    return 0


async def echo_one(conn: VirtualConnection[Any]) -> None:
    """Send every message of a connection back, no faster than it is taken."""
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionEnded:
        pass
    except FastwayError:
        conn.close()


class Logins:
    """Says what becomes of a pool's gateways: each time that one is up, and each problem once.

    Attributes:
        ever: It was logged in to one of them.
    """

    def __init__(self, pool: GatewayPool) -> None:
        self.ever = False
        self._pool = pool
        self._up: set[str] = set()
        self._said: dict[str, str] = {}

    async def watch(self) -> None:
        """Until the pool is stopped."""
        with suppress(EndpointEnded):
            while True:
                self.look()
                await self._pool.when_changed()

    def look(self) -> None:
        """Say what has changed since the last time."""
        up = set(self._pool.up)
        for name in sorted(up - self._up):
            say(f"server {self._pool.server_id} echoes over {name}")
        for name in sorted(self._up - up if self._pool.running else ()):
            say(f"{name} is gone; it is tried again until Ctrl-C")
        self.ever = self.ever or bool(up)
        self._up = up
        for name in up:
            self._said.pop(name, None)
        for name, error in self._pool.problems.items():
            problem = cause_of(error)
            if self._said.get(name) != problem:
                self._said[name] = problem
                say(f"{name}: {problem}; it is tried again until Ctrl-C")


async def echo(reactor: Any, options: EchoOptions) -> int:
    """`fastway serve-echo`: until a signal ends it."""
    key = options["key"] or os.environ.get("FASTWAY_SERVER_AUTH_PASSWORD", "")
    gateways = {name: gateway_endpoint(reactor, "--gateway", name) for name in options["gateway"]}
    pool = GatewayPool(gateways, options["id"], os.fsencode(key), clock=reactor)
    logins = Logins(pool)
    pool.startService()
    ensureDeferred(logins.watch())
    reactor.addSystemEventTrigger("before", "shutdown", pool.stopService)
    with suppress(CancelledError):
        async for conn in pool:
            ensureDeferred(echo_one(conn))
    return 0 if logins.ever else 1


def run_tool(title: str, tool: Callable[[Any], Coroutine[Any, Any, int]], level: str) -> int:
    """Run the reactor while a tool runs; returns its exit status.

    Args:
        level: The least level of log lines that go to standard error.
    """
    from twisted.internet import reactor

    from fastway.logs import threshold
    from fastway.ops import logs

    threshold.set(level)
    logs.begin(logs.console("text"))
    status = 1
    stopping = False
    running: Deferred[int] | None = None

    def over(result: Any) -> None:
        nonlocal status
        if not isinstance(result, Failure):
            status = result
        elif stopping:
            status = 0  # a signal ends it: that is an orderly end
        else:
            say(f"{title}: {cause_of(cast(BaseException, result.value))}")
        if not stopping:
            reactor.stop()

    def start() -> None:
        nonlocal running
        running = ensureDeferred(tool(reactor))
        running.addBoth(over)

    def stop() -> Deferred[Any] | None:
        nonlocal stopping
        stopping = True
        if running is None or running.called:
            return None
        running.cancel()
        return running  # a tool may have something to finish

    stops(reactor)
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    return status


def client(options: ClientOptions) -> int:
    return run_tool(options.title, lambda reactor: LineClient(reactor, options).run(), "warn")


def play(options: ClientOptions) -> int:
    """The same for people: that the server closes the connection, after /quit, is as asked."""
    return run_tool(
        options.title, lambda reactor: LineClient(reactor, options, True).run(), "warn"
    )


def ping(options: PingOptions) -> int:
    return run_tool(options.title, lambda reactor: send_pings(reactor, options), "warn")


def serve_echo(options: EchoOptions) -> int:
    # What the pool warns of, attempt by attempt, `Logins` says once.
    return run_tool(options.title, lambda reactor: echo(reactor, options), "error")
