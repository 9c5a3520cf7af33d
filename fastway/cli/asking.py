"""The admin port of a running gateway, as the console's commands ask it.

Rule: one request, one answer, in a bounded time and size; whoever answers moves no cursor. What
cannot be reached is `NoPort`: then there is the command file.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from dataclasses import dataclass
from typing import Any

from fastway.address import parse_address
from fastway.config.settings import AdminSettings, Settings
from fastway.errors import CommandError, ConfigError, LocalError
from fastway.logs import escaped

UNIX = "unix:"

NAME = "fastway.admin"
"""Where the socket of a gateway is whose address nobody gave."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read."""


def printable(text: str) -> str:
    """Rows as they are, but for what a terminal would take for an order."""
    rows = ("\t".join(map(escaped, row.split("\t"))) for row in text.split("\n"))
    return "\n".join(rows)


class NoPort(Exception):
    """There is no admin port that can be reached from here."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class AdminClient:
    """One admin port.

    Attributes:
        path: Of its unix socket; empty: it is by TCP,
        host: there,
        port: and there,
        token: with this.
        timeout: Seconds for an answer.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    token: str = ""
    timeout: float = 10.0

    def get(self, path: str) -> Any:
        """The answer to a GET: what its JSON says, or its text.

        Raises:
            NoPort: nobody is there.
            LocalError: there is no answer that can be used.
            CommandError: it refused; the text is why.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> str:
        """Have it do something; returns what it did. Raises as `get`."""
        answer = self._ask("POST", path, json.dumps(body))
        return printable(str(answer["text"]))

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = (
            _UnixConnection(self.path, self.timeout)
            if self.path
            else http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        )
        try:
            try:
                connection.connect()
            except OSError as error:
                raise NoPort(error.strerror or str(error)) from None
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER).decode("utf-8", "replace")
        except TimeoutError:
            raise LocalError("the gateway did not answer in time; its log may say why") from None
        except (OSError, http.client.HTTPException) as error:
            raise LocalError(f"the admin port gave no answer: {error!r}") from None
        finally:
            connection.close()
        if "json" not in (answer.getheader("Content-Type") or ""):
            if answer.status != 200:
                raise LocalError(f"the admin port answered {answer.status}; is it a gateway's?")
            return printable(content)
        try:
            told = json.loads(content)
            if answer.status == 200:
                return told
            problem = escaped(str(told["error"]))
        except (ValueError, TypeError, KeyError):
            raise LocalError("the admin port's answer is no JSON; is it a gateway's?") from None
        if answer.status == 401:
            raise LocalError(f"{problem}; give it with --admin-token-file")
        raise CommandError(problem)


def find(settings: Settings, timeout: float) -> AdminClient | None:
    """The admin port of the gateway that was told so; None: it has none that is known here.

    Raises:
        ConfigError: its token cannot be had.
    """
    admin, path_of = settings.admin, settings.ops.path
    for address in admin.addresses:
        if address.startswith(UNIX):
            return AdminClient(path_of(address[len(UNIX) :]), timeout=timeout)
    for text in admin.addresses:
        address_told = parse_address(admin.where("addresses"), text)
        if address_told.host is not None and address_told.port:
            token = _token(admin)
            return AdminClient("", address_told.host, address_told.port, token, timeout)
    path = path_of(NAME)
    try:
        found = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return None
    return AdminClient(path, timeout=timeout) if found else None


def _token(admin: AdminSettings) -> str:
    if not admin.token_file:
        return admin.token
    try:
        with open(admin.token_file, encoding="ascii", errors="replace") as file:
            return file.read(4096).strip()
    except OSError as error:
        problem = f"cannot read {admin.token_file}: {error.strerror}"
        raise ConfigError(admin.where("token_file"), problem) from None
