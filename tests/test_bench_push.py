"""The bench of messages to many: both ways and the floor are told all, and a wrong byte is caught.

Rule: nothing here asks how fast anything is.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import bench.push
from bench.gateways import FASTWAY, Failure, Gateway, build
from bench.push import COLUMNS, FLOORS, WAYS, Way, measure
from bench.table import Case
from fastway.endpoint.mirror import LEAST
from fastway.wire import encode_packet
from tests.support.benches import DIRECTORY, KEY, SANITIZED, programs
from tests.support.errors import raised


class PushBenchTests(SynchronousTestCase):
    def test_all_ways(self) -> None:
        """Just as many as are worth a push, through a gateway with a key."""
        self.patch(bench.push, "WARM", 2)
        self.patch(bench.push, "PARTS", 2)
        programs()  # or there is nothing to build with
        (program,) = build(Path(DIRECTORY.name), *SANITIZED, names=("sends",))
        gateway = Gateway("", [*FASTWAY, "--server-auth-password", KEY])
        results = measure(program, Case("", f"{LEAST} 64", ()), [gateway], 0.05, KEY)
        self.assertEqual(list(results), [*WAYS, *FLOORS])
        for name, result in results.items():
            self.assertGreaterEqual(result["rounds"], 1, name)
            self.assertLessEqual(set(result), set(COLUMNS))
            self.assertEqual("server_us" in result, name not in FLOORS)

    def test_lies(self) -> None:
        """Another message than was asked for, one too few, and an end."""
        message = b"00000001" * 8
        for said in (
            encode_packet(8, message),
            encode_packet(7, message[:-1] + b"2"),
            encode_packet(7, message)[:-1],
        ):
            told, other = socket.socketpair()
            asks, heard = socket.socketpair()
            with told, other, asks, heard:
                other.sendall(said)
                other.shutdown(socket.SHUT_WR)
                raised(Failure, Way([told, asks], [7, 9], 64, os.getpid()).run, 1)
                self.assertEqual(heard.recv(1000), encode_packet(9, message))
