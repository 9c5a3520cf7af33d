"""Tests of fastway.wire: packets, commands and the frame reader, with the vectors of the spec."""

from __future__ import annotations

import tracemalloc
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import BadCommand, FrameTooLarge, FrameTooShort, Reason, RemoteError
from fastway.wire import (
    HEAD,
    MAX_ID,
    MAX_PACKET,
    PING,
    Command,
    CommandType,
    FrameReader,
    Run,
    decode_command,
    encode_accept,
    encode_close,
    encode_connect,
    encode_dial,
    encode_packet,
    encode_refuse,
)
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.golden import whole_packets

# Spec section 1.
DIAL_1 = bytes.fromhex("09000000000000000001000000")
ACCEPT_9527_1 = bytes.fromhex("0d00000000000000013725000001000000")
CONNECT_9527_1 = bytes.fromhex("0d00000000000000023725000001000000")
REFUSE_1 = bytes.fromhex("09000000000000000301000000")
CLOSE_9527 = bytes.fromhex("09000000000000000437250000")
PING_PACKET = bytes.fromhex("050000000000000005")
HELLO = bytes.fromhex("090000003725000048656c6c6f")
EMPTY = bytes.fromhex("0400000037250000")

README_CLOSE = bytes.fromhex("09000000000000000537250000")
"""The original's README prints this as its last example, Close(9527)."""

VECTORS = [
    (DIAL_1, encode_dial(1), Command(CommandType.DIAL, remote_id=1)),
    (ACCEPT_9527_1, encode_accept(9527, 1), Command(CommandType.ACCEPT, 9527, 1)),
    (CONNECT_9527_1, encode_connect(9527, 1), Command(CommandType.CONNECT, 9527, 1)),
    (REFUSE_1, encode_refuse(1), Command(CommandType.REFUSE, remote_id=1)),
    (CLOSE_9527, encode_close(9527), Command(CommandType.CLOSE, 9527)),
    (PING_PACKET, PING, Command(CommandType.PING)),
]

ALL_PACKETS = [packet for packet, _, _ in VECTORS] + [HELLO, EMPTY]


def expected_runs(packets: list[bytes]) -> list[Run]:
    """The grouping rule in other words: same id and next to each other, but no commands."""
    runs: list[Run] = []
    for conn_id, group in groupby(packets, lambda packet: int.from_bytes(packet[4:8], "little")):
        together = list(group)
        if conn_id:
            runs.append((conn_id, b"".join(together), len(together)))
        else:
            runs += [(0, packet, 1) for packet in together]
    return runs


def read(reader: FrameReader, pieces: list[bytes]) -> list[bytes]:
    """Feed pieces; check each feed's runs against the grouping rule; return the packets."""
    packets: list[bytes] = []
    for piece in pieces:
        runs = reader.feed(piece)
        completed = [packet for _, data, _ in runs for packet in whole_packets(data)]
        if runs != expected_runs(completed):
            raise AssertionError(f"wrongly grouped: {runs}")
        packets += completed
    return packets


def reference(stream: bytes, limit: int) -> tuple[list[bytes], type[RemoteError] | None, int]:
    """The packets of a stream, why it is broken, and the bytes left over if it is not."""
    packets: list[bytes] = []
    while len(stream) >= 4:
        length = int.from_bytes(stream[:4], "little")
        if length > limit:
            return packets, FrameTooLarge, 0
        if length < 4:
            return packets, FrameTooShort, 0
        if len(stream) < 4 + length:
            break
        packets.append(stream[: 4 + length])
        stream = stream[4 + length :]
    return packets, None, len(stream)


