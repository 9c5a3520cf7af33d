"""Connecting to a gateway with asyncio: TCP, TLS, a unix socket, a WebSocket, snet over any.

Rule: what fails here says why in one line: `GatewayUnreachable` before there is a connection,
`LoginFailed` when the gateway does not take the server's key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from fastway.aio.connection import GatewayConnection
from fastway.aio.loop import AioLoop
from fastway.causes import cause_of
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.core import EndpointCore
from fastway.errors import GatewayUnreachable, NoWebSocket, StreamLost, WebSocketClosed
from fastway.snet.config import SnetConfig
from fastway.websocket.client import ClientMachine, Url, WebSocket, host_header, is_url

CONNECT_TIMEOUT = 30.0
"""Seconds for a connection, TLS included."""

PIECE = 16 * 1024
"""Bytes that are handed to the transport at once, without waiting for the end of the turn."""

Factory = Callable[[], asyncio.Protocol]


@dataclass(frozen=True)
class Gateway:
    """Where a gateway's port is, and how to connect to it.

    Attributes:
        host: Its name or address.
        port: Its number.
        path: Of a unix socket, in place of host and port.
        tls: True: TLS that the system's trust verifies; or a context of one's own.
        server_name: The name that the certificate must have, if it is not `host`.
        snet: The port speaks snet.
        websocket: The port speaks WebSocket; what it is asked for.
        timeout: Seconds for a connection.
    """

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    tls: bool | ssl.SSLContext = False
    server_name: str | None = None
    snet: SnetConfig | None = None
    timeout: float = CONNECT_TIMEOUT
    websocket: WebSocket | None = None

    def __post_init__(self) -> None:
        if not self.path and not 1 <= self.port <= 65535:
            raise ValueError(f"a port is 1 to 65535, not {self.port}")
        if self.websocket is not None:
            self._host_header()

    @classmethod
    def parse(cls, text: str) -> Gateway:
        """`host:port`, `tcp://host:port`, `tls://host:port`, `unix:/path`, and over snet
        `snet://host:port`, `snet+tls://host:port` or `snet+unix:/path`. By WebSocket
        `ws://host:port/path` or `wss://host/path`; `snet+` may stand before them too. An IPv6
        address is in brackets: `[::1]:9010`.

        Raises:
            ValueError: it is none of these.
        """
        web = text.removeprefix("snet+")
        if is_url(web):
            url = Url.parse(web)
            return cls(
                url.host,
                url.port,
                tls=url.secure,
                snet=None if web == text else SnetConfig(),
                websocket=WebSocket(url.path),
            )
        path = _PATH.fullmatch(text)
        if path is not None:
            return cls(path=path[2], snet=SnetConfig() if path[1] else None)
        parts = _HOST.fullmatch(text)
        if parts is None or not 1 <= int(parts["port"]) <= 65535:
            raise ValueError(
                f"{text!r} is not host:port, nor that behind tcp://, tls://, snet:// or "
                "snet+tls://, nor ws://host:port/path, wss://host/path or unix:/path"
            )
        host = parts["host"]
        if host.startswith("["):
            host = host[1:-1]
            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise ValueError(f"{text!r}: {host} is no IPv6 address") from None
        layers = parts["layers"] or ""
        snet = SnetConfig() if "snet" in layers else None
        return cls(host, int(parts["port"]), tls="tls" in layers, snet=snet)

    def __str__(self) -> str:
        if self.websocket is not None:
            return self._web_text()
        layers = [name for name, there in (("snet", self.snet), ("tls", self.tls)) if there]
        if self.path:
            return f"{'+'.join([*layers, 'unix'])}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'+'.join(layers) or 'tcp'}://{host}:{self.port}"

    def _web_text(self) -> str:
        # Not the query: it may be a token's place.
        path, query, _ = self.websocket.path.partition("?")  # type: ignore[union-attr]
        snet = "snet+" if self.snet else ""
        scheme = "wss" if self.tls else "ws"
        if self.path:
            return f"{snet}{scheme}+unix:{self.path}"
        return f"{snet}{scheme}://{self._host_header()}{path}{query and '?...'}"

    def _host_header(self) -> str:
        if self.path:
            return "localhost"
        return host_header(self.host, self.port, bool(self.tls))

    async def open(self, factory: Factory) -> asyncio.Protocol:
        """Connect one connection of the network, without snet.

        Raises:
            GatewayUnreachable: there is none.
        """
        loop = asyncio.get_running_loop()
        # Not `wait_for`: until Python 3.12 it takes a cancellation for nothing when the result
        # has just come.
        connecting = loop.create_task(self._open(loop, factory))
        connecting.add_done_callback(_look_at)
        late = False

        def give_up() -> None:
            nonlocal late
            late = connecting.cancel()

        timer = loop.call_later(self.timeout, give_up)
        try:
            return await connecting
        except asyncio.CancelledError:
            connecting.cancel()
            task: Any = asyncio.current_task()
            if not late or (hasattr(task, "cancelling") and task.cancelling()):
                raise
        except NoWebSocket as error:
            raise GatewayUnreachable(str(self), cause_of(error), error) from error
        except (OSError, UnicodeError) as error:  # no host name at all is a UnicodeError
            raise GatewayUnreachable(str(self), cause_of(error), error) from error
        finally:
            timer.cancel()
        raise GatewayUnreachable(
            str(self), f"no connection within {self.timeout:g} s", TimeoutError()
        )

    async def _open(self, loop: asyncio.AbstractEventLoop, factory: Factory) -> asyncio.Protocol:
        if self.websocket is None:
            return await self._open_below(loop, factory)
        from fastway.aio.websocket import Stream

        machine = ClientMachine(self.websocket, self._host_header())
        stream = Stream(machine, factory, loop)
        try:
            await self._open_below(loop, lambda: stream)
            return await stream.opened
        except BaseException:
            stream.abort()
            raise

    async def _open_below(
        self, loop: asyncio.AbstractEventLoop, factory: Factory
    ) -> asyncio.Protocol:
        context = ssl.create_default_context() if self.tls is True else self.tls or None
        name = (self.server_name or self.host) if context is not None else None
        if self.path:
            _, protocol = await loop.create_unix_connection(
                factory, self.path, ssl=context, server_hostname=name
            )
        else:
            _, protocol = await loop.create_connection(
                factory, self.host, self.port, ssl=context, server_hostname=name
            )
        return protocol


_PATH = re.compile(r"(snet\+)?unix:(/[^\0]*)", re.S)
_HOST = re.compile(
    r"((?P<layers>tcp|tls|snet|snet\+tcp|snet\+tls|tls\+snet)://)?"
    r"(?P<host>\[[^\s\[\]]+\]|[^\s\0-\x20\x7f\[\]:/?#@\\]+):(?P<port>[0-9]{1,5})"
)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited may have been cancelled in this very turn


class Wire(asyncio.Protocol):
    """One connection to a gateway, as asyncio knows it, and as a link writes to it.

    asyncio's transports make a call to the kernel for each write. Here the first one after a read
    goes out at once, and what follows in the same turn of the loop goes out as one.

    Attributes:
        gateway: What the application has of it.
        transport: asyncio's, or an snet stream.
    """

    resumable = False

    def __init__(self, gateway: GatewayConnection) -> None:
        self.gateway = gateway
        self.transport: Any = None
        self._link = gateway.link
        self._loop = cast(AioLoop, gateway.link.loop).loop
        self._parts: list[bytes] = []
        self._size = 0
        self._first = True
        """The next write is the first after a read."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.resumable = hasattr(transport, "resume_now")
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        self._first = not self._parts
        self._link.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._parts.clear()
        dropped = exc is None or isinstance(exc, (ConnectionError, StreamLost, WebSocketClosed))
        self._link.lost(exc, dropped)

    def pause_writing(self) -> None:
        self._link.full_now()

    def resume_writing(self) -> None:
        self._link.drained()

    # What snet calls.

    def stream_cut(self) -> None:
        self._link.network_cut()

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        self._link.network_resumed(seconds, replayed)

    # What the link calls.

    def write(self, data: bytes) -> None:
        if self._first:
            self._first = False
            self.transport.write(data)
            return
        parts = self._parts
        parts.append(data)
        self._size += len(data)
        if self._size >= PIECE:  # a task that never waits must meet the transport's bound
            self._flush()
        elif len(parts) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size = 0
            self.transport.write(data)

    @property
    def below(self) -> Any:
        return self.transport

    @property
    def address(self) -> Any:
        return self.transport.get_extra_info("peername")

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def close(self) -> None:
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self.transport.abort()

    def resume_now(self) -> None:
        self.transport.resume_now()


