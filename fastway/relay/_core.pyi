"""What _core.c gives: a relay, of which a link is a handle, a number (relay.h), and a thread for
TLS handshakes (shake.h)."""

from collections.abc import Callable, Coroutine
from typing import Any

PACKETS: int
BYTES: int
FIN: int
GONE: int
BROKEN: int
IDLE: int
STUCK: int
OVER: int
TAKEN: int
NO_MEMORY: int
MISFRAMED: int
PLAIN: int
WEBSOCKET: int
ABORT: int
CLOSE: int
HALF: int
ATOM: int
CHAN: int
SYNC: int
TICK: float
WANTS: int
DONE: int
FAILED: int
SOURCES: str
"""Of which it was built (sources.py)."""
CHOICE: int
"""The address of a function for SSL_set_cert_cb."""

Event = tuple[int, Any, Any]
"""kind, owner, payload; the payload of PACKETS is [(conn_id, bytes, count)], of BYTES bytes, of
all others a number, see relay.h."""

def frames(kind: type[tuple[Any, ...]], /) -> dict[str, Callable[..., Any]]:
    """What `fastway.dialect` has in C of frames, by its names there; messages are of that type."""

def is_plain_json(data: bytes, html: bool, /) -> bool: ...
def is_shallow_json(data: bytes, /) -> bool:
    """Both as `fastway.formats` has them."""

def first_step(
    coroutine: Coroutine[Any, Any, Any], context: Any, begun: Callable[..., Any], /
) -> Any:
    """As `fastway.app.handling` has it."""

class Core:
    def __new__(
        cls,
        *,
        pool_type: int,
        factor: int,
        min_chunk: int,
        max_chunk: int,
        page_size: int,
        limit: int,
        commands_each: int,
        commands_turn: int,
        events_turn: int,
        openings_turn: int,
        share_least: int,
        share_most: int,
        shares: int,
        turn_seconds: float,
    ) -> Core: ...
    def run(self, now: float, /) -> list[Event] | None: ...
    def go_on(self, now: float, /) -> None: ...
    def sweep(self, now: float, /) -> list[Event] | None:
        """None: there is no link and no memory to give back, it need not be called until there
        is a link again. A list, perhaps empty, otherwise."""
    def fileno(self) -> int: ...
    def limit(self, bytes: int, /) -> None: ...
    def port(
        self,
        *,
        max_packet: int,
        read_size: int,
        idle_timeout: float,
        queue_packets: int,
        queue_bytes: int,
        write_timeout: float,
        holds: bool,
        frame_limit: int,
        answers: bool = False,
    ) -> int: ...
    def rate(self, port: int, packets: float, bytes: float, /) -> None: ...
    def take(self, listening: int, most: int, /) -> tuple[int, bytes, str, int] | int: ...
    def refuse(self, fd: int, /) -> None: ...
    def adopt(self, fd: int, port: int, now: float, /) -> int: ...
    def own(self, handle: int, owner: object, /) -> None: ...
    def release(self, handle: int, /) -> None: ...
    def direct(self, handle: int, conn_id: int, /) -> None: ...
    def start(self, handle: int, data: bytes, framing: int, now: float, /) -> None: ...
    def library(
        self,
        ssl_read: int,
        ssl_write: int,
        ssl_get_error: int,
        ssl_shutdown: int,
        ssl_do_handshake: int,
        bio_read: int,
        bio_write: int,
        bio_get_mem_data: int,
        bio_new: int,
        bio_s_mem: int,
        ssl_set_bio: int,
        err_get_error: int,
        err_clear_error: int,
        /,
    ) -> None:
        """The addresses of OpenSSL's functions of these names."""
    def tls(self, handle: int, ssl: int, into_bio: int, from_bio: int, data: bytes, /) -> bool: ...
    def tls_errors(self, handle: int, /) -> list[int]: ...
    def pair(self, conn_id: int, one: int, other: int, /) -> bool: ...
    def unpair(self, conn_id: int, /) -> None: ...
    def send(self, handle: int, data: bytes, packets: int, /) -> bool: ...
    def send_each(self, handles: list[int], data: bytes, /) -> int: ...
    def waiting(self, handle: int, /) -> int: ...
    def multicast(self, handle: int, conn_ids: bytes, message: bytes, /) -> bytes:
        """The ids are arrays of native 32 bit numbers; returns those over which it did not go."""
    def over(self, handle: int, /) -> bool: ...
    def saturated(self, handle: int, /) -> bool: ...
    def defer(self, handle: int, /) -> None: ...
    def handled(self, handle: int, /) -> None: ...
    def pause(self, handle: int, /) -> None: ...
    def resume(self, handle: int, now: float, /) -> None: ...
    def added(self, handle: int, /) -> int: ...
    def taken(self, handle: int, /) -> int: ...
    def tell_taken(self, handle: int, position: int, /) -> None: ...
    def farewell(self, handle: int, code: int, text: str, /) -> None: ...
    def close(self, handle: int, how: int, /) -> None: ...
    def counts(self, handle: int, /) -> tuple[int, int, int, int, int, int, int, bool, int]:
        """packets_in, bytes_in, packets_out, bytes_out, waiting_packets, waiting_bytes,
        input_bytes, held."""
    def socket(self, handle: int, /) -> int: ...
    def totals(self) -> tuple[int, int, int, int, int, int, int, int, int, int, int]:
        """packets, bytes, pings, holds, links, pairs, waiting_packets, waiting_bytes,
        input_bytes, held, shed."""
    def pool(self) -> tuple[int, int, int, list[tuple[int, int, int, int]]]:
        """used_bytes, plain, failed, [(size, pages, used, free)]."""

class Shaker:
    def __new__(cls, *functions: int) -> Shaker:
        """The addresses of OpenSSL's functions, as for `Core.library`."""
    def fileno(self) -> int: ...
    def give(
        self, owner: object, ssl: int, into_bio: int, from_bio: int, data: bytes, /
    ) -> bool: ...
    def take(self) -> tuple[Any, int, int, bytes, list[int]] | None:
        """owner, WANTS or DONE or FAILED, bytes used, bytes to send, OpenSSL's codes."""
    def drop(self, owner: object, /) -> bool: ...
    def stop(self) -> None: ...