class EncodeTests(SynchronousTestCase):
    def test_commands(self) -> None:
        """Every command is encoded to the bytes of the spec."""
        for golden, encoded, command in VECTORS:
            with self.subTest(command=command):
                self.assertEqual(encoded, golden)

    def test_packet(self) -> None:
        """A message is encoded to the bytes of the spec."""
        self.assertEqual(encode_packet(9527, b"Hello"), HELLO)

    def test_empty_message(self) -> None:
        """An empty message is a packet of length 4."""
        self.assertEqual(encode_packet(9527, b""), EMPTY)

    def test_largest_ids(self) -> None:
        """Ids take all four of their bytes."""
        top = b"\xff\xff\xff\xff"
        self.assertEqual(encode_packet(MAX_ID, b"")[4:], top)
        self.assertEqual(encode_accept(MAX_ID, MAX_ID - 1)[9:], top + b"\xfe\xff\xff\xff")

    def test_limits(self) -> None:
        """The default bound on the length is 512 KiB and the largest id is 2**32 - 1."""
        self.assertEqual((MAX_PACKET, MAX_ID, HEAD), (524288, 4294967295, 8))


class DecodeCommandTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        """Every command of the spec is decoded to its type and ids."""
        for golden, _, command in VECTORS:
            with self.subTest(command=command):
                self.assertEqual(decode_command(golden), command)

    def test_close_is_4(self) -> None:
        """The type of a Close on the wire is 4, whatever the original's README prints."""
        self.assertEqual(decode_command(CLOSE_9527), Command(CommandType.CLOSE, 9527, 0))

    def test_readme_example(self) -> None:
        """The README's example of a Close is a Ping with four bytes behind it."""
        self.assertEqual(decode_command(README_CLOSE), Command(CommandType.PING, 0, 0))

    def test_largest_ids(self) -> None:
        """Ids are unsigned."""
        command = decode_command(encode_connect(MAX_ID, MAX_ID - 1))
        self.assertEqual(command, Command(CommandType.CONNECT, MAX_ID, MAX_ID - 1))

    def test_no_type(self) -> None:
        """A command without a type byte is an error that carries its size."""
        error = raised(BadCommand, decode_command, encode_packet(0, b""))
        self.assertEqual((error.kind, error.size), (None, 0))
        self.assertIs(error.reason, Reason.BAD_COMMAND)

    def test_short_args(self) -> None:
        """Every command is an error at each size below that of its arguments."""
        for golden, _, command in VECTORS:
            for size in range(1, len(golden) - HEAD):
                with self.subTest(command=command, size=size):
                    frame = encode_packet(0, golden[HEAD : HEAD + size])
                    error = raised(BadCommand, decode_command, frame)
                    self.assertEqual((error.kind, error.size), (command.kind, size))

    def test_unknown_type(self) -> None:
        """Every type from 6 on is an error, with or without arguments."""
        for kind in range(6, 256):
            for args in (b"", bytes(4), bytes(8)):
                with self.subTest(kind=kind, args=args):
                    frame = encode_packet(0, bytes([kind]) + args)
                    error = raised(BadCommand, decode_command, frame)
                    self.assertEqual((error.kind, error.size), (kind, 1 + len(args)))

    def test_trailing_bytes(self) -> None:
        """Bytes behind the arguments change nothing."""
        for golden, _, command in VECTORS:
            for extra in (b"\0", b"\xff" * 4, b"\xff" * 100):
                with self.subTest(command=command, extra=extra):
                    frame = encode_packet(0, golden[HEAD:] + extra)
                    self.assertEqual(decode_command(frame), command)

    @DETERMINISTIC
    @given(st.binary(max_size=20))
    def test_arbitrary(self, message: bytes) -> None:
        """Any message of a command is decoded or is a BadCommand, and nothing else."""
        try:
            command = decode_command(encode_packet(0, message))
        except BadCommand as error:
            self.assertEqual(error.size, len(message))
        else:
            self.assertEqual(command.kind, message[0])