R = TypeVar("R", bound=Any)


class Connecting(Generic[R]):
    """A connection to come: `await` it, or enter it with `async with`, which closes it."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._connect = connect
        self._result: Any = None

    def __await__(self) -> Generator[Any, None, R]:
        return self._connect().__await__()

    async def __aenter__(self) -> R:
        self._result = await self
        return cast(R, self._result)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._result.__aexit__(kind, error, traceback)


def connect_client(
    gateway: Gateway | str,
    config: EndpointConfig | None = None,
    *,
    made: Callable[[GatewayConnection], None] | None = None,
) -> Connecting[GatewayConnection]:
    """Connect to a gateway's client port.

    Args:
        gateway: Where, as `Gateway` or as text that `Gateway.parse` reads.
        made: Called with the connection before anything happens on it.

    Awaiting it raises GatewayUnreachable.
    """
    return Connecting(lambda: connect(gateway, None, b"", config, made))


def connect_server(
    gateway: Gateway | str,
    server_id: int,
    key: bytes | str = b"",
    config: EndpointConfig | None = None,
    *,
    made: Callable[[GatewayConnection], None] | None = None,
) -> Connecting[GatewayConnection]:
    """Connect to a gateway's server port and log in.

    Args:
        made: Called with the connection before anything happens on it.

    Awaiting it raises GatewayUnreachable, or LoginFailed when the gateway did not take the login.
    """
    return Connecting(lambda: connect(gateway, server_id, key, config, made))


async def connect(
    gateway: Gateway | str,
    server_id: int | None,
    key: bytes | str,
    config: EndpointConfig | None,
    made: Callable[[GatewayConnection], None] | None,
) -> GatewayConnection:
    """As `connect_client` where `server_id` is None, and as `connect_server`; a coroutine."""
    where = checked_gateway(gateway)
    config = EndpointConfig() if config is None else config
    loop = asyncio.get_running_loop()
    core = EndpointCore(config.max_packet, server_id, key)
    connection = GatewayConnection(core, config, loop)
    if made is not None:
        made(connection)
    wire = Wire(connection)
    link = connection.link
    try:
        if where.snet is None:
            await where.open(lambda: wire)
        else:
            from fastway.aio.snet import open_stream

            await open_stream(where, where.snet, wire)
        if link.ended is not None:
            raise link.ended
        if not link.up:
            await link.risers.wait()
    except BaseException:
        link.shut()  # should it be connected all the same
        raise
    return connection


def checked_gateway(gateway: Gateway | str) -> Gateway:
    """What may be opened, of a `Gateway`, what stands for one, or its text.

    Raises:
        TypeError, ValueError: it is none of them.
    """
    if isinstance(gateway, str):
        return Gateway.parse(gateway)
    if not hasattr(gateway, "open"):
        raise TypeError(f"a gateway is a Gateway or its text, not {gateway!r}")
    return gateway
