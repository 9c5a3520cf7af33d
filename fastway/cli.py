"""Tools on the endpoint library: `fastway client`, `fastway ping`, `fastway serve-echo`.

Rule: answers go to standard output, everything else to standard error; the exit status is 0 when
it went as asked and 1 when it did not, with one line that says why.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError
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
from twisted.python.usage import UsageError
from zope.interface import implementer

from fastway.address import install_hint
from fastway.endpoint import (
    EndpointConfig,
    GatewayPool,
    Overflow,
    VirtualConnection,
    connect_client,
)
from fastway.errors import ConnectionEnded, FastwayError
from fastway.options import CommandOptions, parse_duration

CLIENT_ADDR = "127.0.0.1:9010"
SERVER_ADDR = "127.0.0.1:9020"

QUIET = 1.0
"""Seconds without an answer after which the end of the input ends `fastway client`."""

MAX_LINE = 512 * 1024

GATEWAY_ROW = [
    "gateway",
    "g",
    CLIENT_ADDR,
    "the gateway's client port: host:port or an endpoint string",
]


def gateway_endpoint(reactor: Any, option: str, text: str) -> IStreamClientEndpoint:
    """The client endpoint of a gateway: `host:port` or a Twisted endpoint string.

    Raises:
        UsageError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and int(port) <= 65535 and (":" not in host or host[:1] == "["):
        host = (host.strip("[]") or "127.0.0.1").replace(":", r"\:")
        text = f"tcp:{host}:{port}"
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, text))
    except Exception as error:  # each endpoint parser raises what it likes
        problem = " ".join(str(error).split())
        if isinstance(error, ImportError):
            raise UsageError(f"--{option}: {text!r}: {problem}; {install_hint(text)}") from None
        raise UsageError(
            f"--{option}: {text!r} is neither host:port nor an endpoint string: {problem}"
        ) from None


