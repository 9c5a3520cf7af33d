"""A real gateway on free ports of 127.0.0.1, in a process of its own beside the test.

Rule: no reactor is needed here; every wait has an end, and the process ends before its test does,
whatever becomes of either.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import fastway
from fastway.errors import ConfigError, GatewayDied, StartError
from fastway.testing.options import HOST, GatewayOptions, client_string, web_url

CHILD = "fastway.testing.child"

START = 30.0
"""Seconds that it may take to listen; on an idle machine it is under one."""

STOP = 1.0
"""Seconds that it may take to end by itself, and as many when it is hurried."""

LOG = 64 * 1024
"""Bytes of its log's end that are looked at."""

LINES = 20
"""Lines of its log that an error shows."""


class LocalGatewayProcess:
    """`with LocalGatewayProcess() as gateway:` runs one until the end of the block.

    In asyncio code `async with` does not keep the loop waiting. Elsewhere `start()` and `stop()`.
    A second start takes the same ports.

    Args:
        key: What game servers prove to hold.
        snet: Speak snet on the client port.
        ws: Have a port for web pages too, by WebSocket.
        client_port: The number of a port; 0: any free one.
        server_port: The same of the server port.
        options: Options of the gateway: see `docs/testing.md`.

    Raises:
        ConfigError: an option cannot be used.

    Attributes:
        host: Where its ports are: 127.0.0.1.
        client_port, server_port: Their numbers, once it was started.
        client_string, server_string: Where clients and game servers connect, as Twisted endpoint
            strings; they speak snet if the port does.
        web_port, web_url: That of the port for web pages, and its URL; 0 and "" without one.
        key: The key, as `connect_server` takes it.
    """

    host = HOST
    client_string: str
    server_string: str
    web_url: str

    def __init__(
        self,
        key: str | bytes = "secret",
        *,
        snet: bool = False,
        ws: bool = False,
        client_port: int = 0,
        server_port: int = 0,
        **options: object,
    ) -> None:
        self.client_port = client_port
        self.server_port = server_port
        self.web_port = 0
        self._options = GatewayOptions(key, snet, ws, options)
        self.key = self._options.key
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._log = ""

    @property
    def pid(self) -> int | None:
        """The number of its process; None when it was not started."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> str:
        """The end of its log, as far as it was written; stays when it has stopped."""
        if self._directory:
            with open(os.path.join(self._directory, "log"), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG))
                self._log = file.read().decode("utf-8", "replace")
        return self._log

    def start(self) -> LocalGatewayProcess:
        """Returns when it listens.

        Raises:
            StartError: it could not, or not in time; nothing is left of it.
        """
        if self._process is not None:
            raise ConfigError("start", "it runs already")
        settings = self._options.at(self.client_port, self.server_port, self.web_port)
        self._directory = tempfile.mkdtemp(prefix="fastway-testing-")
        try:
            ports = self._launch()
        except BaseException:
            self._clean_up()
            raise
        self.client_port, self.server_port = ports["client"], ports["server"]
        self.web_port = ports.get("web client", 0)
        self.web_url = web_url(settings, self.web_port)
        self.client_string = client_string(settings.client, self.client_port)
        self.server_string = client_string(settings.server, self.server_port)
        return self

    def _launch(self) -> dict[str, int]:
        files = [f"--run-dir={self._directory}", "--pid-file=", "--command-file="]
        with open(os.path.join(self._directory, "log"), "wb") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", CHILD, *self._options.arguments(), *files],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                # Ctrl-C is the test's; it sees to the gateway's end.
                start_new_session=True,
            )
        line = _first_line(process, START)
        if line:
            ports: dict[str, int] = json.loads(line)
            return ports
        status = process.poll()
        how = f"does not listen after {START:g} s" if status is None else _how(status)
        raise StartError(f"the gateway of the test {how}; its log:\n{self._last_lines()}")

    def _environment(self) -> dict[str, str]:
        """This process's, with no setting of a gateway but the key, which a command line shows."""
        plain = {name: text for name, text in os.environ.items() if name[:8] != "FASTWAY_"}
        here = os.path.dirname(os.path.dirname(os.path.abspath(fastway.__file__)))
        paths = [path for path in (plain.get("PYTHONPATH", ""), here) if path]
        return {
            **plain,
            "PYTHONPATH": os.pathsep.join(paths),
            "FASTWAY_SERVER_AUTH_PASSWORD": os.fsdecode(self.key),
        }

    def check(self) -> None:
        """See that it lives.

        Raises:
            GatewayDied: it does not, and nobody stopped it.
        """
        if self._process is None:
            return
        status = self._process.poll()
        if status is not None:
            how = f"{_how(status)} (process {self._process.pid})"
            raise GatewayDied(f"the gateway of the test {how}", self._last_lines())

    def stop(self) -> None:
        """End it, for sure and within seconds; a second time does nothing.

        Raises:
            GatewayDied: it was dead already, though nobody had stopped it.
        """
        try:
            self.check()
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        self._log = self.log
        directory, self._directory = self._directory, ""
        shutil.rmtree(directory, ignore_errors=True)

    def _last_lines(self) -> str:
        lines = self.log.splitlines()[-LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (nothing)"

    def __enter__(self) -> LocalGatewayProcess:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def __aenter__(self) -> LocalGatewayProcess:
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(None, self.start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(StartError):
                await starting
            await loop.run_in_executor(None, self._clean_up)
            raise

    async def __aexit__(self, *error: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.stop)


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What a process first says; empty if it ends, or the time does, before that."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return b""
            more = os.read(process.stdout.fileno(), 4096)
            if not more:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP)
                return b""
            said += more
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process: by the end of its input, by a signal, by force."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    for hurry in (process.terminate, process.kill):
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP)
            return
        hurry()
    process.wait()


def _how(status: int) -> str:
    """How a process ended."""
    if status >= 0:
        return f"ended by itself with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
