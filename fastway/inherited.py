"""Listening sockets that were opened before this process began (sd_listen_fds(3)).

Rule: they are the process's own, so they are taken over once: nobody else hears of them, and they
stay open for as long as the process lives, whatever becomes of the ports that listen with them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.python.failure import Failure

FIRST = 3
"""The first of their descriptors."""

MOST = 1024
"""Sockets that may be given."""

NAMELESS = "unknown"
"""What one is called that was given without a name."""

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Inherited:
    """What was given.

    Args:
        named: Name -> descriptors, in order.
        problem: Why there is nothing, if so.
    """

    def __init__(self, named: Mapping[str, list[int]], problem: str = "") -> None:
        self._named = named
        self._problem = problem

    @property
    def names(self) -> list[str]:
        """All names."""
        return list(self._named)

    def find(self, name: str) -> socket.socket:
        """The listening socket of a name: a duplicate, the caller's to close.

        Raises:
            ValueError: there is none, or it cannot be used; the text is one line.
        """
        if self._problem:
            raise ValueError(self._problem)
        found = self._named.get(name, [])
        if not found:
            known = ", ".join(self._named) or "none"
            raise ValueError(f"no socket of that name was given, but {known}; {_NAMED}")
        if len(found) > 1:
            raise ValueError(
                f"{len(found)} sockets of that name were given; "
                "give each a unit and a FileDescriptorName of its own"
            )
        return _listening(found[0])


_NAMED = "FileDescriptorName= in the socket's unit gives it one"

_UNIT = "systemd gives sockets to the service of a socket unit, for the length of its process"


def _listening(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        what = "is no socket" if error.errno == errno.ENOTSOCK else os.strerror(error.errno or 0)
        raise ValueError(f"descriptor {fd}: {what}; {_UNIT}") from None
    problem = ""
    if sock.type != socket.SOCK_STREAM or sock.family not in FAMILIES:
        problem = "it is no socket of TCP or of a path; give its unit ListenStream="
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        problem = "it does not listen; give its unit Accept=no"
    if problem:
        sock.close()
        raise ValueError(problem)
    return sock


def take_over(environment: MutableMapping[str, str]) -> Inherited:
    """What an environment says was given to this process; afterwards it says nothing of it, and
    the descriptors are not given on to other programs."""
    pid, count, names = (
        environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES")
    )
    environment.pop("LISTEN_PIDFDID", None)  # systemd 259 and later
    if not count:
        return Inherited({}, f"no sockets were given to this process; {_UNIT}")
    if pid != str(os.getpid()):
        return Inherited(
            {},
            f"the sockets were given to process {pid[:20] or '?'}, and this is {os.getpid()}; "
            "start it without a shell in between, or with exec",
        )
    if not (count.isascii() and count.isdigit() and int(count) <= MOST):
        return Inherited({}, f"LISTEN_FDS is {count[:20]!r}, and should be a number")
    fds = range(FIRST, FIRST + int(count))
    called = names.split(":") if names else [NAMELESS] * len(fds)
    if len(called) != len(fds):
        return Inherited({}, f"LISTEN_FDNAMES has {len(called)} names for {len(fds)} sockets")
    named: dict[str, list[int]] = {}
    for fd, name in zip(fds, called, strict=True):
        named.setdefault(name, []).append(fd)
        with suppress(OSError):  # it is not open, which shows when it is asked for
            os.set_inheritable(fd, False)
    return Inherited(named)


class PathPort(unix.Port):
    """A port on a socket with a path that somebody else made, and may use again: Twisted's own
    would let everybody write to it, and take the path away at its end."""

    _preexistingSocket: Any

    @classmethod
    def adopt(cls, reactor: Any, fd: int, _family: int, factory: Any) -> PathPort:
        """Listen with such a socket, of which a duplicate is taken."""
        port = cls._fromListeningDescriptor(reactor, fd, factory)
        assert isinstance(port, PathPort)
        port.startListening()
        return port

    def startListening(self) -> None:
        cast(Any, self.factory).doStart()
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


_taken: Inherited | None = None


def inherited() -> Inherited:
    """What was given to this process; taken over by the first who asks."""
    global _taken
    if _taken is None:
        told = {**_at_first(), **os.environ}
        _taken = take_over(told)
        take_over(os.environ)
    return _taken


def _at_first() -> dict[str, str]:
    """The environment with which this process began: Twisted takes these variables away when its
    endpoints are loaded, whoever asks for their strings."""
    try:
        with open("/proc/self/environ", "rb") as file:
            lines = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if line.startswith("LISTEN_"))
    return {name: text for name, _, text in pairs}


def unused(names: set[str]) -> list[str]:
    """What was given to this process beside these names, if anything was taken over."""
    return [] if _taken is None else sorted({*_taken.names} - names)