def _id(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 0xFFFFFFFF:
        raise UsageError(f"--{option}: {text!r} is not an id: it is 0 to 4294967295")
    return int(text)


def _seconds(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None


class ClientOptions(CommandOptions):
    synopsis = "[--gateway host:port] [--dial ID] [--hex | --json]"
    longdesc = (
        "Dials a game server through a gateway. Each line typed is a message; each message that "
        "comes is a line. At the end of the input it waits until nothing came for a second."
    )
    optParameters: ClassVar[list[list[Any]]] = [
        GATEWAY_ROW,
        ["dial", "d", "1", "the server id to dial"],
        ["timeout", "t", "10s", "how long the dial may take"],
    ]
    optFlags: ClassVar[list[list[Any]]] = [
        ["hex", None, "lines are hexadecimal bytes, both ways"],
        ["json", None, "lines are JSON: what is typed is checked, what comes is one line each"],
    ]


class PingOptions(CommandOptions):
    synopsis = "[--gateway host:port] [--count N] [--interval SECONDS]"
    longdesc = "Measures round trips to a gateway; Ctrl-C ends it with a summary."
    optParameters: ClassVar[list[list[Any]]] = [
        GATEWAY_ROW,
        ["count", "c", "0", "how many; 0 = until Ctrl-C"],
        ["interval", "i", "1s", "between one and the next"],
    ]


class EchoOptions(CommandOptions):
    synopsis = "[--gateway host:port]... [--id ID] [--key KEY]"
    longdesc = "A game server that sends every message back, over one or several gateways."
    optParameters: ClassVar[list[list[Any]]] = [
        ["id", None, "1", "the server id"],
        ["key", "k", None, "the server key; better in FASTWAY_SERVER_AUTH_PASSWORD"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.gateways: list[str] = []

    def opt_gateway(self, text: str) -> None:
        """a gateway's server port: host:port or an endpoint string; may be given several times"""
        self.gateways.append(text)

    opt_g = opt_gateway


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


class LineClient:
    """`fastway client` between standard input and one virtual connection."""

    def __init__(self, reactor: Any, options: ClientOptions) -> None:
        self._reactor = reactor
        self._options = options
        self._done: Deferred[str] = Deferred()
        self._quiet: Any = None
        self._over = False
        self._blocked = False
        self._typed = 0
        self._lines = Lines(self._line, self._input_over)
        self._conn: VirtualConnection | None = None

    async def run(self) -> int:
        options = self._options
        gateway = gateway_endpoint(self._reactor, "gateway", options["gateway"])
        remote_id = _id("dial", options["dial"])
        timeout = _seconds("timeout", options["timeout"])
        config = EndpointConfig(overflow=Overflow.PAUSE)
        endpoint = await connect_client(gateway, config, self._reactor)
        try:
            conn = self._conn = await endpoint.dial(remote_id, timeout)
            print(
                f"connected to {options['gateway']}, dialled server {remote_id}", file=sys.stderr
            )
            StandardIO(self._lines, reactor=self._reactor)
            printing = ensureDeferred(self._print_messages(conn))
            problem = await self._done
            printing.cancel()
            await self._lines.finish()
        finally:
            endpoint.close()
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
            self._finish(str(error))
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

    async def _print_messages(self, conn: VirtualConnection) -> None:
        try:
            async for message in conn:
                self._print(message)
                # A reader that takes its time is no silence of the server.
                self._blocked = True
                await self._lines.room.wait()
                self._blocked = False
                self._rest()
            self._finish("" if self._over else "closed by the server")
        except CancelledError:
            pass
        except (FastwayError, ValueError) as error:
            self._finish(str(error))

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


class ToolError(Exception):
    """A tool cannot go on. The text is one line."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the ordered values lie, the nearest one."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def ping(reactor: Any, options: PingOptions) -> int:
    """`fastway ping`."""
    gateway = gateway_endpoint(reactor, "gateway", options["gateway"])
    if not options["count"].isdecimal():
        raise UsageError(f"--count: {options['count']!r} is not a number")
    count = int(options["count"])
    interval = _seconds("interval", options["interval"])
    endpoint = await connect_client(gateway, EndpointConfig(ping_interval=0), reactor)
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
        endpoint.close()
    return 0


async def echo_one(conn: VirtualConnection) -> None:
    """Send every message of a connection back, no faster than it is taken."""
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionEnded:
        pass
    except FastwayError:
        conn.close()


async def serve_echo(reactor: Any, options: EchoOptions) -> int:
    """`fastway serve-echo`: until a signal ends it."""
    key = options["key"]
    if key is None:
        key = os.environ.get("FASTWAY_SERVER_AUTH_PASSWORD", "")
    names = options.gateways or [SERVER_ADDR]
    gateways = {name: gateway_endpoint(reactor, "gateway", name) for name in names}
    pool = GatewayPool(gateways, _id("id", options["id"]), os.fsencode(key), clock=reactor)
    pool.startService()
    reactor.addSystemEventTrigger("before", "shutdown", pool.stopService)
    print(f"server {pool.server_id} echoes over {', '.join(names)}", file=sys.stderr)
    async for conn in pool:
        ensureDeferred(echo_one(conn))
    return 0


def run_tool(
    name: str,
    options: CommandOptions,
    arguments: Sequence[str],
    tool: Callable[[Any], Coroutine[Any, Any, int]],
) -> int:
    """Parse, run the reactor while the tool runs, and return its exit status."""
    from twisted.internet import reactor

    from fastway import logs

    def problem(text: str) -> int:
        print(f"{name}: {text}", file=sys.stderr)
        return 1

    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        return problem(str(error))
    logs.threshold.set("warn")
    logs.begin(logs.console("text"))
    status = 1
    stopping = False
    running: Deferred[int] | None = None

    def over(result: Any) -> None:
        nonlocal status
        if stopping:
            return
        if not isinstance(result, Failure):
            status = result
        elif result.check(FastwayError, ToolError, UsageError):
            status = problem(result.getErrorMessage())
        elif result.check(ConnectError):
            text = result.getErrorMessage().rstrip(".")
            status = problem(f"cannot reach the gateway: {text}; is one there?")
        else:
            status = problem(f"{type(result.value).__name__}: {result.getErrorMessage()}")
        reactor.stop()

    def start() -> None:
        nonlocal running
        running = ensureDeferred(tool(reactor))
        running.addBoth(over)

    def stop() -> None:
        """A signal ends it: that is an orderly end."""
        nonlocal status, stopping
        if running is not None and not running.called:
            status = 0
            stopping = True
            running.cancel()

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    return status


def client(arguments: Sequence[str], name: str = "fastway client") -> int:
    options = ClientOptions()
    return run_tool(name, options, arguments, lambda reactor: LineClient(reactor, options).run())


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the tool called `name`; returns the exit status."""
    if name == "ping":
        ping_options = PingOptions()
        return run_tool(
            "fastway ping", ping_options, arguments, lambda reactor: ping(reactor, ping_options)
        )
    if name == "serve-echo":
        echo_options = EchoOptions()
        return run_tool(
            "fastway serve-echo",
            echo_options,
            arguments,
            lambda reactor: serve_echo(reactor, echo_options),
        )
    return client(arguments, f"fastway {name}")