class ReaderTests(SynchronousTestCase):
    """Each stream whole, byte by byte, and with the beginning of a next packet behind it."""

    def check_three_ways(self, packets: list[bytes], max_packet: int = MAX_PACKET) -> None:
        stream = b"".join(packets)
        ways = {
            "whole": ([stream], 0),
            "byte by byte": ([bytes([byte]) for byte in stream], 0),
            "with empty reads": ([b"", stream, b""], 0),
        }
        for size in range(1, len(HELLO)):
            ways[f"{size} bytes behind"] = ([stream + HELLO[:size]], size)
        for name, (pieces, pending) in ways.items():
            with self.subTest(way=name):
                reader = FrameReader(max_packet)
                self.assertEqual(read(reader, pieces), packets)
                self.assertEqual(reader.pending, pending)
                self.assertIsNone(reader.error)
                # What is pending is completed by what comes next.
                if pending:
                    self.assertEqual(read(reader, [HELLO[pending:]]), [HELLO])
                    self.assertEqual(reader.pending, 0)

    def test_nothing(self) -> None:
        """No bytes are no packets and no error."""
        self.check_three_ways([])

    def test_each_alone(self) -> None:
        """Every packet of the spec is read, alone in its stream."""
        for packet in ALL_PACKETS:
            with self.subTest(packet=packet.hex()):
                self.check_three_ways([packet])

    def test_all_together(self) -> None:
        """The packets of the spec are read in their order from one stream."""
        self.check_three_ways(ALL_PACKETS * 2)

    def test_each_pair(self) -> None:
        """Any two packets of the spec are read one after the other."""
        for first in ALL_PACKETS:
            for second in ALL_PACKETS:
                self.check_three_ways([first, second])

    def test_hello(self) -> None:
        """A packet is read as its connection id, its bytes, and 1."""
        self.assertEqual(FrameReader().feed(HELLO), [(9527, HELLO, 1)])

    @DETERMINISTIC
    @given(
        packets=st.lists(
            st.builds(
                encode_packet,
                st.sampled_from([0, 0, 1, 1, 1, 2, 0x01000000, MAX_ID]),
                st.binary(max_size=20),
            ),
            max_size=12,
        ),
        places=st.lists(st.integers(0, 400), max_size=12),
    )
    def test_cuts(self, packets: list[bytes], places: list[int]) -> None:
        """However a stream is cut, the same packets come out in the same order."""
        reader = FrameReader(24)
        self.assertEqual(read(reader, cut(b"".join(packets), places)), packets)
        self.assertEqual(reader.pending, 0)
        self.assertIsNone(reader.error)


class RunTests(SynchronousTestCase):
    def test_one_run(self) -> None:
        """Consecutive packets of one connection id are one run with their count."""
        data = HELLO + EMPTY + HELLO
        self.assertEqual(FrameReader().feed(data), [(9527, data, 3)])

    def test_other_id_between(self) -> None:
        """A packet of another connection id ends a run and starts one."""
        other = encode_packet(1, b"x")
        self.assertEqual(
            FrameReader().feed(HELLO + HELLO + other + HELLO),
            [(9527, HELLO * 2, 2), (1, other, 1), (9527, HELLO, 1)],
        )

    def test_command_between(self) -> None:
        """A command ends a run, so that what came before it is done before it."""
        self.assertEqual(
            FrameReader().feed(HELLO + CLOSE_9527 + HELLO),
            [(9527, HELLO, 1), (0, CLOSE_9527, 1), (9527, HELLO, 1)],
        )

    def test_commands(self) -> None:
        """Commands are never grouped, equal ones neither."""
        self.assertEqual(FrameReader().feed(PING * 3), [(0, PING, 1)] * 3)

    def test_largest_id(self) -> None:
        """The largest connection id makes runs like any other."""
        packet = encode_packet(MAX_ID, b"x")
        self.assertEqual(FrameReader().feed(packet * 2), [(MAX_ID, packet * 2, 2)])

    def test_not_over_reads(self) -> None:
        """A run ends with the read that completes it: nothing waits for more of its kind."""
        reader = FrameReader()
        self.assertEqual(reader.feed(HELLO + HELLO[:5]), [(9527, HELLO, 1)])
        self.assertEqual(reader.feed(HELLO[5:] + HELLO), [(9527, HELLO * 2, 2)])


LIMIT = 100

