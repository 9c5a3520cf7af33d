"""Listening sockets as systemd gives them, to a gateway of this process.

Rule: they are closed at the end of the test, and nobody else's are in the way.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from fastway import inherited
from fastway.inherited import Inherited


def tcp(case: SynchronousTestCase) -> socket.socket:
    """A socket that listens on 127.0.0.1."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    case.addCleanup(sock.close)
    return sock


def give(case: SynchronousTestCase, **given: socket.socket) -> None:
    """For the length of a test this process was given sockets, by name."""
    named = {name: [sock.fileno()] for name, sock in given.items()}
    case.patch(inherited, "_taken", Inherited(named))
