"""The table of spec sections 3 and 4, as rows that every kind of gateway test runs.

Rule: a row says only what ends send and what they get, in golden bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from fastway.errors import Reason
from tests.support.golden import (
    FIRST,
    MAX_PACKET,
    PING,
    accept,
    close,
    command,
    connect,
    dial,
    packet,
    refuse,
)
from tests.support.paths import TestClass


class Act(Enum):
    """What an end can do besides sending bytes."""

    LOG_IN = "connect to the server port and prove the key, with id 1"
    FAIL = "connect to the server port and prove a wrong key, with id 1"
    FIN = "close the sending half"
    RESET = "break the connection"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    The ends: `client` has client id 1, `other` client id 2, `server` server id 1, all three are
    connected from the start; `newer` is there once it acts, a server with id 1.

    Attributes:
        name: The test's.
        promise: The test's docstring.
        steps: Who does what, each carried out before the next.
        gets: The bytes that each end gets, those that are not named nothing.
        lost: Which ends the gateway loses, and why.
    """

    name: str
    promise: str
    steps: tuple[tuple[str, bytes | Act], ...]
    gets: Mapping[str, bytes] = field(default_factory=dict)
    lost: Mapping[str, Reason] = field(default_factory=dict)


OPEN = ("client", dial(1))
ACCEPTED = accept(FIRST, 1)
CONNECTED = connect(FIRST, 1)
HELLO = bytes.fromhex("090000003725000048656c6c6f")
CLOSED = bytes.fromhex("09000000000000000437250000")


def _breaks(name: str, data: bytes, reason: Reason) -> list[Row]:
    """Rows in which `data` costs a client, or a server, its connection and nobody else's."""
    return [
        Row(
            f"client_sends_{name}",
            f"A client that sends {name} is disconnected, and its server only gets a Close.",
            (OPEN, ("client", data)),
            {"client": ACCEPTED, "server": CONNECTED + CLOSED},
            {"client": reason},
        ),
        Row(
            f"server_sends_{name}",
            f"A server that sends {name} is disconnected, and its client only gets a Close.",
            (OPEN, ("server", data)),
            {"client": ACCEPTED + CLOSED, "server": CONNECTED},
            {"server": reason},
        ),
    ]