LENGTHS: list[tuple[int, type[RemoteError] | None]] = [
    (0, FrameTooShort),
    (1, FrameTooShort),
    (2, FrameTooShort),
    (3, FrameTooShort),
    (4, None),
    (5, None),
    (LIMIT - 1, None),
    (LIMIT, None),
    (LIMIT + 1, FrameTooLarge),
    (0x20544547, FrameTooLarge),  # "GET "
    (0x7FFFFFFF, FrameTooLarge),
    (0x80000000, FrameTooLarge),
    (0xFFFFFFFF, FrameTooLarge),
]
"""Lengths around the limits, and the error that each is."""


class LengthTests(SynchronousTestCase):
    def check_error(
        self, reader: FrameReader, expected: type[RemoteError] | None, length: int
    ) -> None:
        error = reader.error
        if expected is None:
            self.assertIsNone(error)
            return
        self.assertIsInstance(error, expected)
        self.assertEqual(reader.pending, 0)
        if isinstance(error, FrameTooLarge):
            self.assertEqual((error.length, error.limit), (length, LIMIT))
            self.assertIs(error.reason, Reason.FRAME_TOO_LARGE)
        elif isinstance(error, FrameTooShort):
            self.assertEqual(error.length, length)
            self.assertIs(error.reason, Reason.FRAME_TOO_SHORT)

    def test_four_bytes(self) -> None:
        """A length is judged as soon as its four bytes are there."""
        for length, expected in LENGTHS:
            with self.subTest(length=length):
                reader = FrameReader(LIMIT)
                self.assertEqual(reader.feed(length.to_bytes(4, "little")), [])
                self.check_error(reader, expected, length)

    def test_one_by_one(self) -> None:
        """A length that comes byte by byte is judged with its fourth byte, not before."""
        for length, expected in LENGTHS:
            with self.subTest(length=length):
                reader = FrameReader(LIMIT)
                field = length.to_bytes(4, "little")
                for place in range(3):
                    self.assertEqual(reader.feed(field[place : place + 1]), [])
                    self.assertIsNone(reader.error)
                self.assertEqual(reader.feed(field[3:]), [])
                self.check_error(reader, expected, length)

    def test_with_bytes_behind(self) -> None:
        """A length is judged the same with any number of bytes behind it."""
        for length, expected in LENGTHS:
            for behind in (1, 3, 4, 5, 200):
                with self.subTest(length=length, behind=behind):
                    reader = FrameReader(LIMIT)
                    reader.feed(length.to_bytes(4, "little") + bytes(behind))
                    if expected is not None or behind < length:
                        self.check_error(reader, expected, length)

    def test_whole_packets(self) -> None:
        """A packet of each legal length is read whole; max_packet bounds the length field."""
        for length, expected in LENGTHS:
            if expected is None:
                with self.subTest(length=length):
                    packet = encode_packet(1, b"m" * (length - 4))
                    self.assertEqual(FrameReader(LIMIT).feed(packet), [(1, packet, 1)])

    def test_packets_before(self) -> None:
        """The packets before a broken one are returned by the feed that meets it."""
        for length, expected in LENGTHS:
            if expected is not None:
                for first in (0, 1, 7):
                    with self.subTest(length=length, first=first):
                        reader = FrameReader(LIMIT)
                        stream = PING + HELLO * 2 + length.to_bytes(4, "little") + HELLO
                        self.assertEqual(
                            reader.feed(stream[:first]) + reader.feed(stream[first:]),
                            [(0, PING, 1), (9527, HELLO * 2, 2)],
                        )
                        self.check_error(reader, expected, length)

    def test_sticky(self) -> None:
        """A broken stream stays broken, with its first error, whatever comes after it."""
        reader = FrameReader(LIMIT)
        reader.feed(bytes(4))
        first = reader.error
        self.assertEqual(reader.feed(HELLO), [])
        self.assertEqual(reader.feed(b"\xff" * 8), [])
        self.assertIs(reader.error, first)
        self.assertEqual(reader.pending, 0)

    def test_default_limit(self) -> None:
        """The default limit lets exactly 512 KiB of length through."""
        reader = FrameReader()
        packet = encode_packet(1, bytes(512 * 1024 - 4))
        self.assertEqual(reader.feed(packet), [(1, packet, 1)])
        reader.feed((512 * 1024 + 1).to_bytes(4, "little"))
        self.assertIsInstance(reader.error, FrameTooLarge)


