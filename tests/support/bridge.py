"""A proxy that others wrote half of: the server of `websockets`, and plain TCP behind it.

Rule: it knows no packets; all its threads are gone when it has stopped.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.waits import SECONDS


class Bridge:
    """Takes WebSockets on 127.0.0.1 and connects each to a port of this machine.

    Args:
        target: The port's number.

    Attributes:
        port: Its own.
        paths: What was asked for.
        said: Codes and texts of the Closes that came.
    """

    def __init__(self, target: int) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.said: list[tuple[int, str]] = []
        self._target = target
        self._connections: set[ServerConnection] = set()
        self._sending = threading.Lock()
        """Held while a message is sent: a close amid its fragments has another code."""
        self._server: Server = serve(
            self._serve,
            "127.0.0.1",
            0,
            subprotocols=["fastway"],  # type: ignore[list-item]
            max_size=None,
            close_timeout=2,
            ping_interval=None,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/game?token=x"

    def close(self, code: int, text: str = "") -> None:
        """Close all connections, with that code."""
        with self._sending:
            for one in list(self._connections):
                one.close(code, text)

    def ping(self) -> bool:
        """All connections answer a Ping of WebSocket."""
        return all(one.ping().wait(SECONDS) for one in list(self._connections))

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(SECONDS)
        for one in list(self._connections):
            one.socket.close()

    def _serve(self, comer: ServerConnection) -> None:
        assert comer.request is not None
        self.paths.append(comer.request.path)
        self.headers.append(dict(comer.request.headers.raw_items()))
        with socket.create_connection(("127.0.0.1", self._target), SECONDS) as inner:
            inner.settimeout(None)
            self._connections.add(comer)
            back = threading.Thread(target=self._back, args=(comer, inner))
            back.start()
            try:
                for message in comer:
                    assert isinstance(message, bytes)
                    inner.sendall(message)
            except (OSError, ConnectionClosed):
                pass
            finally:
                self._connections.discard(comer)
                with suppress(OSError):
                    inner.shutdown(socket.SHUT_RDWR)
                back.join(SECONDS)
                if comer.protocol.close_rcvd is not None:
                    said = comer.protocol.close_rcvd
                    self.said.append((said.code, said.reason))

    def _back(self, comer: ServerConnection, inner: socket.socket) -> None:
        with suppress(OSError, ConnectionClosed):
            while data := inner.recv(65536):
                # In fragments, as a proxy may cut what it passes on.
                with self._sending:
                    comer.send([data[:10], data[10:]])
        comer.close(1001, "the one behind is gone")
