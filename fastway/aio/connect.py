"""Connecting to a gateway with asyncio: TCP, TLS, a unix socket, snet over any of them.

Rule: what fails here says why in one line: `GatewayUnreachable` before there is a connection,
`LoginFailed` when the gateway does not take the server's key.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from fastway.aio.connection import GatewayConnection
from fastway.causes import cause_of
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.core import EndpointCore
from fastway.errors import GatewayUnreachable
from fastway.snet.config import SnetConfig

CONNECT_TIMEOUT = 30.0
"""Seconds for a connection, TLS included."""

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
        timeout: Seconds for a connection.
    """

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    tls: bool | ssl.SSLContext = False
    server_name: str | None = None
    snet: SnetConfig | None = None
    timeout: float = CONNECT_TIMEOUT

    @classmethod
    def parse(cls, text: str) -> Gateway:
        """`host:port`, `tcp://host:port`, `tls://host:port`, `snet://host:port`,
        `snet+tls://host:port` or `unix:/path`.

        Raises:
            ValueError: it is none of these.
        """
        parts = urlsplit(text if "://" in text or text.startswith("unix:") else f"tcp://{text}")
        if parts.scheme == "unix":
            if not parts.path or parts.netloc:
                raise ValueError(f"{text!r} is not unix:/path")
            return cls(path=parts.path)
        layers = parts.scheme.split("+")
        if not set(layers) <= {"tcp", "tls", "snet"} or parts.path or parts.query:
            raise ValueError(f"{text!r} is not host:port, tls://host:port or snet://host:port")
        try:
            port = parts.port
        except ValueError:
            port = None
        if not port or not parts.hostname:
            raise ValueError(f"{text!r} has no host and port")
        snet = SnetConfig() if "snet" in layers else None
        return cls(parts.hostname, port, tls="tls" in layers, snet=snet)

    def __str__(self) -> str:
        layers = [name for name, there in (("snet", self.snet), ("tls", self.tls)) if there]
        where = self.path or f"{self.host}:{self.port}"
        return f"{'+'.join(layers) or ('unix' if self.path else 'tcp')}:{where}"

    async def open(self, factory: Factory) -> asyncio.Protocol:
        """Connect one connection of the network, without snet.

        Raises:
            GatewayUnreachable: there is none.
        """
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self.tls is True else self.tls or None
        name = (self.server_name or self.host) if context is not None else None
        connecting: Coroutine[Any, Any, tuple[Any, asyncio.Protocol]]
        if self.path:
            connecting = loop.create_unix_connection(
                factory, self.path, ssl=context, server_hostname=name
            )
        else:
            connecting = loop.create_connection(
                factory, self.host, self.port, ssl=context, server_hostname=name
            )
        try:
            _, protocol = await asyncio.wait_for(connecting, self.timeout)
        except asyncio.TimeoutError as error:
            raise GatewayUnreachable(
                str(self), f"no connection within {self.timeout:g} s", error
            ) from None
        except OSError as error:
            raise GatewayUnreachable(str(self), cause_of(error), error) from error
        return protocol


class Wire(asyncio.Protocol):
    """One connection to a gateway, as asyncio knows it, and as a link writes to it.

    Attributes:
        gateway: What the application has of it.
    """

    resumable = False

    def __init__(self, gateway: GatewayConnection) -> None:
        self.gateway = gateway
        self.write: Callable[[bytes], object] = bytes  # the transport's own, once there is one
        self._link = gateway.link
        self._transport: Any = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.write = cast(asyncio.Transport, transport).write
        self.resumable = hasattr(transport, "resume_now")
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        self._link.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        dropped = exc is None or isinstance(exc, ConnectionError)
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

    @property
    def below(self) -> Any:
        return self._transport

    @property
    def address(self) -> Any:
        return self._transport.get_extra_info("peername")

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def resume_now(self) -> None:
        self._transport.resume_now()


R = TypeVar("R", bound=Any)


class Connecting(Generic[R]):
    """A connection to come: `await` it, or enter it with `async with`, which closes it."""

    def __init__(self, connect: Coroutine[Any, Any, R]) -> None:
        self._connect = connect
        self._result: Any = None

    def __await__(self) -> Generator[Any, None, R]:
        return self._connect.__await__()

    async def __aenter__(self) -> R:
        self._result = await self._connect
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
    return Connecting(_connect(gateway, None, b"", config, made))


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
    secret = key.encode("utf-8") if isinstance(key, str) else key
    return Connecting(_connect(gateway, server_id, secret, config, made))


async def _connect(
    gateway: Gateway | str,
    server_id: int | None,
    key: bytes,
    config: EndpointConfig | None,
    made: Callable[[GatewayConnection], None] | None,
) -> GatewayConnection:
    where = Gateway.parse(gateway) if isinstance(gateway, str) else gateway
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