ROWS = [
    Row(
        "dial_by_client",
        "A client's Dial gives it an Accept and the server a Connect with the same conn_id.",
        (("client", bytes.fromhex("09000000000000000001000000")),),
        {
            "client": bytes.fromhex("0d00000000000000013725000001000000"),
            "server": bytes.fromhex("0d00000000000000023725000001000000"),
        },
    ),
    Row(
        "dial_by_server",
        "A server's Dial names a client, who gets the Connect.",
        (("server", dial(2)),),
        {"server": accept(FIRST, 2), "other": connect(FIRST, 1)},
    ),
    Row(
        "dial_unknown_server",
        "A Dial of an unknown server is refused; client ids are no server ids.",
        (("client", dial(2)), ("client", dial(0))),
        {"client": refuse(2) + refuse(0)},
    ),
    Row(
        "dial_unknown_client",
        "A Dial of an unknown client is refused.",
        (("server", dial(3)), ("server", dial(0xFFFFFFFF))),
        {"server": refuse(3) + refuse(0xFFFFFFFF)},
    ),
    Row(
        "dial_gone_server",
        "A Dial of a server that went is refused.",
        (("server", Act.FIN), ("client", bytes.fromhex("09000000000000000001000000"))),
        {"client": bytes.fromhex("09000000000000000301000000")},
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "dial_gone_client",
        "A Dial of a client that went is refused.",
        (("client", Act.FIN), ("server", dial(1))),
        {"server": refuse(1)},
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "dial_with_more_behind",
        "What stands behind a command's arguments is ignored.",
        (("client", packet(0, b"\0\1\0\0\0behind")),),
        {"client": ACCEPTED, "server": CONNECTED},
    ),
    Row(
        "sixteen_dials",
        "A client's 17th Dial is refused, and a Close makes room for one more.",
        (
            ("client", dial(1) * 16),
            ("client", dial(1)),
            ("client", close(FIRST)),
            ("client", dial(1)),
            ("client", dial(1)),
        ),
        {
            "client": b"".join(accept(FIRST + n, 1) for n in range(16))
            + refuse(1)
            + close(FIRST)
            + accept(FIRST + 16, 1)
            + refuse(1),
            "server": b"".join(connect(FIRST + n, 1) for n in range(16))
            + close(FIRST)
            + connect(FIRST + 16, 1),
        },
    ),
    Row(
        "limit_counts_dials_of_servers",
        "The client limit counts what servers dialled, but refuses the client's dials only.",
        (("server", dial(1) * 16), ("client", dial(1)), ("server", dial(1))),
        {
            "server": b"".join(accept(FIRST + n, 1) for n in range(17)),
            "client": b"".join(connect(FIRST + n, 1) for n in range(16))
            + refuse(1)
            + connect(FIRST + 16, 1),
        },
    ),
    Row(
        "message_to_server",
        "A client's message reaches the server unchanged.",
        (OPEN, ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
    ),
    Row(
        "message_to_client",
        "A server's message reaches the client unchanged.",
        (OPEN, ("server", HELLO)),
        {"client": ACCEPTED + HELLO, "server": CONNECTED},
    ),
    Row(
        "messages_in_order",
        "Messages over several virtual connections arrive in the order in which they were sent.",
        (
            OPEN,
            ("client", dial(1)),
            ("client", b"".join(packet(FIRST + n % 2, bytes([n]) * n) for n in range(40))),
        ),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED
            + connect(FIRST + 1, 1)
            + b"".join(packet(FIRST + n % 2, bytes([n]) * n) for n in range(40)),
        },
    ),
    Row(
        "empty_message",
        "An empty message is forwarded, both ways.",
        (OPEN, ("client", packet(FIRST)), ("server", packet(FIRST) * 2)),
        {"client": ACCEPTED + packet(FIRST) * 2, "server": CONNECTED + packet(FIRST)},
    ),
    Row(
        "stray_message",
        "A message on an unknown conn_id is answered with a Close, and its sender stays.",
        (("client", HELLO), ("server", packet(1) + packet(2, b"x")), ("client", HELLO * 2)),
        {"client": CLOSED * 3, "server": close(1) + close(2)},
    ),
    Row(
        "message_after_close",
        "A message that crosses a Close is answered with another Close.",
        (OPEN, ("client", CLOSED), ("server", HELLO)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED * 2},
    ),
    Row(
        "message_of_others_by_client",
        "A client that writes to others' virtual connection is lost; they notice nothing.",
        (OPEN, ("other", HELLO), ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
        {"other": Reason.NOT_OWNER},
    ),
    Row(
        "message_of_others_by_server",
        "A server that writes to others' virtual connection is lost; they notice nothing.",
        (OPEN, ("newer", Act.LOG_IN), ("newer", HELLO), ("server", HELLO)),
        {"client": ACCEPTED + HELLO, "server": CONNECTED},
        {"newer": Reason.NOT_OWNER},
    ),
    Row(
        "nothing_behind_message_of_others",
        "What comes behind a message to others' virtual connection is not carried out.",
        (OPEN, ("other", dial(1) + HELLO + dial(1) + packet(FIRST + 1, b"late"))),
        {
            "client": ACCEPTED,
            "other": accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 2) + close(FIRST + 1),
        },
        {"other": Reason.NOT_OWNER},
    ),
    Row(
        "close_by_client",
        "A client's Close is sent to both ends, the client included.",
        (OPEN, ("client", bytes.fromhex("09000000000000000437250000"))),
        {
            "client": ACCEPTED + bytes.fromhex("09000000000000000437250000"),
            "server": CONNECTED + bytes.fromhex("09000000000000000437250000"),
        },
    ),
    Row(
        "close_by_server",
        "A server's Close is sent to both ends, the server included.",
        (OPEN, ("server", CLOSED)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED},
    ),
    Row(
        "close_unknown",
        "A Close of an unknown conn_id is ignored.",
        (OPEN, ("client", close(1) + close(0)), ("server", close(FIRST + 1)), ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
    ),
    Row(
        "close_twice",
        "The second Close of a virtual connection is ignored.",
        (OPEN, ("client", CLOSED), ("client", CLOSED), ("server", CLOSED)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED},
    ),
    Row(
        "close_of_others",
        "A Close of somebody else's conn_id has no effect on its owners or its sender.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", CLOSED),
            ("newer", CLOSED),
            ("client", HELLO),
            ("server", HELLO),
        ),
        {"client": ACCEPTED + HELLO, "server": CONNECTED + HELLO},
    ),
    Row(
        "ping",
        "A Ping comes back, from either side.",
        (("client", bytes.fromhex("050000000000000005")), ("server", PING * 2)),
        {"client": bytes.fromhex("050000000000000005"), "server": PING * 2},
    ),
    Row(
        "client_ends",
        "What a client sent before its FIN arrives, then a Close for each virtual connection.",
        (OPEN, ("client", dial(1)), ("client", HELLO * 3), ("client", Act.FIN)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO * 3 + CLOSED + close(FIRST + 1),
        },
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "server_ends",
        "What a server sent before its FIN arrives, then a Close for each virtual connection.",
        (OPEN, ("other", dial(1)), ("server", HELLO), ("server", Act.FIN)),
        {
            "client": ACCEPTED + HELLO + CLOSED,
            "other": accept(FIRST + 1, 1) + close(FIRST + 1),
            "server": CONNECTED + connect(FIRST + 1, 2),
        },
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "client_breaks_off",
        "A client whose connection breaks leaves a Close, and others go on.",
        (OPEN, ("other", dial(1)), ("client", Act.RESET), ("other", packet(FIRST + 1, b"on"))),
        {
            "client": ACCEPTED,
            "other": accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 2) + CLOSED + packet(FIRST + 1, b"on"),
        },
        {"client": Reason.CONNECTION_LOST},
    ),
    Row(
        "server_breaks_off",
        "A server whose connection breaks leaves a Close.",
        (OPEN, ("server", Act.RESET), ("client", dial(1))),
        {"client": ACCEPTED + CLOSED + refuse(1), "server": CONNECTED},
        {"server": Reason.CONNECTION_LOST},
    ),
    Row(
        "ends_in_the_middle_of_a_packet",
        "A packet that was cut off by the end of its sender is not forwarded in part.",
        (OPEN, ("client", HELLO + HELLO[:-1]), ("client", Act.FIN)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO + CLOSED},
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "second_server_with_the_id",
        "The newest server of an id gets new dials, the older keeps what it has.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", dial(1)),
            ("client", HELLO),
            ("other", packet(FIRST + 1, b"new")),
        ),
        {
            "client": ACCEPTED,
            "server": CONNECTED + HELLO,
            "other": accept(FIRST + 1, 1),
            "newer": connect(FIRST + 1, 2) + packet(FIRST + 1, b"new"),
        },
    ),
    Row(
        "older_server_of_the_id_goes",
        "When the older server of an id goes, the newer loses nothing.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", dial(1)),
            ("server", Act.FIN),
            ("newer", packet(FIRST + 1, b"new")),
            ("client", dial(1)),
        ),
        {
            "client": ACCEPTED + CLOSED + accept(FIRST + 2, 1),
            "server": CONNECTED,
            "other": accept(FIRST + 1, 1) + packet(FIRST + 1, b"new"),
            "newer": connect(FIRST + 1, 2) + connect(FIRST + 2, 1),
        },
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "newer_server_of_the_id_goes",
        "When the newer server of an id goes, the older gets the dials again.",
        (OPEN, ("newer", Act.LOG_IN), ("newer", Act.FIN), ("client", dial(1) + HELLO)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO,
        },
        {"newer": Reason.PEER_CLOSED},
    ),
    Row(
        "failed_handshake_with_the_id",
        "A wrong proof for an id in use costs only the one who sent it.",
        (OPEN, ("newer", Act.FAIL), ("client", HELLO + dial(1))),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + HELLO + connect(FIRST + 1, 1),
        },
        {"newer": Reason.AUTH_FAILED},
    ),
    Row(
        "packets_before_a_broken_one",
        "The packets before a broken one are delivered and carried out.",
        (OPEN, ("client", dial(1) + HELLO + b"\0\0\0\0" + HELLO)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO + CLOSED + close(FIRST + 1),
        },
        {"client": Reason.FRAME_TOO_SHORT},
    ),
    Row(
        "packets_before_a_bad_command",
        "The packets before a bad command are delivered, those behind it are not.",
        (OPEN, ("server", HELLO + command(6) + HELLO)),
        {"client": ACCEPTED + HELLO + CLOSED, "server": CONNECTED},
        {"server": Reason.BAD_COMMAND},
    ),
    *_breaks(
        "a_length_over_the_limit", (MAX_PACKET + 1).to_bytes(4, "little"), Reason.FRAME_TOO_LARGE
    ),
    *_breaks("the_largest_length", b"\xff\xff\xff\xff", Reason.FRAME_TOO_LARGE),
    *_breaks("length_0", b"\0\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_1", b"\1\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_2", b"\2\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_3", b"\3\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("a_command_without_a_type", packet(0), Reason.BAD_COMMAND),
    *_breaks("a_dial_without_an_id", command(0), Reason.BAD_COMMAND),
    *_breaks("a_dial_with_3_bytes", packet(0, b"\0\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("a_close_without_an_id", command(4), Reason.BAD_COMMAND),
    *_breaks("a_close_with_3_bytes", packet(0, b"\4\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("an_accept", accept(FIRST, 1), Reason.BAD_COMMAND),
    *_breaks("a_connect", connect(FIRST, 1), Reason.BAD_COMMAND),
    *_breaks("a_refuse", refuse(1), Reason.BAD_COMMAND),
    *_breaks("a_short_accept", packet(0, b"\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("type_6", command(6, 1, 1), Reason.BAD_COMMAND),
    *_breaks("type_255", command(255), Reason.BAD_COMMAND),
]


def rows_as_tests(cls: TestClass) -> TestClass:
    """Give a test case one test for each row; its `run_row` runs them."""

    def add(row: Row) -> None:
        def test(self: Any) -> Any:
            return self.run_row(row)

        test.__name__ = f"test_{row.name}"
        test.__doc__ = row.promise
        setattr(cls, test.__name__, test)

    for row in ROWS:
        add(row)
    return cls
