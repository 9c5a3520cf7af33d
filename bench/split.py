"""What FrameReader.feed costs for each packet, by shape of the stream; TSV.

    python bench/split.py

`ratio` compares with the first row of the same run: absolute figures are this machine's.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

from fastway.wire import FrameReader, encode_packet


def microseconds(feed: Callable[[], object], packets: int, seconds: float = 0.3) -> float:
    """The least CPU time of one packet over several rounds."""
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.process_time_ns()
        feed()
        best = min(best, (time.process_time_ns() - begin) / 1000 / packets)
    return best


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def main() -> None:
    message = bytes(64)
    one_conn = b"".join(encode_packet(7, message) for _ in range(900))
    many_conns = b"".join(encode_packet(7 + n, message) for n in range(900))
    large = encode_packet(7, bytes(512 * 1024 - 4))
    shapes: list[tuple[str, list[bytes], int]] = [
        ("900 packets of 64 B, one connection, one read", [one_conn], 900),
        ("900 packets of 64 B, 900 connections, one read", [many_conns], 900),
        ("900 packets of 64 B, reads of 1460 B", pieces(one_conn, 1460), 900),
        ("one packet of 64 B a read", pieces(one_conn, 72), 900),
        ("one packet of 512 KiB, one read", [large], 1),
        ("one packet of 512 KiB, reads of 1460 B", pieces(large, 1460), 1),
    ]
    print(f"# CPython {platform.python_version()} on {platform.machine()}")
    print("shape\tus/packet\tratio")
    first = 0.0
    for name, reads, packets in shapes:

        def feed(reads: list[bytes] = reads) -> None:
            reader = FrameReader()
            for data in reads:
                reader.feed(data)

        cost = microseconds(feed, packets)
        first = first or cost
        print(f"{name}\t{cost:.3f}\t{cost / first:.2f}")


if __name__ == "__main__":
    main()
