"""Where a port listens: `host:port`, `:port`, `[v6]:port`, `systemd:NAME`, or a Twisted endpoint
string.

Rule: an address is understood before anything is started, and what is wrong with it is said with
the option's name.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from fastway.causes import string_problem
from fastway.errors import ConfigError, StartError
from fastway.inherited import PathPort, inherited
from fastway.strings import LISTENS, MAX_PORT, OFFERS, fault

BACKLOG = 1024
"""Connections that may wait to be accepted: a whole city reconnects at once."""

_PLAIN = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]\\\s]*)):(\d+)")
_KINDS = ("tcp", "tcp4", "tcp6", "ssl", "tls", "unix", "ws", "wss")
"""`tcp:9000` is an endpoint string, `game1:9000` a host: these names win."""

_INHERITED = re.compile(r"systemd:([^:=]+)")
"""Twisted's own, `systemd:domain=INET:name=NAME`, leaves the native path."""

_INTERFACE = re.compile(r"(?:^|:)interface\\?=((?:\\.|[^:\\])*)")


@dataclass(frozen=True)
class Address:
    """One parsed address option.

    Attributes:
        option: The option that gave it, for messages.
        text: As the operator wrote it.
        host: "" for all interfaces; None when `text` is an endpoint string, or names
        inherited: a socket that was opened before the start; empty: none.
    """

    option: str
    text: str
    host: str | None
    port: int
    inherited: str = ""

    @property
    def is_tcp(self) -> bool:
        """Its connections are accepted from a TCP socket, with nothing around them."""
        if not self.inherited:
            return self.host is not None
        try:
            with self._find() as sock:
                return sock.family != socket.AF_UNIX
        except StartError:
            return True  # there is no start either

    def is_that_of(self, other: Address) -> bool:
        """Both cannot be listened on, whatever `reuse_port` says."""
        if self.inherited:
            return self.inherited == other.inherited
        return bool(self.port) and (self.host, self.port) == (other.host, other.port)

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        host = self.host
        if self.inherited:
            try:
                with self._find() as sock:
                    where = sock.getsockname()
            except StartError:
                return True  # nobody can: there is no start, which has its own reason
            if sock.family == socket.AF_UNIX:
                return True
            host = where[0]
        elif host is None:
            if self.text.startswith(("unix:", "snet:unix\\:")):
                return True
            host = next(reversed(self._interfaces()), "")  # of several the last counts
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def check(self, reactor: Any, reuse_port: bool, messages: bool = False) -> None:
        """See that it can be listened on, as far as that shows without doing so.

        Args:
            messages: What listens there takes the messages of a WebSocket: it may be `ws:`.

        Raises:
            ConfigError: the text is wrong.
            StartError: the port is in use or may not be had.
        """
        if self.host is None:
            if reuse_port:
                kind = "a socket of systemd" if self.inherited else "an endpoint string"
                raise ConfigError(
                    self.option, f"reuse-port goes with host:port or :port, not with {kind}"
                )
            if self.inherited:
                self._find().close()
            else:
                if not messages and self.text.startswith(("ws:", "wss:")):
                    raise ConfigError(
                        self.option,
                        f"{self.text!r}: only --client-ws-addr, with host:port, and --listen of "
                        "fastway serve make a port for WebSockets",
                    )
                self._endpoint(reactor)
                self._look()
        else:
            self.bind(reuse_port).close()

    def listen(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        reuse_port: bool,
        adopt: Callable[[int, int, Any], IListeningPort] | None = None,
    ) -> Deferred[IListeningPort]:
        """Listen. Fails with StartError.

        Args:
            adopt: Makes the port of a TCP socket, as the reactor's adoptStreamPort would.
        """
        try:
            if self.host is None and not self.inherited:
                listening = cast(
                    "Deferred[IListeningPort]", self._endpoint(reactor).listen(factory)
                )
            else:
                with self._find() if self.inherited else self.bind(reuse_port) as bound:
                    if not self.inherited:
                        bound.listen(BACKLOG)
                    bound.setblocking(False)
                    if bound.family == socket.AF_UNIX:
                        adopt = partial(PathPort.adopt, reactor)
                    port = (adopt or reactor.adoptStreamPort)(
                        bound.fileno(), bound.family, factory
                    )
                listening = Deferred()
                listening.callback(port)
        except (StartError, ConfigError, OSError, CannotListenError) as error:
            listening = Deferred()
            listening.errback(Failure(error))
        return listening.addErrback(self._explain)

    def bind(self, reuse_port: bool) -> socket.socket:
        """A bound, non-blocking TCP socket.

        Raises:
            StartError: it cannot be bound.
        """
        if not self.host:
            # As in Go, `:9000` is IPv4 and IPv6 both; a kernel without the latter says so.
            try:
                return self._bind(socket.AF_INET6, ("::", self.port), reuse_port)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise self._start_error(error) from None
            family: int = socket.AF_INET
            where: Any = ("0.0.0.0", self.port)
        else:
            try:
                found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                problem = getattr(error, "strerror", None) or "it cannot be a host's name"
                raise StartError(
                    f"{self.option}: {self.text}: {problem}; give an address of this machine"
                ) from None
            family, _, _, _, where = found[0]
        try:
            return self._bind(family, where, reuse_port)
        except OSError as error:
            raise self._start_error(error) from None

    @staticmethod
    def _bind(family: int, where: Any, reuse_port: bool) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and where[0] == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(where)
        except BaseException:
            sock.close()
            raise
        return sock

    def _find(self) -> socket.socket:
        """A duplicate of the socket that it names.

        Raises:
            StartError: there is none.
        """
        try:
            return inherited().find(self.inherited)
        except ValueError as error:
            raise StartError(f"{self.option}: {self.text}: {error}") from None

    def _endpoint(self, reactor: Any) -> Any:
        problem = fault(self.text, LISTENS)
        if problem:
            raise ConfigError(self.option, f"{self.text!r}: {problem}")
        try:
            return serverFromString(reactor, self.text)
        except Exception as error:  # each endpoint parser raises what it likes
            raise ConfigError(self.option, string_problem(self.text, error, LISTENS)) from None

    def _look(self) -> None:
        """See that what an endpoint string names is there: an interface, a directory.

        Raises:
            StartError: it is not.
        """
        for interface in filter(None, self._interfaces()):
            try:
                socket.getaddrinfo(interface, None)
            except (OSError, UnicodeError):
                raise StartError(
                    f"{self.option}: {self.text}: interface={interface} is no address of this "
                    "machine; give one, or leave it out for all"
                ) from None
        kind, _, path = self.text.partition(":")
        directory = os.path.dirname(path.partition(":")[0])
        if kind == "unix" and os.path.isabs(directory) and not os.path.isdir(directory):
            raise StartError(
                f"{self.option}: {self.text}: there is no directory {directory}; make it, or give "
                "another path"
            )

    def _interfaces(self) -> list[str]:
        return [one.replace("\\", "") for one in _INTERFACE.findall(self.text)]

    def _explain(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, CannotListenError):
            error = error.socketError
        if isinstance(error, OSError):
            return Failure(self._start_error(error))
        if isinstance(error, (StartError, ConfigError)):
            return failure
        if "lock" in str(error):  # Twisted's: another process listens on that unix socket
            taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return Failure(self._start_error(taken))
        return Failure(StartError(f"{self.option}: {self.text}: {error}"))

    def _start_error(self, error: OSError) -> StartError:
        mend = {
            errno.EADDRINUSE: "stop what listens there, or choose another port",
            errno.EACCES: "choose a port above 1023, or start as root",
            errno.EADDRNOTAVAIL: "give an address of this machine",
            errno.ENOENT: "make its directory, or choose another path",
        }.get(error.errno or 0, "choose another address")
        problem = error.strerror or str(error)
        return StartError(f"{self.option}: cannot listen on {self.text}: {problem}; {mend}")


