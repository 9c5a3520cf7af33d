"""Where the admin API listens, and what opens it there.

Rule: nobody gets in who was not meant to. A unix socket is its user's alone before anybody can
connect to it; a TCP port on loopback needs a token, for everybody on this machine can reach it;
and beyond loopback there must be TLS around that.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.web.server import Site

from fastway.address import Address, parse_address
from fastway.config.settings import AdminSettings
from fastway.errors import ConfigError, StartError
from fastway.logs import Throttle
from fastway.ops.admin import Admin, AdminSite, Keys
from fastway.ops.api import Api
from fastway.web import WebPort

UNIX = "unix:"

NAME = "fastway.admin"
"""Where the socket is in the run directory, as the manual has it; the console looks there."""

MOST = 107
"""Bytes of the path of a unix socket, on Linux."""

SHORT = 16
"""Characters of a token, at least: nobody guesses it in the time that there is."""

BACKLOG = 64

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class AdminPort(WebPort):
    """One of its ports.

    Args:
        name: What operators call it.
        given: The address as it was written.
        admin: What it answers.

    Attributes:
        address: Where it is by TCP, or by a socket of systemd's, whose mode is its unit's; None:
            it is a unix socket.
        path: Of that, as the gateway's working directory has it.
    """

    def __init__(self, name: str, given: str, place: Address | str, admin: Admin) -> None:
        self.address = place if isinstance(place, Address) else None
        self.path = place if isinstance(place, str) else ""
        listen: Callable[[Any, Site], Deferred[IListeningPort]] = partial(listen_at, self.path)
        if self.address is not None:
            listen = partial(self.address.listen, reuse_port=False)
        super().__init__(name, given, listen, partial(AdminSite, admin))

    def check(self, reactor: Any, working_dir: str = "") -> None:
        """See that it can be listened on, as far as that shows without doing so.

        Raises:
            ConfigError, StartError: it cannot.
        """
        if self.address is not None:
            self.address.check(reactor, False)
        else:
            is_left_over(os.path.join(working_dir, self.path))


class AdminPorts:
    """All of them.

    Args:
        settings: What an operator wants.
        path_of: Makes a path in the run directory of a name.
        api: What they answer.
        quiet: For lines that strangers can cause.

    Raises:
        ConfigError: not so.

    Attributes:
        api: What they answer.
        token: What TCP needs; empty if none of them is by TCP and nobody gave one.
        ports: They.
    """

    def __init__(
        self,
        settings: AdminSettings,
        path_of: Callable[[str], str],
        api: Api,
        quiet: Throttle,
    ) -> None:
        self.api = api
        self._settings = settings
        self._keys = Keys(read_token(settings), settings.hosts)
        self.ports: list[AdminPort] = []
        where = settings.where("addresses")
        files = load_page()
        for number, text in enumerate(settings.addresses, 1):
            place = place_of(where, text, path_of)
            local = isinstance(place, str)
            if not (local or self.token):
                raise ConfigError(
                    where,
                    f"{text}: everybody on this machine can connect there; give "
                    f"--admin-token-file too, or {UNIX}{NAME}",
                )
            admin = Admin(api, self._keys, files, quiet, local)
            name = "admin" if number == 1 else f"admin {number}"
            self.ports.append(AdminPort(name, text, place, admin))

    @property
    def token(self) -> str:
        return self._keys.token

    def renew(self) -> bool:
        """Read the token's file anew, and whether there is another one in it. Whoever watches by
        the old one is ended, and comes again with the new.

        Raises:
            ConfigError: it cannot be had, or is no good; the old one stays.
        """
        before, self._keys.token = self._keys.token, read_token(self._settings)
        if self.token == before:
            return False
        self.api.viewers.stop()
        return True


def place_of(where: str, text: str, path_of: Callable[[str], str]) -> Address | str:
    """An address by TCP or of a socket of systemd's, or the path of a unix socket.

    Raises:
        ConfigError: it is none, or there must not be an admin port.
    """
    if text.startswith(UNIX):
        path = text[len(UNIX) :]
        if not path or ":" in path:
            raise ConfigError(
                where, f"{text}: give {UNIX}PATH alone; its mode is 0600 and stays so"
            )
        path = path_of(path)
        if len(os.fsencode(path)) > MOST:
            raise ConfigError(
                where, f"{path} is over {MOST} bytes long; give a shorter path, or run-dir"
            )
        return path
    address = parse_address(where, text)
    kind = "" if address.host is not None or address.inherited else text.partition(":")[0]
    if kind not in ("", "tcp", "tcp4", "tcp6", "ssl"):
        raise ConfigError(
            where, f"{text}: give {UNIX}{NAME}, host:port on loopback, or ssl:... beyond it"
        )
    if kind != "ssl" and not address.loopback:
        raise ConfigError(
            where,
            f"{text}: it can be reached from other machines, and is not encrypted; give "
            f"127.0.0.1:PORT, {UNIX}{NAME}, or ssl:PORT:privateKey=FILE:certKey=FILE",
        )
    return address


def read_token(settings: AdminSettings) -> str:
    """The token that an operator gave; empty: none.

    Raises:
        ConfigError: it cannot be had, or is no good.
    """
    where, token = settings.where("token"), settings.token
    if settings.token_file:
        where, empty = settings.where("token_file"), f"{settings.token_file} has no token"
        try:
            with open(settings.token_file, encoding="ascii") as file:
                token = file.read(4096).strip()
        except OSError as error:
            problem = f"cannot read {settings.token_file}: {error.strerror}"
            raise ConfigError(where, problem) from None
        except UnicodeDecodeError:
            raise ConfigError(where, empty) from None
        if not token:
            raise ConfigError(where, f"{empty}: openssl rand -hex 16 > {settings.token_file}")
    elif not token:
        return ""
    if len(token) < SHORT or not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(
            where,
            f"a token has {SHORT} characters or more of ASCII and no space; "
            "`openssl rand -hex 16` makes one",
        )
    return token


def load_page() -> dict[str, tuple[str, bytes]]:
    """The page's files: path -> content type and content."""
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")
    found: dict[str, tuple[str, bytes]] = {}
    if os.path.isdir(top):
        for name in sorted(os.listdir(top)):
            kind = TYPES.get(os.path.splitext(name)[1])
            if kind is not None:
                with open(os.path.join(top, name), "rb") as file:
                    found[f"/{name}"] = kind, file.read()
    if "/page.html" in found:
        found["/"] = found.pop("/page.html")
    return found


def listen_at(path: str, reactor: Any, factory: Site) -> Deferred[IListeningPort]:
    """Listen on a unix socket that only this user can connect to. Fails with StartError."""
    try:
        if is_left_over(path):
            os.unlink(path)
        # Its mode is set before it listens: nobody can connect in between.
        port = reactor.listenUNIX(path, factory, BACKLOG, 0o600)
    except StartError:
        return fail()
    except (OSError, CannotListenError) as error:
        problem = cast(Any, getattr(error, "socketError", error))
        text = getattr(problem, "strerror", None) or str(problem)
        directory = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(directory):
            text = f"{directory} is not a directory; make it"
        return fail(StartError(f"--admin-addr: cannot listen on {path}: {text}"))
    return succeed(port)


def is_left_over(path: str) -> bool:
    """There is a socket that nobody listens on.

    Raises:
        StartError: there is something else, or somebody listens.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StartError(f"--admin-addr: cannot look at {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise StartError(f"--admin-addr: {path} is no socket; remove it, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return True
    raise StartError(
        f"--admin-addr: another gateway listens on {path}; stop it, or give another run-dir"
    )
