"""What systemd is told, heard on sockets of the two kinds of names."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from fastway.ops.notify import Notify, of_environment
from tests.support.files import scratch
from tests.support.logs import LogLines
from tests.support.processes import PATIENCE


class NotifyTests(SynchronousTestCase):
    def listen(self, place: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        sock.bind(place)
        return sock

    def test_tell(self) -> None:
        """A datagram of lines, to a path or to an abstract name."""
        path = os.path.join(scratch(self), "socket")
        name = f"fastway-{os.getpid()}"
        for place, told in ((path, path), (f"\0{name}", f"@{name}")):
            sock = self.listen(place)
            Notify(told).tell(READY=1, STATUS="all is well")
            self.assertEqual(sock.recv(1000), b"READY=1\nSTATUS=all is well")

    def test_environment(self) -> None:
        """Who asks stands in NOTIFY_SOCKET; nobody asks without it."""
        path = os.path.join(scratch(self), "socket")
        sock = self.listen(path)
        self.patch(os, "environ", {"NOTIFY_SOCKET": path})
        of_environment().tell(STOPPING=1)
        self.assertEqual(sock.recv(1000), b"STOPPING=1")
        self.patch(os, "environ", {})
        with LogLines() as log:
            of_environment().tell(STOPPING=1)
        self.assertEqual(log.lines, [])

    def test_nobody_hears(self) -> None:
        """That is a line in the log and no more: nobody listens, a bad name, a full queue."""
        directory = scratch(self)
        path = os.path.join(directory, "socket")
        self.listen(path)
        with LogLines() as log:
            for place in (os.path.join(directory, "none"), "x" * 200, "a\0b"):
                Notify(place).tell(READY=1)
            for _ in range(1000):
                Notify(path).tell(STATUS="x" * 1000)
                if len(log.lines) > 3:
                    break
        self.assertEqual(len(log.lines), 4)
        self.assertIn("systemd was not told 'READY=1'", log.lines[0])