def host_and_port(option: str, text: str) -> tuple[str, int] | None:
    """What `host:port`, `:port` or `[v6]:port` says; None: it is something else.

    Raises:
        ConfigError: no host can be that, or no port.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return None
    host = plain[1] if plain[1] is not None else plain[2]
    port = int(plain[3])
    if port > MAX_PORT:
        raise ConfigError(option, f"{text!r}: a port is at most {MAX_PORT}")
    if plain[1] is not None:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise ConfigError(option, f"{text!r}: [{host}] is not an IPv6 address") from None
    return None if host in _KINDS else (host, port)


def parse_address(option: str, text: str) -> Address:
    """Understand an address option.

    Raises:
        ConfigError: it is neither form.
    """
    text = text.strip()
    given = _INHERITED.fullmatch(text)
    if given is not None:
        return Address(option, text, None, 0, given[1])
    plain = host_and_port(option, text)
    if plain is not None:
        return Address(option, text, *plain)
    if re.match(r"[a-zA-Z][\w]*:", text) is None:
        raise ConfigError(
            option,
            f"{text!r} is not an address: give {OFFERS}",
        )
    return Address(option, text, None, 0)


def host_of(name: str) -> str:
    """What stands before the port of such a name; all of it where there is none."""
    host, colon, _ = name.rpartition(":")
    if not colon or name.endswith("]"):
        return name.strip("[]")
    return host.strip("[]")


def address_name(address: IAddress) -> str:
    """`host:port`, `[v6]:port`, or the path of a unix socket."""
    text: str | None = getattr(address, "text", None)  # of one that a proxy told
    if text is not None:
        return text
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else "local"
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]  # an IPv4 peer of a port that listens on both
    port = getattr(address, "port", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