class ArbitraryBytesTests(SynchronousTestCase):
    @DETERMINISTIC
    @given(
        stream=st.one_of(
            st.binary(max_size=60),
            st.lists(st.sampled_from([0, 0, 0, 0, 1, 3, 4, 5, 6, 12, 13, 255]), max_size=80).map(
                bytes
            ),
        ),
        places=st.lists(st.integers(0, 80), max_size=8),
    )
    def test_like_the_reference(self, stream: bytes, places: list[int]) -> None:
        """Any bytes in any cuts give what a plain reading of the spec gives, and never raise."""
        reader = FrameReader(12)
        packets, error, left = reference(stream, 12)
        self.assertEqual(read(reader, cut(stream, places)), packets)
        self.assertEqual(reader.pending, left)
        if error is None:
            self.assertIsNone(reader.error)
        else:
            self.assertIsInstance(reader.error, error)

    @DETERMINISTIC
    @given(
        messages=st.lists(st.integers(0, 16), max_size=10),
        places=st.lists(st.integers(0, 250), max_size=20),
    )
    def test_pending_is_bounded(self, messages: list[int], places: list[int]) -> None:
        """Never more than max_packet + 3 bytes wait in a reader."""
        reader = FrameReader(20)
        stream = b"".join(encode_packet(1, bytes(size)) for size in messages)
        for piece in cut(stream, places):
            reader.feed(piece)
            self.assertLessEqual(reader.pending, 23)

    def test_pending_reaches_its_bound(self) -> None:
        """All but the last byte of the largest packet can wait, and the last one ends it."""
        reader = FrameReader(20)
        packet = encode_packet(1, bytes(16))
        self.assertEqual(reader.feed(packet[:-1]), [])
        self.assertEqual(reader.pending, 23)
        self.assertEqual(reader.feed(packet[-1:]), [(1, packet, 1)])
        self.assertEqual(reader.pending, 0)


class MemoryTests(SynchronousTestCase):
    def peak(self, reader: FrameReader, pieces: list[bytes]) -> int:
        """The most bytes that reading took at a time, beside the pieces themselves."""
        tracemalloc.start()
        try:
            for piece in pieces:
                reader.feed(piece)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_announced_length(self) -> None:
        """What a peer announces allocates nothing: only what came is kept."""
        head = encode_packet(1, bytes(MAX_PACKET - 4))[:8]
        self.assertLess(self.peak(FrameReader(), [head]), 4096)

    def test_large_packet_in_small_pieces(self) -> None:
        """The largest packet in segments only grows until it is whole, and is then one run."""
        packet = encode_packet(1, bytes(range(256)) * 2047 + bytes(252))
        self.assertEqual(len(packet), 4 + MAX_PACKET)
        pieces = [packet[at : at + 1460] for at in range(0, len(packet), 1460)]
        reader = FrameReader()
        for number, piece in enumerate(pieces[:-1], 1):
            self.assertEqual(reader.feed(piece), [])
            self.assertEqual(reader.pending, number * 1460)
        self.assertEqual(reader.feed(pieces[-1]), [(1, packet, 1)])

    def test_memory_of_a_large_packet(self) -> None:
        """Collecting the largest packet takes a few times its size at most."""
        packet = encode_packet(1, bytes(MAX_PACKET - 4))
        pieces = [packet[at : at + 1460] for at in range(0, len(packet), 1460)]
        self.assertLess(self.peak(FrameReader(), pieces), 4 * MAX_PACKET)

    def test_one_buffer(self) -> None:
        """The bytes of an unfinished packet are collected in one object, not joined anew."""
        packet = encode_packet(1, bytes(1000))
        reader = FrameReader()
        reader.feed(packet[:100])
        buffer = reader._buffer
        for at in range(100, 1000, 100):
            reader.feed(packet[at : at + 100])
            self.assertIs(reader._buffer, buffer)
